"""Features of images from a frozen backbone, computed once, and batches of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from foveal.foundation.modes import evaluation_mode
from foveal.images.geometry import Size
from foveal.models import ImageModel
from foveal.models.abilities import Ability
from foveal.models.backbone_classifier import BackboneClassifier
from foveal.models.crop_features import SIZE, VECTORS, frozen_features, read_frozen
from foveal.models.focus import FocusNet
from foveal.training.batches import Batches

DEPTH = "depth-"  # prefix of the names of features, followed by their depth


@dataclass(frozen=True)
class Cut:
    """Depth at which a backbone is cut, and the features that are stored.

    Attributes:
        depth: depth of the deepest stored features, from 1.
        depths: depths of all stored features.
        mirrored: whether features of images mirrored left to right are stored too.
    """

    depth: int
    depths: tuple[int, ...]
    mirrored: bool

    @property
    def views(self) -> int:
        """Number of views stored per image."""
        return 2 if self.mirrored else 1


@dataclass(frozen=True)
class Part:
    """Features of images of one size.

    Attributes:
        features: arrays (N_i, views, ...) by name, in half precision: `depth-d` for the features
            (C_d, h_d, w_d) of depth d, or those of crops as `frozen_features` names them.
        rows: (M,) indices of the selected images.
        size: height and width of the images in pixels.
    """

    features: Mapping[str, Tensor]
    rows: Tensor
    size: Size


@dataclass(frozen=True)
class Features:
    """Features of N images, in memory-mapped files.

    Attributes:
        parts: one part per image size.
        whole: global vectors (N, views, width) of the frozen backbone; for crops, their means over
            all candidates.
        cut: depth of the cut, and the stored features.
    """

    parts: tuple[Part, ...]
    whole: Tensor
    cut: Cut

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, indices: Tensor) -> "Features":
        """Return the features at ascending `indices` (M,); only the global vectors are copied."""
        parts, first = [], 0
        for part in self.parts:
            count = len(part.rows)
            selected = indices[(indices >= first) & (indices < first + count)] - first
            if len(selected):
                parts.append(replace(part, rows=part.rows[selected]))
            first += count
        return Features(tuple(parts), self.whole[indices], self.cut)


class FeatureBatches(Batches):
    """Yields (features by name, labels) batches; with a seed, mirrored every other epoch.

    Args:
        features: features of N images.
        labels: (N,) class indices.
        batch_size: images per batch.
        seed: random seed of the order; None keeps the order and mirrors no image.
        epoch: returns the current epoch; called when an epoch starts.
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
        """Return 1: features are small, so only `batch_size` limits a batch."""
        return 1

    def take(self, part: int, indices: Tensor, positions: Tensor) -> dict[str, Tensor]:
        """Return the features (B, ...) of a batch by name, and the images' `size`.

        Features of images are converted to single precision. Those of candidate crops stay in half
        precision, because few of them are read.
        """
        views = self.is_mirrored(positions).long() if self.alternate else torch.zeros_like(indices)
        stored = self.features.parts[part]
        rows = stored.rows[indices]
        batch = {
            name: _to_single(values[rows, views])
            for name, values in stored.features.items()
            if name != VECTORS
        }
        return {**batch, SIZE: torch.tensor(stored.size)}


def _to_single(values: Tensor) -> Tensor:
    if values.ndim != 4:
        return values
    return values.float().contiguous(memory_format=torch.channels_last)


def predict_features(model: ImageModel, features: Features, batch_size: int = 256) -> Tensor:
    """Return a model's logits (N, classes) from the features of images that are not mirrored."""
    logits = []
    labels = torch.zeros(len(features), dtype=torch.long)
    with evaluation_mode(model), torch.inference_mode():
        for batch, _ in FeatureBatches(features, labels, batch_size):
            logits.append(logits_of(model, batch, features.cut.depth).cpu())
    return torch.cat(logits)


def logits_of(model: ImageModel, features: Mapping[str, Tensor], depth: int) -> Tensor:
    """Return a model's logits (B, classes) from the features of its frozen depths."""
    if Ability.CROPS in model.abilities:
        return read_frozen(cast(FocusNet, model), features, depth)[1].logits
    network = cast(BackboneClassifier, model)
    local = {int(k.removeprefix(DEPTH)): v for k, v in features.items() if k.startswith(DEPTH)}
    deeper, whole = network.backbone.finish(local[depth], depth)
    return network.classify({**local, **deeper}, whole)


def features_to_store(
    model: ImageModel, cut: Cut, images: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the features to store for normalised images (B, C, H, W), and their global vectors."""
    if Ability.CROPS in model.abilities:
        features = frozen_features(cast(FocusNet, model), images, cut.depth)
        return features, features[VECTORS].mean(dim=1)
    backbone = cast(BackboneClassifier, model).backbone
    local = backbone.begin(images, cut.depth)
    whole = backbone.finish(local[-1], cut.depth)[1]
    return {f"{DEPTH}{depth}": local[depth - 1] for depth in cut.depths}, whole


def cut_of(model: ImageModel, depth: int, mirrored: bool) -> Cut:
    """Return the features to store for a model whose backbone is frozen down to a depth."""
    crops = Ability.CROPS in model.abilities
    used = () if crops else cast(BackboneClassifier, model).depths
    stored = {depth, *(lower for lower in used if lower < depth)}
    return Cut(depth, tuple(sorted(stored)), mirrored)
