"""Feature files, which keep the features of a dataset so that they are computed only once.

They are memory-mapped when they are read, and identified by a digest of all that they depend on.
A view of an image is the image itself, or the image mirrored left to right.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from foveal.datasets import ImageSet
from foveal.foundation.errors import UserError
from foveal.foundation.files import read_json, write_json
from foveal.foundation.modes import evaluation_mode
from foveal.foundation.progress import rate_bar
from foveal.images.photos import Photos, parts_of
from foveal.images.values import as_floats
from foveal.models import ImageModel
from foveal.models.abilities import Ability
from foveal.models.backbone_classifier import BackboneClassifier
from foveal.models.crop_features import CROPS, THUMBNAIL, VECTORS, crop_parts
from foveal.models.focus import FocusNet
from foveal.training.features import (
    DEPTH_PREFIX,
    Cut,
    Features,
    Part,
    features_to_store,
    make_cut,
)
from foveal.training.settings import MAX_DEPTH, Recipe

FORMAT = 2  # version of the file format
INDEX = "index.json"  # written last, so a folder without it is incomplete
BATCH = 16  # images per pass through the backbone; larger batches are no faster
Progress = Callable[[int], None]  # called with the number of images processed since the last call
EVALUATION_SETS = ("val", "test")  # their images are never mirrored
MAX_HALF = 65_504.0  # maximum of half precision
# Names of features that a folder may hold. Others in an index, such as paths, are ignored.
_KNOWN_NAMES = {
    THUMBNAIL,
    CROPS,
    VECTORS,
    *(f"{DEPTH_PREFIX}{depth}" for depth in range(1, MAX_DEPTH + 1)),
}
_VECTORS_FILE = "whole.npy"  # the global vectors of all images


def with_features(
    model: ImageModel,
    recipe: Recipe,
    sets: Mapping[str, ImageSet[Any]],
    folder: Path,
    *,
    progress: bool = False,
    notify: Callable[[str], None] = lambda line: None,
) -> dict[str, ImageSet[Features]]:
    """Return the image sets with features of the frozen backbone in place of their images.

    Args:
        model: a model whose backbone is frozen by the recipe.
        recipe: a recipe with `training.cache`.
        sets: image sets by name.
        folder: folder for the features, with a subfolder per set.
        progress: whether to show a progress bar on stderr.
        notify: called with a line if existing features cannot be used.

    Raises:
        UserError: the model has no backbone, or the files cannot be written.
    """
    if Ability.BACKBONE not in model.abilities:
        raise UserError(
            "Expected a model with a backbone ('attention', 'plain' or 'crops') for "
            f"training.cache, but got {model.name!r}."
        )
    plain_cut = make_cut(model, recipe.training.freeze_depth, mirrored=False)
    train_cut = replace(plain_cut, mirrored=recipe.augment.flip)
    bar: AbstractContextManager[Progress] = nullcontext(lambda count: None)
    if progress:
        bar = rate_bar("features", sum(len(images) for images in sets.values()))
    with bar as advance:
        feature_sets = {}
        for name, images in sets.items():
            cut = plain_cut if name in EVALUATION_SETS else train_cut
            features = cached_features(model, cut, images, folder / name, advance, notify)
            feature_sets[name] = replace(images, images=features)
        return feature_sets


def cached_features(
    model: ImageModel,
    cut: Cut,
    images: ImageSet[Tensor | Photos],
    folder: Path,
    progress: Progress = lambda count: None,
    notify: Callable[[str], None] = lambda line: None,
) -> Features:
    """Return the features of images from a folder; they are computed unless it holds them already.

    Features are identified by a digest of the pixels, the frozen weights and the settings. A folder
    that is incomplete or holds other features is overwritten.

    Args:
        model: a classifier whose backbone is frozen down to `cut.depth`.
        cut: which features are stored.
        images: uint8 images, or photographs.
        folder: folder for the files.
        progress: called after each batch with the number of its images, or once with the number of
            all images if their features are read.
        notify: called with a line if existing features cannot be used.

    Raises:
        UserError: the files cannot be written.
    """
    parts = parts_of(images.images)
    key = _key(model, cut, parts)
    features = _read_features(folder, key, cut, notify)
    if features is not None:
        progress(len(images))
        return features
    shutil.rmtree(folder, ignore_errors=True)
    _write(model, cut, parts, key, folder, progress)
    features = _read_features(folder, key, cut, notify)
    if features is None:
        raise UserError(
            f"Another process changed the features in {folder} while they were written: run again."
        )
    return features


def _write(
    model: ImageModel,
    cut: Cut,
    parts: Sequence[Tensor],
    key: str,
    folder: Path,
    progress: Progress,
) -> None:
    """Compute the features of images and write them into a new folder.

    Raises:
        UserError: the files cannot be written.
    """
    try:
        folder.mkdir(parents=True)
        _check_disk(folder, _size_in_bytes(model, cut, parts))
        names = _compute(model, cut, parts, folder, progress)
        sizes = [list(part.shape[-2:]) for part in parts]
        write_json(folder / INDEX, {"form": FORMAT, "key": key, "sizes": sizes, "names": names})
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"Cannot write the features to {folder}: {reason}. Use training.cache=false to train "
            "without them."
        ) from None


def _size_in_bytes(model: ImageModel, cut: Cut, parts: Sequence[Tensor]) -> int:
    """Return the size of the feature files in bytes, measured on one image of each size."""
    values_per_view = 0
    with evaluation_mode(model), torch.inference_mode():
        for part in parts:
            features, vectors = features_to_store(model, cut, _normalise(model, part[:1]))
            values_per_image = sum(values.numel() for values in (vectors, *features.values()))
            values_per_view += len(part) * values_per_image
    return 2 * cut.views * values_per_view  # a value in half precision has two bytes


def _check_disk(folder: Path, needed: int) -> None:
    """Check that the folder's disk has enough free space.

    Raises:
        UserError: fewer bytes than `needed` are free.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"The features need {needed / 1e6:,.0f} MB in {folder}, but {free / 1e6:,.0f} MB are "
            "free on its disk: use training.cache=false to train without them."
        )


