"""Features of all candidate crops of images, under frozen backbones."""

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor

from foveal.detectors import CropDetector, Located
from foveal.detectors.candidates import middles
from foveal.heads import CropHead, HeadOutput
from foveal.heads.crops import AT_ONCE
from foveal.images import View, WholeView
from foveal.images.geometry import Size
from foveal.models.focus import FocusNet

# Keys of the features of images under frozen backbones.
THUMBNAIL, CROPS, VECTORS, SIZE = "thumbnail", "crops", "vectors", "size"


def frozen_features(model: FocusNet, images: Tensor, depth: int) -> dict[str, Tensor]:
    """Return features of normalised images (B, C, H, W) under frozen backbones.

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
        for some in crops.flatten(0, 1).split(AT_ONCE):
            some = some.contiguous(memory_format=torch.channels_last)
            kept = head.backbone.begin(some, depth)[-1]
            features.append(kept)
            vectors.append(head.backbone.finish(kept, depth)[1])
    counts = [one.total * len(images) for one in detector.candidates(view.size)]
    return {
        THUMBNAIL: detector.features(view),
        CROPS: _by_image(torch.cat(features), counts, len(images)),
        VECTORS: _by_image(torch.cat(vectors), counts, len(images)),
    }


def _candidates(view: View, detector: CropDetector) -> Iterator[Tensor]:
    batch = len(view.whole())
    for one in detector.candidates(view.size):
        corners = one.corners_px.to(view.whole().device).expand(batch, -1, -1)
        yield view.crops(corners, one.side_px, one.side_px // detector.patch_size)


def _by_image(values: Tensor, counts: list[int], batch: int) -> Tensor:
    """Return values of the candidates of each scale in turn as (B, N, ...)."""
    return torch.cat([one.unflatten(0, (batch, -1)) for one in values.split(counts)], dim=1)


def read_frozen(
    model: FocusNet, kept: Mapping[str, Tensor], depth: int
) -> tuple[Located, HeadOutput]:
    """Return the locations and the output of a model's head, from frozen features.

    Args:
        model: a model with `Ability.CROPS`.
        kept: the result of `frozen_features`, and `size` (2,), height and width in pixels.
        depth: depth of the crops' features.
    """
    detector, head = parts_of(model)
    height, width = kept[SIZE].tolist()
    size: Size = (height, width)
    chosen = detector.choose(kept[THUMBNAIL].float(), size)
    located = detector.located(chosen, size)
    indices = detector.global_indices(chosen, size)
    rows = torch.arange(len(indices), device=indices.device)[:, None]
    crops = kept[CROPS][rows, indices].flatten(0, 1).float()
    crops = crops.contiguous(memory_format=torch.channels_last)
    vectors = head.backbone.finish(crops, depth)[1].unflatten(0, indices.shape)
    return located, head.combine(vectors, located)


def all_located(model: FocusNet, size: Size, batch: int) -> Located:
    """Return the locations and scales of all candidates in B images of a size."""
    detector, _ = parts_of(model)
    lattices = detector.candidates(size)
    locations = [middles(one, size) for one in lattices]
    scales = [one.side_px / detector.patch_size for one in lattices for _ in range(one.total)]
    xy = torch.cat(locations).to(model.mean)
    return Located(xy.expand(batch, -1, -1), xy.new_tensor(scales).expand(batch, -1))


def parts_of(model: FocusNet) -> tuple[CropDetector, CropHead]:
    """Return the detector and the head of a model with `Ability.CROPS`."""
    return cast(CropDetector, model.detector), cast(CropHead, model.head)
