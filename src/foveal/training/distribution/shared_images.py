"""Shared images: training images that the processes of one machine hold in memory once."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from foveal.datasets import ImageSet
from foveal.foundation.errors import UserError
from foveal.foundation.files import parse_json, whole_file
from foveal.training.distribution.devices import RANKS, is_first_process
from foveal.training.sets import Sets

_SHARED = "FOVEAL_SHARED_IMAGES"  # environment variable with the path of the images' file


def shared_images(load: Callable[[], Sets], folder: Path, processes: int) -> Sets:
    """Return images that the processes of one machine hold in memory once.

    The first process writes them into a file that all map; the system then keeps one copy of its
    pages. Where a launcher (torchrun, SLURM) starts all processes at once, each loads its own;
    large images stay in their files.

    Args:
        load: returns the image sets.
        folder: of the run, for the file.
        processes: how many will train.
    """
    place = os.environ.get(_SHARED)
    if place:
        return _mapped(Path(place))
    sets = load()
    in_memory = all(isinstance(part.images, Tensor) for part in sets.values())
    if processes == 1 or any(name in os.environ for name in RANKS) or not in_memory:
        return sets
    path = folder / "images.safetensors"
    _write(sets, path)
    os.environ[_SHARED] = str(path)  # Lightning starts the other processes with this environment
    return _mapped(path)


def forget_shared_images(folder: Path) -> None:
    """Delete the file of shared images; processes that have mapped it keep what they see."""
    if is_first_process() and os.environ.pop(_SHARED, None) is not None:
        (folder / "images.safetensors").unlink(missing_ok=True)


def _write(sets: dict[str, ImageSet], path: Path) -> None:
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    said: dict[str, str] = {}
    for split, images in sets.items():
        kept = {"images": images.images, "labels": images.labels, "masks": images.masks}
        tensors |= {f"{split}.{k}": v.contiguous() for k, v in kept.items() if v is not None}
        said[split] = json.dumps({"name": images.name, "classes": images.classes})
    try:
        with whole_file(path) as partial:
            save_file(tensors, partial, said)
    except Exception as error:  # the disk's
        raise UserError(f"Cannot share the images as {path}: {error}") from None


def _mapped(path: Path) -> dict[str, ImageSet]:
    from safetensors import safe_open

    sets = {}
    with safe_open(path, "pt") as file:
        names = set(file.keys())
        for split, said in file.metadata().items():
            found = parse_json(said)
            masks = f"{split}.masks"
            sets[split] = ImageSet(
                name=found["name"],
                split=split,
                images=file.get_tensor(f"{split}.images"),
                labels=file.get_tensor(f"{split}.labels"),
                classes=tuple(found["classes"]),
                masks=file.get_tensor(masks) if masks in names else None,
            )
    return sets
