"""Location of the named datasets."""

import os
from pathlib import Path


def datasets_folder(data_dir: str | Path | None) -> Path:
    """Return `data_dir` if it is given, else the folder in FOVEAL_DATA, else ~/.cache/foveal."""
    return Path(data_dir or os.environ.get("FOVEAL_DATA") or "~/.cache/foveal").expanduser()
