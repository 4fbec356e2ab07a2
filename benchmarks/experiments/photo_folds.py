"""Attention on the pretrained backbone against a linear layer on it, by five-fold cross-validation.

Finished folds are stored below --runs; the same command continues an interrupted run.

    FOVEAL_DATA=... python benchmarks/experiments/photo_folds.py [clothing ...]
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from foveal.foundation.files import read_json, write_json

DATA = ("clothing", "isic2017", "magnetic-tile")
FOLDS = 5


def folds(data: str, runs: Path) -> dict:
    """Return the cross-validation results of a dataset's attention recipe."""
    out = runs / f"{data}-folds"
    command = ["train", f"{data}-attention", "--folds", str(FOLDS), "--out", str(out), "--resume"]
    subprocess.run([sys.executable, "-m", "foveal", *command], check=True)
    return {"data": data, **json.loads((out / "folds.json").read_text(encoding="utf-8"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", nargs="*", default=DATA)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, help="file of the results, to which rows are added")
    options = parser.parse_args()
    saved_rows = read_json(options.out)["rows"] if options.out and options.out.is_file() else []
    rows = {row["data"]: row for row in saved_rows}
    for data in options.data:
        rows[data] = folds(data, options.runs)
        if options.out:
            ordered = [rows[name] for name in DATA if name in rows]
            write_json(options.out, {"folds": FOLDS, "rows": ordered})


if __name__ == "__main__":
    main()