def _key(model: ImageModel, cut: Cut, parts: Sequence[Tensor]) -> str:
    """Return a digest of all that the features depend on: pixels, frozen weights and settings."""
    digest = hashlib.sha256()
    values = [FORMAT, cut.depth, cut.depths, cut.mirrored, model.mean.tolist(), model.std.tolist()]
    backbones = [cast(BackboneClassifier, model).backbone]
    if Ability.CROPS in model.abilities:
        detector, _ = crop_parts(cast(FocusNet, model))
        values += [detector.patch_size, detector.scales, detector.counts, detector.shrink]
        backbones.append(detector.backbone)
    digest.update(json.dumps(values).encode())
    for backbone in backbones:
        for name, weight in sorted(backbone.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    for part in parts:
        digest.update(str(tuple(part.shape)).encode())
        for chunk in part.split(256):
            digest.update(chunk.contiguous().numpy())
    return digest.hexdigest()


def _compute(
    model: ImageModel, cut: Cut, parts: Sequence[Tensor], folder: Path, progress: Progress
) -> list[str]:
    """Write the features and the global vectors of all images; return the features' names."""
    count = sum(len(part) for part in parts)
    names = dict[str, None]()  # a set that keeps its order
    part_start = 0  # index of the part's first image
    width = cast(BackboneClassifier, model).backbone.width
    global_vectors = _new_file(folder / _VECTORS_FILE, (count, cut.views, width))
    with evaluation_mode(model), torch.inference_mode():
        for part_index, part in enumerate(parts):
            files: dict[str, np.memmap] = {}
            for start in range(0, len(part), BATCH):
                batch = part[start : start + BATCH]
                for view in range(cut.views):
                    features, vectors = features_to_store(
                        model, cut, _normalise(model, batch.flip(-1) if view else batch)
                    )
                    rows = slice(part_start + start, part_start + start + len(batch))
                    global_vectors[rows, view] = _to_half(vectors)
                    for name, values in features.items():
                        if name not in files:
                            shape = (len(part), cut.views, *values.shape[1:])
                            files[name] = _new_file(folder / _file_name(part_index, name), shape)
                        files[name][start : start + len(batch), view] = _to_half(values)
                progress(len(batch))
            for file in files.values():
                file.flush()
            names |= dict.fromkeys(files)
            part_start += len(part)
    global_vectors.flush()
    return list(names)


def _normalise(model: ImageModel, images: Tensor) -> Tensor:
    """Return uint8 images (B, C, H, W) as the model's backbone expects them, on its device."""
    pixels = as_floats(images.to(model.mean.device))
    return model.normalised(pixels).contiguous(memory_format=torch.channels_last)


def _to_half(values: Tensor) -> np.ndarray:
    return values.clamp(-MAX_HALF, MAX_HALF).half().cpu().numpy()


def _new_file(path: Path, shape: tuple[int, ...]) -> np.memmap:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)


def _file_name(part_index: int, name: str) -> str:
    return f"part-{part_index}-{name}.npy"


def _read_features(
    folder: Path, key: str, cut: Cut, notify: Callable[[str], None]
) -> Features | None:
    """Return the features in a folder; None unless they are complete and have this key.

    Args:
        folder: the folder, which need not exist.
        key: digest by which the features are identified, see `_key`.
        cut: which features are stored.
        notify: called with a line if there are features, but they cannot be used.
    """
    if not folder.exists():
        return None
    try:
        index = read_json(folder / INDEX)
    except UserError:
        notify(f"The features in {folder} are incomplete; they are computed again.")
        return None
    if not isinstance(index, dict) or index.get("key") != key:
        notify(
            f"The features in {folder} are for other images or settings; they are computed again."
        )
        return None
    try:
        names = _KNOWN_NAMES.intersection(index["names"])
        parts = []
        for part_index, (height, width) in enumerate(index["sizes"]):
            features = {
                name: _map_file(folder / _file_name(part_index, name)) for name in sorted(names)
            }
            count = min(len(values) for values in features.values())
            parts.append(Part(features, torch.arange(count), (int(height), int(width))))
        return Features(tuple(parts), _map_file(folder / _VECTORS_FILE), cut)
    except (OSError, ValueError, KeyError, TypeError):
        notify(f"The features in {folder} are damaged; they are computed again.")
        return None


def _map_file(path: Path) -> Tensor:
    """Return a file's values, memory-mapped. Changes of the tensor are not written to the file."""
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
