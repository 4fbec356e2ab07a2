"""Data: named datasets, class folders, Parquet shards and the Hub -> images in memory."""

import os
import re
from pathlib import Path

from foveal.data.images import ImageSet, Problem
from foveal.data.named import DATASETS
from foveal.data.reading import read_image
from foveal.errors import UserError, missing_extra, unknown_name

__all__ = ["DATASETS", "ImageSet", "Problem", "load_images", "read_image"]

SPLITS = ("train", "val", "test")


def load_images(
    source: str | Path,
    split: str,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    data_dir: str | Path | None = None,
) -> ImageSet:
    """Return one split of a dataset.

    Args:
        source: a name of `DATASETS`, a folder of class folders or of Parquet shards, or
            `hf:OWNER/NAME`.
        split: `train`, `val` or `test`.
        size: height and width to resize to; None keeps theirs.
        channels: 1 for grey, 3 for colour; None keeps theirs.
        data_dir: where named datasets lie; FOVEAL_DATA or ~/.cache/foveal if not given.

    Raises:
        UserError: an unknown name or split, or data that cannot be read.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    name = str(source)
    if name in DATASETS:
        place = data_dir or os.environ.get("FOVEAL_DATA") or Path.home() / ".cache" / "foveal"
        return _fitted(DATASETS[name](split, Path(place)), size, channels)
    if name.startswith("hf:"):
        return _load_path(_download(name[3:]), split, size, channels)
    if not Path(name).is_dir():
        raise unknown_name("dataset or folder", name, DATASETS)
    return _load_path(Path(name), split, size, channels)


def _load_path(
    folder: Path, split: str, size: tuple[int, int] | None, channels: int | None
) -> ImageSet:
    from foveal.data.folder import load_folder
    from foveal.data.parquet import load_parquet_folder

    if next(folder.rglob("*.parquet"), None) is not None:
        return load_parquet_folder(folder, split, size, channels)
    return load_folder(folder, split, size, channels)


def _download(name: str) -> Path:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(f"Expected hf:OWNER/NAME, but got hf:{name}.")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise missing_extra("huggingface_hub", "hub") from None
    try:
        path = snapshot_download(name, repo_type="dataset", allow_patterns="*.parquet")
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"Cannot get the dataset {name} from the Hub: {reason}") from None
    return Path(path)


def _fitted(images: ImageSet, size: tuple[int, int] | None, channels: int | None) -> ImageSet:
    """Return a named dataset in the size and channels asked for."""
    from dataclasses import replace

    import torch.nn.functional as F

    pixels = images.images
    if channels == 3 and pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    elif channels == 1 and pixels.shape[1] == 3:
        weights = pixels.new_tensor([299, 587, 114]).int()  # ITU-R 601, as Pillow's L
        grey = (pixels.int() * pixels.new_tensor([1]).int()).float()
        weighted = grey * weights.float().reshape(1, 3, 1, 1) / 1000
        pixels = weighted.sum(dim=1, keepdim=True).round().to(pixels.dtype)
    if size is not None and tuple(pixels.shape[-2:]) != tuple(size):
        parts = [
            F.interpolate(part.float(), size, mode="bilinear", antialias=True, align_corners=False)
            for part in pixels.split(1000)
        ]
        import torch

        pixels = torch.cat([part.round().clamp(0, 255).to(pixels.dtype) for part in parts])
    return replace(images, images=pixels)
