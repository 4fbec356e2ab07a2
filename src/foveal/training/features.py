"""Features of images under a frozen backbone, computed once and kept on disk."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from foveal.data import ImageSet
from foveal.errors import UserError
from foveal.files import read_json, write_json
from foveal.images.photos import Photos, parts_of
from foveal.images.values import as_floats
from foveal.models import ImageModel
from foveal.models.abilities import Ability
from foveal.models.backbone_classifier import BackboneClassifier
from foveal.modes import evaluation_mode
from foveal.progress import rate_bar
from foveal.training.batches import Batches
from foveal.training.settings import Recipe

FORM = 1  # of the files
INDEX = "index.json"  # written last: without it a cache is half written
BATCH = 16  # images in a pass; more are no faster
LARGEST = 65_504.0  # half precision's

Progress = Callable[[int], None]  # called with how many images were done


@dataclass(frozen=True)
class Cut:
    """Where a backbone is cut, and what is kept of its features.

    Attributes:
        depth: of the deepest features that are kept, from 1.
        depths: of all that are kept.
        mirrored: images are also kept mirrored left to right.
    """

    depth: int
    depths: tuple[int, ...]
    mirrored: bool

    @property
    def views(self) -> int:
        """How many times each image is kept."""
        return 2 if self.mirrored else 1


@dataclass(frozen=True)
class Part:
    """Features of images of one size.

    Attributes:
        kept: (N_i, views, C_d, h_d, w_d) by their depth d, in half precision.
        rows: (M,) of those that are meant.
    """

    kept: Mapping[int, Tensor]
    rows: Tensor


@dataclass(frozen=True)
class Features:
    """Features of N images, in files that are mapped into memory.

    Attributes:
        parts: one for each size of images.
        whole: the global vectors (N, views, width) of the backbone as it was.
        cut: of the backbone.
    """

    parts: tuple[Part, ...]
    whole: Tensor
    cut: Cut

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, indices: Tensor) -> "Features":
        """Return those at ascending `indices` (M,); nothing is copied but their global vectors."""
        parts, first = [], 0
        for part in self.parts:
            count = len(part.rows)
            own = indices[(indices >= first) & (indices < first + count)] - first
            if len(own):
                parts.append(Part(part.kept, part.rows[own]))
            first += count
        return Features(tuple(parts), self.whole[indices], self.cut)


class FeatureBatches(Batches):
    """Yields (features by depth, labels) batches; with a seed, mirrored every other epoch.

    Args:
        features: of N images.
        labels: (N,) class indices.
        batch_size: images in a batch.
        seed: of the order; None keeps the order, and takes images as they are.
        epoch: called when an epoch starts.
    """

    def __init__(
        self,
        features: Features,
        labels: Tensor,
        batch_size: int,
        seed: int | None = None,
        epoch: Callable[[], int] = lambda: 0,
    ):
        alternate = seed is not None and features.cut.mirrored
        super().__init__(labels, labels, batch_size, seed, epoch, alternate)
        self.features = features
        self.parts = [part.rows for part in features.parts]

    def pixels(self, part: int) -> int:
        """Return 1: features are small, so that `batch_size` alone bounds a batch."""
        return 1

    def take(self, part: int, indices: Tensor, every: Tensor) -> dict[int, Tensor]:
        """Return the features (B, C_d, h_d, w_d) of a batch by their depth, in single precision."""
        views = self.mirrored(every).long() if self.alternate else torch.zeros_like(indices)
        found = self.features.parts[part]
        rows = found.rows[indices]
        return {
            depth: values[rows, views].float().contiguous(memory_format=torch.channels_last)
            for depth, values in found.kept.items()
        }


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
        raise UserError(f"training.cache is for 'attention' and 'plain', not {model.name!r}.")
    cut = cut_of(cast(BackboneClassifier, model), recipe.training.freeze_depth, recipe.augment.flip)
    shown: AbstractContextManager[Progress] = nullcontext(lambda count: None)
    if progress:
        shown = rate_bar("features", sum(len(images) for images in sets.values()))
    with shown as done:
        return {
            name: replace(
                images, images=cached_features(model, cut, images, folder / name, done, say)
            )
            for name, images in sets.items()
        }


def predicted(model: Any, features: Features, batch_size: int = 256) -> Tensor:
    """Return a model's logits (N, classes) from the features of images as they are."""
    found = []
    labels = torch.zeros(len(features), dtype=torch.long)
    with evaluation_mode(model), torch.inference_mode():
        for kept, _ in FeatureBatches(features, labels, batch_size):
            found.append(logits_of(model, kept, features.cut.depth).cpu())
    return torch.cat(found)


