"""Features of all candidate crops of images, computed by frozen backbones.

A candidate is a crop that the detector may choose. While the stages of the backbones up to a depth
(counted from 1) are frozen, training stores the features of all candidates once, and then reads
those of the chosen ones instead of images.
"""

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

# Keys of stored features: `frozen_features` returns the first three, `read_frozen` needs all.
THUMBNAIL, CROPS, VECTORS, SIZE = "thumbnail", "crops", "vectors", "size"


def frozen_features(model: FocusNet, images: Tensor, depth: int) -> dict[str, Tensor]:
    """Return the features of images of one size from frozen backbones.

    Args:
        model: a model with `Ability.CROPS`.
        images: normalised images (B, C, H, W).
        depth: depth down to which the head's backbone is frozen.

    Returns:
        A dictionary with `thumbnail` (B, C_t, h, w), the features that the detector scores, and for
        all N candidates, scale by scale: `crops` (B, N, C_d, p, p), their local features at this
        depth, and `vectors` (B, N, F), their global vectors.
    """
    detector, head = crop_parts(model)
    view = WholeView(images, model.black)
    features, vectors = [], []
    for crops in _candidate_crops(view, detector):  # (B, N_s, C, P, P) for each scale s
        for batch in crops.flatten(0, 1).split(CROPS_PER_PASS):
            batch = batch.contiguous(memory_format=torch.channels_last)
            local = head.backbone.begin(batch, depth)[-1]
            features.append(local)
            _, vector = head.backbone.finish(local, depth)
            vectors.append(vector)
    counts = [lattice.total * len(images) for lattice in detector.candidates(view.size)]
    return {
        THUMBNAIL: detector.features(view),
        CROPS: _by_image(torch.cat(features), counts, len(images)),
        VECTORS: _by_image(torch.cat(vectors), counts, len(images)),
    }


def _candidate_crops(view: View, detector: CropDetector) -> Iterator[Tensor]:
    """Yield the crops (B, N_l, C, P, P) of all candidates of each scale."""
    images = view.whole()
    for lattice in detector.candidates(view.size):
        corners_px = lattice.corners_px.to(images.device).expand(len(images), -1, -1)
        scale = lattice.side_px // detector.patch_size
        yield view.crops(corners_px, lattice.side_px, scale)


def _by_image(values: Tensor, counts: list[int], batch_size: int) -> Tensor:
    """Return the values of all candidates of each image, scale by scale, as (B, N, ...).

    Args:
        values: (sum of `counts`, ...); the candidates of a scale are consecutive, image by image.
        counts: number of candidates of each scale in all images together.
        batch_size: number B of images.
    """
    by_scale = values.split(counts)
    return torch.cat([rows.unflatten(0, (batch_size, -1)) for rows in by_scale], dim=1)


def read_frozen(
    model: FocusNet, features: Mapping[str, Tensor], depth: int
) -> tuple[Located, HeadOutput]:
    """Return the locations of a model's patches and the output of its head, from frozen features.

    Args:
        model: a model with `Ability.CROPS`.
        features: the result of `frozen_features`, and under the key `size` the height and width of
            the images in pixels (2,).
        depth: depth of the crops' local features, as it was passed to `frozen_features`.
    """
    detector, head = crop_parts(model)
    height, width = features[SIZE].tolist()
    size: Size = (height, width)
    chosen = detector.choose(features[THUMBNAIL].float(), size)
    located = detector.located(chosen, size)
    indices = detector.global_indices(chosen, size)
    rows = torch.arange(len(indices), device=indices.device)[:, None]
    crops = features[CROPS][rows, indices].flatten(0, 1).float()
    crops = crops.contiguous(memory_format=torch.channels_last)
    _, vectors = head.backbone.finish(crops, depth)
    return located, head.combine(vectors.unflatten(0, indices.shape), located)


def locate_candidates(model: FocusNet, size: Size, batch: int) -> Located:
    """Return the locations and scales of all candidates, scale by scale, in images of a size.

    Args:
        model: a model with `Ability.CROPS`.
        size: height and width of the images in pixels.
        batch: number B of images.
    """
    detector, _ = crop_parts(model)
    lattices = detector.candidates(size)
    xy = torch.cat([centres(lattice, size) for lattice in lattices]).to(model.mean)
    scales = [
        lattice.side_px / detector.patch_size for lattice in lattices for _ in range(lattice.total)
    ]
    return Located(xy.expand(batch, -1, -1), xy.new_tensor(scales).expand(batch, -1))


def crop_parts(model: FocusNet) -> tuple[CropDetector, CropHead]:
    """Return the detector and the head of a model with `Ability.CROPS`."""
    return cast(CropDetector, model.detector), cast(CropHead, model.head)
