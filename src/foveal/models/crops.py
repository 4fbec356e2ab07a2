"""The cutting of crops: squares of several scales, reduced to samples that are means of pixels."""

from itertools import groupby

import torch
from torch import Tensor

from foveal.detectors import Detector, Located
from foveal.images import View
from foveal.images.geometry import Size, corners_px, from_px


def cut_crops(
    view: View, located: Located, detector: Detector, side: int
) -> tuple[Tensor, Located]:
    """Return crops around keypoints, and the locations at which they were actually cut.

    A sample of a crop is the mean of a square of pixels. Each crop is cut before it is downsampled,
    so that no pixel outside of it affects a sample. A crop that would extend beyond the image is
    moved inside; one that is larger than the image is padded with black.

    Args:
        view: view of B images.
        located: keypoints (B, K, 2). Their scales are not read, because the detector determines
            them from the size of the images.
        detector: the detector that chose the keypoints.
        side: side P of a crop in samples.

    Returns:
        Crops (B, K, C, P, P), and a copy of `located` with the locations and scales of the crops.
    """
    crops, centres = [], []
    start = 0  # index of the first keypoint of the current scale
    scales = detector.scales_of(view.size)
    for scale, group in groupby(scales):
        count = len(list(group))
        corners = _inside(located.xy[:, start : start + count], side * scale, view.size)
        crops.append(view.crops(corners, side * scale, scale))
        centres.append(from_px(corners + (side * scale - 1) / 2, view.size))
        start += count
    xy = torch.cat(centres, dim=1).to(located.xy.dtype)
    # (B, K); without the zeros, exported graphs would contain a constant for one batch size.
    spacing = xy.new_tensor(scales) + 0 * xy[..., 0]
    return torch.cat(crops, dim=1), located._replace(xy=xy, scale=spacing)


def _inside(keypoints: Tensor, side_px: int, size: Size) -> Tensor:
    """Return the first pixel (x, y) of each square around a keypoint, moved into the image.

    The result are integers (B, K, 2). A square larger than the image is centred on it.
    """
    height, width = size
    corners = corners_px(keypoints, side_px, size)
    max_corner = corners.new_tensor([width - side_px, height - side_px])
    # Negative if the square is larger than the image: half of it then centres the square.
    half = max_corner.div(2, rounding_mode="floor")
    max_corner = torch.where(max_corner < 0, half, max_corner)
    return torch.minimum(torch.maximum(corners, max_corner.clamp(max=0)), max_corner)