def logits_of(model: Any, kept: Mapping[int, Tensor], depth: int) -> Tensor:
    """Return a model's logits (B, classes) from the features of frozen depths, the deepest last."""
    deeper, whole = model.backbone.finish(kept[depth], depth)
    return model.classify({**kept, **deeper}, whole)


def cut_of(model: BackboneClassifier, depth: int, mirrored: bool) -> Cut:
    """Return what must be kept of a model's backbone that is frozen down to a depth."""
    depths = {depth, *(own for own in model.depths if own < depth)}
    return Cut(depth, tuple(sorted(depths)), mirrored)


def cached_features(
    model: Any,
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
        _compute(model, cut, parts, folder, progress)
        write_json(folder / INDEX, {"form": FORM, "key": key, "parts": len(parts)})
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


def _room(model: Any, cut: Cut, parts: Sequence[Tensor]) -> int:
    """Return how many bytes the features of images take."""
    values = 0
    with evaluation_mode(model), torch.inference_mode():
        for part in parts:
            local = model.backbone.begin(_seen(model, part[:1]), cut.depth)
            each = sum(local[depth - 1].numel() for depth in cut.depths) + model.backbone.width
            values += len(part) * each
    return 2 * cut.views * values


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"The features take {needed / 1e6:,.0f} MB in {folder}, but {free / 1e6:,.0f} MB are "
            "free on its disk: give training.cache=false to train without."
        )


def _key(model: Any, cut: Cut, parts: Sequence[Tensor]) -> str:
    digest = hashlib.sha256()
    settings = [FORM, cut.depth, cut.depths, cut.mirrored, model.mean.tolist(), model.std.tolist()]
    digest.update(json.dumps(settings).encode())
    for name, weight in sorted(model.backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    for part in parts:
        digest.update(str(tuple(part.shape)).encode())
        for some in part.split(256):
            digest.update(some.contiguous().numpy())
    return digest.hexdigest()


def _compute(
    model: Any, cut: Cut, parts: Sequence[Tensor], folder: Path, progress: Progress
) -> None:
    """Write the features of all images, and their global vectors."""
    count = sum(len(part) for part in parts)
    whole = _new(folder / "whole.npy", (count, cut.views, model.backbone.width))
    first = 0
    with evaluation_mode(model), torch.inference_mode():
        for number, part in enumerate(parts):
            files: dict[int, np.memmap] = {}
            for start in range(0, len(part), BATCH):
                batch = part[start : start + BATCH]
                for view in range(cut.views):
                    seen = _seen(model, batch.flip(-1) if view else batch)
                    local = model.backbone.begin(seen, cut.depth)
                    vector = model.backbone.finish(local[-1], cut.depth)[1]
                    rows = slice(first + start, first + start + len(batch))
                    whole[rows, view] = _half(vector)
                    for depth in cut.depths:
                        values = _half(local[depth - 1])
                        if depth not in files:
                            shape = (len(part), cut.views, *values.shape[1:])
                            files[depth] = _new(folder / _file(number, depth), shape)
                        files[depth][start : start + len(batch), view] = values
                progress(len(batch))
            for file in files.values():
                file.flush()
            first += len(part)
    whole.flush()


def _seen(model: Any, images: Tensor) -> Tensor:
    pixels = as_floats(images.to(model.mean.device))
    return model.normalised(pixels).contiguous(memory_format=torch.channels_last)


def _half(values: Tensor) -> np.ndarray:
    return values.clamp(-LARGEST, LARGEST).half().cpu().numpy()


def _new(path: Path, shape: tuple[int, ...]) -> np.memmap:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)


def _file(part: int, depth: int) -> str:
    return f"part-{part}-depth-{depth}.npy"


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
        parts = []
        for part in range(int(index["parts"])):
            kept = {depth: _mapped(folder / _file(part, depth)) for depth in cut.depths}
            parts.append(Part(kept, torch.arange(len(kept[cut.depth]))))
        return Features(tuple(parts), _mapped(folder / "whole.npy"), cut)
    except (OSError, ValueError, KeyError, TypeError):
        say(f"The features in {folder} are damaged: they are computed anew.")
        return None


def _mapped(path: Path) -> Tensor:
    """Return a file's values, read when they are used; what is written to them is not kept."""
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
