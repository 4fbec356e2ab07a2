"""Features of images from a frozen backbone, which are computed once and read in each epoch.

The features of depth d are the output of the d-th stage of a backbone, counted from 1. A backbone
is cut after its deepest frozen stage: features from before the cut are stored, and only the stages
after the cut are computed in each step. A view of an image is the image itself, or the image
mirrored left to right.
"""

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

DEPTH_PREFIX = "depth-"  # the features of depth 3 are named `depth-3`


@dataclass(frozen=True)
class Cut:
    """The depth after which a backbone is cut, and which features are stored.

    Attributes:
        depth: depth of the deepest stored features, from which the rest of the model is computed.
        depths: depths of all stored features, ascending: some models also read shallower ones.
        mirrored: whether features of images mirrored left to right are stored too.
    """

    depth: int
    depths: tuple[int, ...]
    mirrored: bool

    @property
    def views(self) -> int:
        """Number of views per image: 2 if mirrored images are stored too, else 1."""
        return 2 if self.mirrored else 1


@dataclass(frozen=True)
class Part:
    """Features of the images of one size.

    Attributes:
        features: stored arrays (N_i, views, ...) by name, in half precision. `depth-d` holds the
            features (C_d, h_d, w_d) of depth d. For a model that reads crops, the names are those
            of `frozen_features`.
        rows: (M,) which of the N_i rows of the arrays belong to this part. The arrays are in files,
            so selecting images changes only `rows`.
        size: height and width of the images in pixels.
    """

    features: Mapping[str, Tensor]
    rows: Tensor
    size: Size


@dataclass(frozen=True)
class Features:
    """Features of N images, in memory-mapped files. The images are ordered by part.

    Attributes:
        parts: one part per image size.
        global_vectors: (N, views, width) vectors of whole images from the frozen backbone. For a
            model that reads crops, the mean of the vectors of all candidate crops.
        cut: the cut of the backbone, with which the features were computed.
    """

    parts: tuple[Part, ...]
    global_vectors: Tensor
    cut: Cut

    def __len__(self) -> int:
        return len(self.global_vectors)

    def __getitem__(self, indices: Tensor) -> "Features":
        """Return the features of the images at ascending `indices` (M,).

        Only the global vectors are copied; all other features stay in their files.
        """
        parts = []
        start = 0  # index of the part's first image
        for part in self.parts:
            end = start + len(part.rows)
            selected = indices[(indices >= start) & (indices < end)] - start
            if len(selected):
                parts.append(replace(part, rows=part.rows[selected]))
            start = end
        return Features(tuple(parts), self.global_vectors[indices], self.cut)


class FeatureBatches(Batches):
    """Yields batches (features by name, labels).

    If features of mirrored images are stored and there is a seed, half of the images are mirrored
    in even epochs and the other half in odd ones.

    Args:
        features: features of N images.
        labels: (N,) class indices.
        batch_size: maximum number of images per batch.
        seed: random seed of the order; None keeps the order of the images and mirrors none.
        get_epoch: returns the index of the current epoch, on which the order depends.
    """

    def __init__(
        self,
        features: Features,
        labels: Tensor,
        batch_size: int,
        seed: int | None = None,
        get_epoch: Callable[[], int] = lambda: 0,
    ):
        alternate = seed is not None and features.cut.mirrored
        # The labels stand in for the images, which are replaced by the rows of features below.
        super().__init__(labels, labels, batch_size, seed, get_epoch, alternate)
        self.features = features
        self.parts = [part.rows for part in features.parts]

    def image_cost(self, part: int) -> int:
        """Return 1, so that only `batch_size` limits a batch: features need little memory."""
        return 1

    def take(self, part: int, indices: Tensor, positions: Tensor) -> dict[str, Tensor]:
        """Return the features (B, ...) of a batch by name, and `size`, the images' size in pixels.

        Features of images are converted to single precision. Those of candidate crops stay in half
        precision, because the model reads only a few of them and converts those.

        Args:
            part: index of the part.
            indices: (B,) indices of the images in the part.
            positions: (B,) indices of the same images in all features.
        """
        views = self.is_mirrored(positions).long() if self.alternate else torch.zeros_like(indices)
        part_features = self.features.parts[part]
        rows = part_features.rows[indices]
        batch = {
            name: _as_feature_maps(values[rows, views])
            for name, values in part_features.features.items()
            if name != VECTORS  # which are needed only before training
        }
        return {**batch, SIZE: torch.tensor(part_features.size)}


def _as_feature_maps(values: Tensor) -> Tensor:
    """Return feature maps (B, C, h, w) of images in single precision, in channels-last format.

    Features of candidate crops, which have more dimensions, are returned unchanged.
    """
    if values.ndim != 4:
        return values
    return values.float().contiguous(memory_format=torch.channels_last)


def predict_features(model: ImageModel, features: Features, batch_size: int = 256) -> Tensor:
    """Return a model's logits (N, classes) for images, from the features of their first view."""
    logits = []
    labels = torch.zeros(len(features), dtype=torch.long)
    with evaluation_mode(model), torch.inference_mode():
        for batch, _ in FeatureBatches(features, labels, batch_size):
            logits.append(logits_of(model, batch, features.cut.depth).cpu())
    return torch.cat(logits)


def logits_of(model: ImageModel, features: Mapping[str, Tensor], depth: int) -> Tensor:
    """Return a model's logits (B, classes) from stored features.

    Args:
        model: a model with a frozen backbone.
        features: a batch of `FeatureBatches`.
        depth: depth after which the backbone is cut.
    """
    if Ability.CROPS in model.abilities:
        _, output = read_frozen(cast(FocusNet, model), features, depth)
        return output.logits
    network = cast(BackboneClassifier, model)
    by_depth = {
        int(name.removeprefix(DEPTH_PREFIX)): values
        for name, values in features.items()
        if name.startswith(DEPTH_PREFIX)
    }
    deeper, global_vectors = network.backbone.finish(by_depth[depth], depth)
    return network.classify({**by_depth, **deeper}, global_vectors)


def features_to_store(
    model: ImageModel, cut: Cut, images: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the features to store for normalised images (B, C, H, W) of one size.

    Returns:
        Features (B, ...) by name, and global vectors (B, width).
    """
    if Ability.CROPS in model.abilities:
        features = frozen_features(cast(FocusNet, model), images, cut.depth)
        return features, features[VECTORS].mean(dim=1)
    backbone = cast(BackboneClassifier, model).backbone
    frozen = backbone.begin(images, cut.depth)  # the features of depths 1 to `cut.depth`
    _, global_vectors = backbone.finish(frozen[-1], cut.depth)
    features = {f"{DEPTH_PREFIX}{depth}": frozen[depth - 1] for depth in cut.depths}
    return features, global_vectors


def make_cut(model: ImageModel, depth: int, mirrored: bool) -> Cut:
    """Return the cut of a model's backbone after a depth, and the features that the model reads."""
    reads_crops = Ability.CROPS in model.abilities
    read_depths = () if reads_crops else cast(BackboneClassifier, model).depths
    stored_depths = {depth, *(lower for lower in read_depths if lower < depth)}
    return Cut(depth, tuple(sorted(stored_depths)), mirrored)
