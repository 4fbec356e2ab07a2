"""Shared memory for training images: one copy for all processes of a machine."""

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

_SHARED = "FOVEAL_SHARED_IMAGES"  # environment variable with the path of the shared file


def shared_images(load: Callable[[], Sets], folder: Path, processes: int) -> Sets:
    """Return image sets whose images all processes of a machine share in memory.

    The first process writes them to a file that all processes map into memory. If a launcher
    (torchrun, SLURM) starts all processes at once, each loads its own copy. Large images stay in
    their files.

    Args:
        load: returns the image sets.
        folder: the run folder, for the file.
        processes: number of training processes.
    """
    shared = os.environ.get(_SHARED)
    if shared:
        return _map_sets(Path(shared))
    sets = load()
    in_memory = all(isinstance(part.images, Tensor) for part in sets.values())
    if processes == 1 or any(name in os.environ for name in RANKS) or not in_memory:
        return sets
    path = folder / "images.safetensors"
    _write(sets, path)
    os.environ[_SHARED] = str(path)  # Lightning starts the other processes with this environment
    return _map_sets(path)


def forget_shared_images(folder: Path) -> None:
    """Delete the file of shared images; processes that have mapped it can still read them."""
    if is_first_process() and os.environ.pop(_SHARED, None) is not None:
        (folder / "images.safetensors").unlink(missing_ok=True)


def _write(sets: dict[str, ImageSet], path: Path) -> None:
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for split, images in sets.items():
        values = {"images": images.images, "labels": images.labels, "masks": images.masks}
        tensors |= {f"{split}.{k}": v.contiguous() for k, v in values.items() if v is not None}
        metadata[split] = json.dumps({"name": images.name, "classes": images.classes})
    try:
        with whole_file(path) as partial:
            save_file(tensors, partial, metadata)
    except Exception as error:  # safetensors has its own exception for disk errors
        raise UserError(f"Cannot write the shared images to {path}: {error}") from None


def _map_sets(path: Path) -> dict[str, ImageSet]:
    from safetensors import safe_open

    sets = {}
    with safe_open(path, "pt") as file:
        names = set(file.keys())
        for split, text in file.metadata().items():
            description = parse_json(text)
            masks = f"{split}.masks"
            sets[split] = ImageSet(
                name=description["name"],
                split=split,
                images=file.get_tensor(f"{split}.images"),
                labels=file.get_tensor(f"{split}.labels"),
                classes=tuple(description["classes"]),
                masks=file.get_tensor(masks) if masks in names else None,
            )
    return sets
