"""Shared memory for training images: all processes of a machine use one copy."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from foveal.datasets import ImageSet
from foveal.foundation.errors import UserError
from foveal.foundation.files import atomic_file, parse_json
from foveal.training.distribution.devices import RANKS, is_first_process
from foveal.training.sets import Sets

_FILE = "images.safetensors"
_PATH_VARIABLE = "FOVEAL_SHARED_IMAGES"  # environment variable with the path of the shared file


def load_shared(load: Callable[[], Sets], folder: Path, process_count: int) -> Sets:
    """Return image sets whose images all processes of a machine share in memory.

    The first process loads the images and writes them to a file, which all processes map into
    memory. In some cases, each process loads the images itself: if a launcher such as torchrun or
    SLURM starts all processes at once, and if the images are not tensors, but large images, which
    stay in their files, or photographs.

    Args:
        load: called without arguments to load the image sets, at most once per process.
        folder: the run folder, in which the file is written.
        process_count: number of training processes.
    """
    shared_path = os.environ.get(_PATH_VARIABLE)
    if shared_path:
        return _map_sets(Path(shared_path))
    sets = load()
    in_memory = all(isinstance(images.images, Tensor) for images in sets.values())
    if process_count == 1 or any(name in os.environ for name in RANKS) or not in_memory:
        return sets
    path = folder / _FILE
    _write(sets, path)
    # Lightning starts the other processes with this environment.
    os.environ[_PATH_VARIABLE] = str(path)
    return _map_sets(path)


def delete_shared_images(folder: Path) -> None:
    """Delete the file of shared images, if this is the first process and has written one.

    Processes that have mapped the file can still read the images.
    """
    if is_first_process() and os.environ.pop(_PATH_VARIABLE, None) is not None:
        (folder / _FILE).unlink(missing_ok=True)


def _write(sets: dict[str, ImageSet], path: Path) -> None:
    """Write image sets to a safetensors file.

    Raises:
        UserError: the file cannot be written.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for split, images in sets.items():
        values = {"images": images.images, "labels": images.labels, "masks": images.masks}
        tensors |= {f"{split}.{k}": v.contiguous() for k, v in values.items() if v is not None}
        metadata[split] = json.dumps({"name": images.name, "classes": images.classes})
    try:
        with atomic_file(path) as partial_path:
            save_file(tensors, partial_path, metadata)
    except Exception as error:  # safetensors does not raise an OSError for disk errors
        raise UserError(f"Cannot write the shared images to {path}: {error}") from None


def _map_sets(path: Path) -> dict[str, ImageSet]:
    """Return the image sets in a file of `_write`, whose tensors are memory-mapped."""
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
