"""Features of all candidate crops of images, computed by frozen backbones."""

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor

from foveal.detectors import CropDetector, Located
from foveal.detectors.candidates import centres
from foveal.heads import CropHead, HeadOutput
from foveal.heads.crops import CROPS_PER_PASS
from foveal.images import View, WholeView
from foveal.images.geometry import Size
from foveal.models.focus import FocusNet

# Keys of the dictionary that `frozen_features` returns.
THUMBNAIL, CROPS, VECTORS, SIZE = "thumbnail", "crops", "vectors", "size"


def frozen_features(model: FocusNet, images: Tensor, depth: int) -> dict[str, Tensor]:
    """Return the features of normalised images (B, C, H, W) from frozen backbones.

    Args:
        model: a model with `Ability.CROPS`.
        images: images of one size.
        depth: depth down to which the head's backbone is frozen.

    Returns:
        `thumbnail` (B, C_t, h, w), which the detector scores; `crops` (B, N, C_d, p, p) at this
        depth and `vectors` (B, N, F) of all N candidates, scale by scale.
    """
    detector, head = parts_of(model)
    view = WholeView(images, model.black)
    features, vectors = [], []
    for crops in _candidates(view, detector):  # (B, N_l, C, P, P)
        for batch in crops.flatten(0, 1).split(CROPS_PER_PASS):
            batch = batch.contiguous(memory_format=torch.channels_last)
            local = head.backbone.begin(batch, depth)[-1]
            features.append(local)
            vectors.append(head.backbone.finish(local, depth)[1])
    counts = [lattice.total * len(images) for lattice in detector.candidates(view.size)]
    return {
        THUMBNAIL: detector.features(view),
        CROPS: _by_image(torch.cat(features), counts, len(images)),
        VECTORS: _by_image(torch.cat(vectors), counts, len(images)),
    }


def _candidates(view: View, detector: CropDetector) -> Iterator[Tensor]:
    batch = len(view.whole())
    for lattice in detector.candidates(view.size):
        corners = lattice.corners_px.to(view.whole().device).expand(batch, -1, -1)
        yield view.crops(corners, lattice.side_px, lattice.side_px // detector.patch_size)


def _by_image(values: Tensor, counts: list[int], batch: int) -> Tensor:
    """Return the values of all candidates, scale by scale, as (B, N, ...)."""
    scales = values.split(counts)
    return torch.cat([scale.unflatten(0, (batch, -1)) for scale in scales], dim=1)


def read_frozen(
    model: FocusNet, features: Mapping[str, Tensor], depth: int
) -> tuple[Located, HeadOutput]:
    """Return the locations of a model's patches and the output of its head, from frozen features.

    Args:
        model: a model with `Ability.CROPS`.
        features: the result of `frozen_features`, and `size` (2,), height and width in pixels.
        depth: depth of the crops' features.
    """
    detector, head = parts_of(model)
    height, width = features[SIZE].tolist()
    size: Size = (height, width)
    chosen = detector.choose(features[THUMBNAIL].float(), size)
    located = detector.located(chosen, size)
    indices = detector.global_indices(chosen, size)
    rows = torch.arange(len(indices), device=indices.device)[:, None]
    crops = features[CROPS][rows, indices].flatten(0, 1).float()
    crops = crops.contiguous(memory_format=torch.channels_last)
    vectors = head.backbone.finish(crops, depth)[1].unflatten(0, indices.shape)
    return located, head.combine(vectors, located)


def locate_candidates(model: FocusNet, size: Size, batch: int) -> Located:
    """Return the locations and scales of all candidates in B images of a size."""
    detector, _ = parts_of(model)
    lattices = detector.candidates(size)
    xy = torch.cat([centres(lattice, size) for lattice in lattices]).to(model.mean)
    scales = [
        lattice.side_px / detector.patch_size for lattice in lattices for _ in range(lattice.total)
    ]
    return Located(xy.expand(batch, -1, -1), xy.new_tensor(scales).expand(batch, -1))


def parts_of(model: FocusNet) -> tuple[CropDetector, CropHead]:
    """Return the detector and the head of a model with `Ability.CROPS`."""
    return cast(CropDetector, model.detector), cast(CropHead, model.head)
