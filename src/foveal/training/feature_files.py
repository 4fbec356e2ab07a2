"""Feature files: features of a dataset, computed once, verified by a digest, memory-mapped."""

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
from foveal.models.crop_features import CROPS, THUMBNAIL, VECTORS
from foveal.models.crop_features import parts_of as crop_parts
from foveal.models.focus import FocusNet
from foveal.training.features import DEPTH, Cut, Features, Part, cut_of, features_to_store
from foveal.training.settings import Recipe

FORMAT = 2  # version of the file format
INDEX = "index.json"  # written last: a cache without it is incomplete
BATCH = 16  # images per pass; more are no faster
Progress = Callable[[int], None]  # called with the number of images processed since the last call
EVALUATION_SETS = ("val", "test")  # never mirrored
MAX_HALF = 65_504.0  # maximum of half precision
NAMES = {THUMBNAIL, CROPS, VECTORS, *(f"{DEPTH}{depth}" for depth in range(1, 65))}


def with_features(
    model: ImageModel,
    recipe: Recipe,
    sets: Mapping[str, ImageSet[Any]],
    folder: Path,
    *,
    progress: bool = False,
    notify: Callable[[str], None] = lambda line: None,
) -> dict[str, ImageSet[Features]]:
    """Return image sets with features of the frozen backbone instead of images.

    Args:
        model: a model whose backbone is frozen by the recipe.
        recipe: a recipe with `training.cache`.
        sets: image sets by name.
        folder: folder for the features, with a subfolder per set.
        progress: whether to show a progress bar on stderr.
        notify: called with a line if existing features cannot be used.

    Raises:
        UserError: the model has no backbone; see also `cached_features`.
    """
    if Ability.BACKBONE not in model.abilities:
        raise UserError(
            "Expected a model with a backbone ('attention', 'plain' or 'crops') for "
            f"training.cache, but got {model.name!r}."
        )
    plain_cut = cut_of(model, recipe.training.freeze_depth, False)
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
    notify: Callable[[str], None] = lambda text: None,
) -> Features:
    """Return the features of images, computed, or read from a folder that already holds them.

    Features are identified by a digest of the pixels, the frozen weights and the settings. A folder
    that is incomplete or holds other features is overwritten.

    Args:
        model: a classifier whose backbone is frozen down to `cut.depth`.
        cut: the features to store.
        images: uint8 images, or photographs.
        folder: folder for the files.
        progress: called after each batch with its number of images.
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
        _check_disk(folder, _size(model, cut, parts))
        names = _compute(model, cut, parts, folder, progress)
        sizes = [list(part.shape[-2:]) for part in parts]
        write_json(folder / INDEX, {"form": FORMAT, "key": key, "sizes": sizes, "names": names})
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"Cannot write the features to {folder}: {reason}. Use training.cache=false to train "
            "without them."
        ) from None


def _size(model: ImageModel, cut: Cut, parts: Sequence[Tensor]) -> int:
    """Return the size of the features of images in bytes."""
    count = 0
    with evaluation_mode(model), torch.inference_mode():
        for part in parts:
            features, whole = features_to_store(model, cut, _normalised(model, part[:1]))
            count += len(part) * sum(values.numel() for values in (whole, *features.values()))
    return 2 * cut.views * count


def _check_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"The features need {needed / 1e6:,.0f} MB in {folder}, but {free / 1e6:,.0f} MB are "
            "free on its disk: use training.cache=false to train without them."
        )


def _key(model: ImageModel, cut: Cut, parts: Sequence[Tensor]) -> str:
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
    count, names, first = sum(len(part) for part in parts), dict[str, None](), 0
    width = cast(BackboneClassifier, model).backbone.width
    whole = _new_file(folder / "whole.npy", (count, cut.views, width))
    with evaluation_mode(model), torch.inference_mode():
        for number, part in enumerate(parts):
            files: dict[str, np.memmap] = {}
            for start in range(0, len(part), BATCH):
                batch = part[start : start + BATCH]
                for view in range(cut.views):
                    features, vectors = features_to_store(
                        model, cut, _normalised(model, batch.flip(-1) if view else batch)
                    )
                    rows = slice(first + start, first + start + len(batch))
                    whole[rows, view] = _to_half(vectors)
                    for name, values in features.items():
                        if name not in files:
                            shape = (len(part), cut.views, *values.shape[1:])
                            files[name] = _new_file(folder / _file_name(number, name), shape)
                        files[name][start : start + len(batch), view] = _to_half(values)
                progress(len(batch))
            for file in files.values():
                file.flush()
            names |= dict.fromkeys(files)
            first += len(part)
    whole.flush()
    return list(names)


def _normalised(model: ImageModel, images: Tensor) -> Tensor:
    pixels = as_floats(images.to(model.mean.device))
    return model.normalised(pixels).contiguous(memory_format=torch.channels_last)


def _to_half(values: Tensor) -> np.ndarray:
    return values.clamp(-MAX_HALF, MAX_HALF).half().cpu().numpy()


def _new_file(path: Path, shape: tuple[int, ...]) -> np.memmap:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)


def _file_name(part: int, name: str) -> str:
    return f"part-{part}-{name}.npy"


def _read_features(
    folder: Path, key: str, cut: Cut, notify: Callable[[str], None]
) -> Features | None:
    """Return the features in a folder; None unless they are complete and have this key."""
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
        names = NAMES.intersection(index["names"])
        parts = []
        for number, (height, width) in enumerate(index["sizes"]):
            features = {
                name: _map_file(folder / _file_name(number, name)) for name in sorted(names)
            }
            count = min(len(values) for values in features.values())
            parts.append(Part(features, torch.arange(count), (int(height), int(width))))
        return Features(tuple(parts), _map_file(folder / "whole.npy"), cut)
    except (OSError, ValueError, KeyError, TypeError):
        notify(f"The features in {folder} are damaged; they are computed again.")
        return None


def _map_file(path: Path) -> Tensor:
    """Return a file's values, memory-mapped; changes to them are not written to the file."""
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
