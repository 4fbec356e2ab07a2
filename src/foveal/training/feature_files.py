"""Files of features: computed once per data set, known by a digest, mapped into memory."""

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
from foveal.training.features import DEPTH, Cut, Features, Part, cut_of, frozen
from foveal.training.settings import Recipe

FORM = 2  # of the files
INDEX = "index.json"  # written last: without it a cache is half written
BATCH = 16  # images in a pass; more are no faster
Progress = Callable[[int], None]  # called with how many images were done
MEASURED = ("val", "test")  # sets that are only measured on, and so never mirrored
LARGEST = 65_504.0  # half precision's
NAMES = {THUMBNAIL, CROPS, VECTORS, *(f"{DEPTH}{depth}" for depth in range(1, 65))}


def with_features(
    model: ImageModel,
    recipe: Recipe,
    sets: Mapping[str, ImageSet[Any]],
    folder: Path,
    *,
    progress: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, ImageSet[Features]]:
    """Return sets with the features of the frozen backbone in the place of their images.

    Args:
        model: whose backbone is frozen as the recipe has it.
        recipe: with `training.cache`.
        sets: by their names.
        folder: for the features, a folder for each set.
        progress: show a progress bar on stderr.
        say: called with a line where features that were there cannot be used.

    Raises:
        UserError: the model has no backbone, or as `cached_features`.
    """
    if Ability.BACKBONE not in model.abilities:
        raise UserError(
            f"training.cache is for 'attention', 'plain' and 'crops', not {model.name!r}."
        )
    as_they_are = cut_of(model, recipe.training.freeze_depth, False)
    trained = replace(as_they_are, mirrored=recipe.augment.flip)
    shown: AbstractContextManager[Progress] = nullcontext(lambda count: None)
    if progress:
        shown = rate_bar("features", sum(len(images) for images in sets.values()))
    with shown as done:
        found = {}
        for name, images in sets.items():
            cut = as_they_are if name in MEASURED else trained
            features = cached_features(model, cut, images, folder / name, done, say)
            found[name] = replace(images, images=features)
        return found


def cached_features(
    model: ImageModel,
    cut: Cut,
    images: ImageSet[Tensor | Photos],
    folder: Path,
    progress: Progress = lambda count: None,
    say: Callable[[str], None] = lambda text: None,
) -> Features:
    """Return the features of images; computed, or taken from a folder that holds these very ones.

    What is kept is known by a digest of the pixels, of the frozen weights and of the settings, so
    that no other's features are taken for them. A folder that holds others, or is half written, is
    made anew.

    Args:
        model: a classifier with a backbone that is frozen down to `cut.depth`.
        cut: what is kept.
        images: of uint8, or photographs.
        folder: for the files.
        progress: called with how many images were done, as often as a batch is.
        say: called with a line where what was there cannot be used.

    Raises:
        UserError: the files cannot be written.
    """
    parts = parts_of(images.images)
    key = _key(model, cut, parts)
    found = _kept(folder, key, cut, say)
    if found is not None:
        progress(len(images))
        return found
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        _check_room(folder, _room(model, cut, parts))
        names = _compute(model, cut, parts, folder, progress)
        sizes = [list(part.shape[-2:]) for part in parts]
        write_json(folder / INDEX, {"form": FORM, "key": key, "sizes": sizes, "names": names})
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"Cannot keep the features in {folder}: {reason}. Give training.cache=false to train "
            "without."
        ) from None
    kept = _kept(folder, key, cut, say)
    if kept is None:
        raise UserError(f"The features in {folder} have changed while they were written.")
    return kept


def _room(model: ImageModel, cut: Cut, parts: Sequence[Tensor]) -> int:
    """Return how many bytes the features of images take."""
    values = 0
    with evaluation_mode(model), torch.inference_mode():
        for part in parts:
            kept, whole = frozen(model, cut, _seen(model, part[:1]))
            values += len(part) * sum(one.numel() for one in (whole, *kept.values()))
    return 2 * cut.views * values


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"The features take {needed / 1e6:,.0f} MB in {folder}, but {free / 1e6:,.0f} MB are "
            "free on its disk: give training.cache=false to train without."
        )


