"""Datasets on the Hugging Face Hub, whose Parquet files (shards) are downloaded once and cached."""

import re
from pathlib import Path

from foveal.foundation.errors import UserError, one_line


def hub_folder(name: str) -> Path:
    """Return the folder with the Parquet shards of the Hub's dataset `OWNER/NAME`.

    Only its Parquet files are downloaded.

    Raises:
        UserError: the name is invalid, the Hub cannot be reached, or the dataset has no shards.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(f"Expected hf:OWNER/NAME, but got hf:{name}.")
    folder = _download(name)
    if next(folder.rglob("*.parquet"), None) is None:
        raise UserError(f"The Hub's dataset {name} has no Parquet shards, which Foveal needs.")
    return folder


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns="*.parquet"))
    except Exception as error:  # the network and the Hub's client may raise anything
        raise UserError(
            f"Cannot get the dataset {name} from the Hub: {one_line(error, 160)}. Without a "
            "network, give a folder with its Parquet shards."
        ) from None
