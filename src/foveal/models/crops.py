"""Cutting of crops at several scales."""

from itertools import groupby

import torch
from torch import Tensor

from foveal.detectors import Detector, Located
from foveal.images import View
from foveal.images.geometry import Size, corners_px, from_px


def cut_crops(
    view: View, located: Located, detector: Detector, side: int
) -> tuple[Tensor, Located]:
    """Return crops whose samples are means of squares, and their locations.

    Each crop is cut before it is downsampled, so no pixel outside affects it. Crops are inside the
    image, or larger than it and padded with black.

    Args:
        view: view of B images.
        located: keypoints (B, K, 2); their scales are those of the detector for this size.
        detector: the detector that chose them.
        side: side P of a crop in samples.

    Returns:
        Crops (B, K, C, P, P), and `Located` with their locations and scales.
    """
    crops, centres, first = [], [], 0
    scales = detector.scales_of(view.size)
    for scale, group in groupby(scales):
        count = len(list(group))
        corners = _inside(located.xy[:, first : first + count], side * scale, view.size)
        crops.append(view.crops(corners, side * scale, scale))
        centres.append(from_px(corners + (side * scale - 1) / 2, view.size))
        first += count
    xy = torch.cat(centres, dim=1).to(located.xy.dtype)
    spacing = xy.new_tensor(scales) + 0 * xy[..., 0]  # not a constant in exported graphs
    return torch.cat(crops, dim=1), located._replace(xy=xy, scale=spacing)


def _inside(keypoints: Tensor, side_px: int, size: Size) -> Tensor:
    """Return the first pixels (B, K, 2) of squares around keypoints, moved into the image."""
    height, width = size
    corners = corners_px(keypoints, side_px, size)
    last = corners.new_tensor([width - side_px, height - side_px])
    last = torch.where(last < 0, last.div(2, rounding_mode="floor"), last)
    return torch.minimum(torch.maximum(corners, last.clamp(max=0)), last)