def _key(model: ImageModel, cut: Cut, parts: Sequence[Tensor]) -> str:
    digest = hashlib.sha256()
    settings = [FORM, cut.depth, cut.depths, cut.mirrored, model.mean.tolist(), model.std.tolist()]
    backbones = [cast(BackboneClassifier, model).backbone]
    if Ability.CROPS in model.abilities:
        detector, _ = crop_parts(cast(FocusNet, model))
        settings += [detector.patch_size, detector.scales, detector.counts, detector.shrink]
        backbones.append(detector.backbone)
    digest.update(json.dumps(settings).encode())
    for backbone in backbones:
        for name, weight in sorted(backbone.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    for part in parts:
        digest.update(str(tuple(part.shape)).encode())
        for some in part.split(256):
            digest.update(some.contiguous().numpy())
    return digest.hexdigest()


def _compute(
    model: ImageModel, cut: Cut, parts: Sequence[Tensor], folder: Path, progress: Progress
) -> list[str]:
    """Write the features of all images, and their vectors; return the names of the features."""
    count, names, first = sum(len(part) for part in parts), dict[str, None](), 0
    width = cast(BackboneClassifier, model).backbone.width
    whole = _new(folder / "whole.npy", (count, cut.views, width))
    with evaluation_mode(model), torch.inference_mode():
        for number, part in enumerate(parts):
            files: dict[str, np.memmap] = {}
            for start in range(0, len(part), BATCH):
                batch = part[start : start + BATCH]
                for view in range(cut.views):
                    kept, vectors = frozen(
                        model, cut, _seen(model, batch.flip(-1) if view else batch)
                    )
                    rows = slice(first + start, first + start + len(batch))
                    whole[rows, view] = _half(vectors)
                    for name, values in kept.items():
                        if name not in files:
                            shape = (len(part), cut.views, *values.shape[1:])
                            files[name] = _new(folder / _file(number, name), shape)
                        files[name][start : start + len(batch), view] = _half(values)
                progress(len(batch))
            for file in files.values():
                file.flush()
            names |= dict.fromkeys(files)
            first += len(part)
    whole.flush()
    return list(names)


def _seen(model: ImageModel, images: Tensor) -> Tensor:
    pixels = as_floats(images.to(model.mean.device))
    return model.normalised(pixels).contiguous(memory_format=torch.channels_last)


def _half(values: Tensor) -> np.ndarray:
    return values.clamp(-LARGEST, LARGEST).half().cpu().numpy()


def _new(path: Path, shape: tuple[int, ...]) -> np.memmap:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)


def _file(part: int, name: str) -> str:
    return f"part-{part}-{name}.npy"


def _kept(folder: Path, key: str, cut: Cut, say: Callable[[str], None]) -> Features | None:
    """Return the features of a folder if it holds those of this key, whole."""
    if not folder.exists():
        return None
    try:
        index = read_json(folder / INDEX)
    except UserError:
        say(f"The features in {folder} are half written: they are computed anew.")
        return None
    if not isinstance(index, dict) or index.get("key") != key:
        say(f"The features in {folder} are of other images or settings: they are computed anew.")
        return None
    try:
        names = NAMES.intersection(index["names"])
        parts = []
        for number, (height, width) in enumerate(index["sizes"]):
            kept = {name: _mapped(folder / _file(number, name)) for name in sorted(names)}
            count = min(len(values) for values in kept.values())
            parts.append(Part(kept, torch.arange(count), (int(height), int(width))))
        return Features(tuple(parts), _mapped(folder / "whole.npy"), cut)
    except (OSError, ValueError, KeyError, TypeError):
        say(f"The features in {folder} are damaged: they are computed anew.")
        return None


def _mapped(path: Path) -> Tensor:
    """Return a file's values, read when they are used; what is written to them is not kept."""
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
