"""Datasets of the Hugging Face Hub: their Parquet shards, downloaded once and kept."""

import re
from dataclasses import replace
from pathlib import Path

from foveal.data.images import ImageSet
from foveal.data.parquet import load_parquet_folder
from foveal.errors import UserError


def load_hub(name: str, split: str, size: tuple[int, int] | None, channels: int | None) -> ImageSet:
    """Return one split of the Hub's dataset `OWNER/NAME`; only its Parquet files are fetched.

    Raises:
        UserError: the name has another form, the Hub cannot be reached, or it has no shards.
    """
    folder = hub_folder(name)
    # The folder is named after a commit, which tells nobody anything.
    return replace(load_parquet_folder(folder, split, size, channels), name=f"hf:{name}")


def hub_folder(name: str) -> Path:
    """Return the folder that holds the Parquet shards of the Hub's dataset `OWNER/NAME`.

    Raises:
        UserError: as `load_hub`.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(f"Expected hf:OWNER/NAME, but got hf:{name}.")
    folder = _download(name)
    if next(folder.rglob("*.parquet"), None) is None:
        raise UserError(f"The Hub's dataset {name} has no Parquet shards: Foveal reads no others.")
    return folder


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns="*.parquet"))
    except Exception as error:  # whatever the network and the Hub's client raise
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"Cannot get the dataset {name} from the Hub: {reason}. Without a network, give a "
            "folder that holds its Parquet shards."
        ) from None
