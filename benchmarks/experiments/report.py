"""Figures of docs/report.md, measured on the zoo's models: `make report`.

The zoo's models of each dataset are compared on 1,000 test images, with all post-hoc methods and
the judges; the pointing games are run, costs are timed, and models are trained on planted marks.
Finished parts are kept, so the same command resumes. Figures are written to
benchmarks/results/models, pictures to docs/images, and complete reports to report/.

    FOVEAL_DATA=... python benchmarks/experiments/report.py [--images 1000] [--published 50]
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from foveal import zoo
from foveal.evaluation.compare import compare
from foveal.evaluation.report.compare_page import write_comparison
from foveal.foundation.progress import progress_bar

ROOT = Path(__file__).parents[2]
KINDS = ("focus", "focus-plain", "glimpse", "attention", "cnn", "focus-wide")
CONTROLS = ("focus", "centre", "random", "cnn")
COMPARED = {
    **dict.fromkeys(("mnist", "fashion-mnist", "cifar10"), KINDS),
    "cluttered-mnist-60": CONTROLS,
}
SCRIPTS = (
    "benchmarks/experiments/pointing",
    "benchmarks/experiments/grid",
    "benchmarks/performance/costs",
    "benchmarks/experiments/planted",
    "tools/figures",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000, help="images per comparison")
    parser.add_argument(
        "--published", type=int, default=50, help="images for the published metrics"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("report"), help="folder of the complete reports"
    )
    options = parser.parse_args()
    results = ROOT / "benchmarks" / "results" / "models"
    results.mkdir(parents=True, exist_ok=True)
    for data, kinds in COMPARED.items():
        models = [f"{data}-{kind}" for kind in kinds if f"{data}-{kind}" in zoo.names()]
        if not models:
            continue
        with progress_bar() as progress:
            comparison = compare(
                models,
                data,
                options.out / data,
                images=options.images,
                published=options.published,
                progress=progress,
            )
        print(write_comparison(comparison, options.out / data), flush=True)
        shutil.copy(options.out / data / "results.json", results / f"{data}.json")
    for script in SCRIPTS:
        subprocess.run([sys.executable, ROOT / f"{script}.py"], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
