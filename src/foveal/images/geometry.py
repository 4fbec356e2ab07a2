"""Coordinates and patches: the only module that converts between grid units and pixels.

A keypoint is (x, y), x to the right and y down, in grid units: -1 and 1 are the outer edges of
the image and pixel centres lie between them (`align_corners=False`). Names that end in `_px`
are in pixels, with (0, 0) the centre of the top left pixel; the names of `evidence_px`,
`covered_px` and `thumbnail_px` mean numbers of pixels instead. Coordinates are computed in at least
single precision, even if the images are in half precision. Half precision has too few digits to
distinguish the pixels of an image with more than 256 pixels per side.

A patch is a square of samples around a keypoint. Its scale is the distance in pixels from one
sample to the next. A patch of scale 1 is aligned with the pixels if its samples are at pixel
centres; then its samples are pixels, and it can be sliced from the image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.foundation.errors import UserError
from foveal.foundation.precision import at_least_single

Size = tuple[int, int]  # (height, width) in pixels
# Scale of each patch, (B, K): pixels from one sample to the next. If None, all scales are 1.
Scales = Tensor | None


def _extent(size: Size, reference: Tensor) -> Tensor:
    """Return (width, height) as a tensor of the type and on the device of `reference`."""
    height, width = size
    return torch.tensor([width, height], dtype=reference.dtype, device=reference.device)


def to_px(keypoints: Tensor, size: Size) -> Tensor:
    """Convert keypoints (..., 2) from grid units to pixels in an image of `size` (H, W)."""
    keypoints = at_least_single(keypoints)
    return ((keypoints + 1) * _extent(size, keypoints) - 1) / 2


def from_px(keypoints_px: Tensor, size: Size) -> Tensor:
    """Convert keypoints (..., 2) from pixels to grid units in an image of `size` (H, W)."""
    keypoints_px = at_least_single(keypoints_px)
    return (2 * keypoints_px + 1) / _extent(size, keypoints_px) - 1


def from_aligned(keypoints: Tensor, size: Size) -> Tensor:
    """Convert keypoints (..., 2) from torch's grid units with `align_corners=True` to Foveal's.

    In the former, -1 and 1 are the centres of the outermost pixels of an image of `size` (H, W). In
    Foveal's grid units, those of `align_corners=False`, they are the outer edges of the image.
    """
    keypoints = at_least_single(keypoints)
    return keypoints * (1 - 1 / _extent(size, keypoints))


def corners_px(keypoints: Tensor, patch_size: int, size: Size, scales: Scales = None) -> Tensor:
    """Return the top left pixel (x, y) of each patch as integers (..., 2).

    A keypoint is the centre of its patch; the corner is rounded to whole pixels.

    Args:
        keypoints: (..., 2) in grid units.
        patch_size: side P in samples.
        size: height and width of the image in pixels.
        scales: (...) pixels from one sample to the next; 1 if None.
    """
    reach: Tensor | float = (patch_size - 1) / 2
    if scales is not None:
        reach = reach * scales[..., None]
    # A corner halfway between two pixels, which is common for patches of even size, is rounded to
    # the right or lower pixel. Adding 0.501 instead of 0.5 keeps float errors from changing that.
    return (to_px(keypoints, size) - reach + 0.501).floor().long()


def snap(keypoints: Tensor, patch_size: int, size: Size) -> Tensor:
    """Move keypoints (..., 2) so that each patch is aligned with pixels and inside the image.

    Patches of odd size are then centred on a pixel, and those of even size between pixels.

    Raises:
        UserError: the image is smaller than a patch.
    """
    if patch_size > min(size):
        raise UserError(
            f"Expected an image of at least {patch_size}x{patch_size} pixels (one patch), but got "
            f"{size[0]}x{size[1]}. Resize the image or choose a smaller patch_size."
        )
    corners = corners_px(keypoints, patch_size, size)
    last_corner = _extent(size, corners) - patch_size
    corners = torch.minimum(corners.clamp(min=0), last_corner).to(at_least_single(keypoints).dtype)
    return from_px(corners + (patch_size - 1) / 2, size)


def extract_patches(
    images: Tensor, keypoints: Tensor, patch_size: int, scales: Scales = None
) -> Tensor:
    """Return patches of bilinear samples, exactly at the keypoints and at any scale.

    It is differentiable in images and keypoints. `slice_patches` copies pixels at aligned
    keypoints, and `cut_patches` copies the aligned patches nearest to any keypoints.

    Args:
        images: (B, C, H, W).
        keypoints: (B, K, 2) in grid units; pixels outside the image are zero.
        patch_size: side P in samples.
        scales: (B, K) pixels from one sample to the next; 1 if None.

    Returns:
        Patches (B, K, C, P, P). A patch that is aligned with the pixels equals a slice of `images`.
    """
    batch, channels, height, width = images.shape
    count = keypoints.shape[1]
    pixels = at_least_single(images)
    steps = torch.arange(patch_size, dtype=pixels.dtype, device=images.device)
    steps = steps - (patch_size - 1) / 2
    offsets = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)  # (P, P, 2)
    offsets = offsets * 2 / _extent((height, width), offsets)
    if scales is None:
        offsets = offsets.expand(batch, count, patch_size, patch_size, 2)
    else:
        offsets = offsets * scales[:, :, None, None, None]
    grid = keypoints.to(pixels.dtype)[:, :, None, None, :] + offsets  # (B, K, P, P, 2)
    grid = grid.reshape(batch, count * patch_size, patch_size, 2)
    patches = F.grid_sample(pixels, grid, mode="bilinear", align_corners=False)
    patches = patches.reshape(batch, channels, count, patch_size, patch_size)
    return patches.transpose(1, 2).to(images.dtype)


def slice_patches(images: Tensor, keypoints: Tensor, patch_size: int) -> Tensor:
    """Return slices (B, K, C, P, P) of images, around keypoints (B, K, 2) returned by `snap`.

    The pixels are copied from `images` (B, C, H, W), so no pixel outside a patch affects it. No
    gradient reaches the keypoints, unlike in `cut_patches`.
    """
    channels, height, width = images.shape[1:]
    corners = corners_px(keypoints, patch_size, (height, width))  # (B, K, 2)
    steps = torch.arange(patch_size, device=images.device)
    rows = corners[..., 1, None] + steps  # (B, K, P)
    columns = corners[..., 0, None] + steps
    index = rows[..., :, None] * width + columns[..., None, :]  # (B, K, P, P)
    flat = index.flatten(1)[:, None].expand(-1, channels, -1)
    patches = images.flatten(2).gather(2, flat)
    return patches.unflatten(2, index.shape[1:]).transpose(1, 2)


def patch_mask(
    keypoints: Tensor, patch_size: int, size: Size, scales: Scales = None, blocks: bool = False
) -> Tensor:
    """Return whether any patch reads each pixel, as booleans (B, H, W).

    The arguments are those of `coverage`.
    """
    return coverage(keypoints, patch_size, size, scales, blocks) > 0


def coverage(
    keypoints: Tensor, patch_size: int, size: Size, scales: Scales = None, blocks: bool = False
) -> Tensor:
    """Return how many patches read each pixel, as floats (B, H, W).

    Without scales, a patch that is aligned with the pixels reads exactly its P x P pixels, and any
    other patch reads one more row and column. With scales, a patch consists of bilinear samples.
    All pixels that a sample may depend on are counted, with a margin for rounding errors. The
    pixels between samples that are more than one pixel apart are counted too. The result may
    therefore include more pixels than were read, but never fewer.

    Args:
        keypoints: (B, K, 2) in grid units.
        patch_size: side P in samples.
        size: height and width of the image in pixels.
        scales: (B, K) pixels from one sample to the next; 1 if None.
        blocks: whether each sample is the mean of a square with a side of `scales` pixels, instead
            of a bilinear sample.
    """
    height, width = size
    first, last = _span_px(keypoints, patch_size, size, scales, blocks)
    x = torch.arange(width, device=keypoints.device)
    y = torch.arange(height, device=keypoints.device)
    reads_column = (x >= first[..., :1]) & (x <= last[..., :1])  # (B, K, W)
    reads_row = (y >= first[..., 1:]) & (y <= last[..., 1:])  # (B, K, H)
    return reads_row.float().transpose(1, 2) @ reads_column.float()


def evidence_px(
    keypoints: Tensor,
    patch_size: int,
    size: Size,
    scales: Scales = None,
    thumbnail_px: int = 0,
    blocks: bool = False,
) -> Tensor:
    """Return the number of values (B,) that the patches show of each image.

    A value is what a patch shows at one position, in all channels: a pixel that the patch covers
    or, with `blocks`, a sample, which is the mean of s x s pixels at a scale of s. Where patches of
    the same scale overlap, values are counted only once. The result is at most the number of pixels
    of the image. The cost does not grow with the size of the image.

    Args:
        keypoints: (B, K, 2) in grid units.
        patch_size: side P in samples.
        size: height and width of the images in pixels.
        scales: (B, K) pixels from one sample of a patch to the next; 1 if None.
        thumbnail_px: number of pixels of a thumbnail that was read too; each counts as one value.
        blocks: whether each sample is the mean of a square with a side of `scales` pixels, instead
            of a bilinear sample.

    Returns:
        Float64 (B,).
    """
    first, last = _span_px(keypoints.double(), patch_size, size, scales, blocks)
    if scales is None or not blocks:
        value_count = _area(first, last, size)
    else:
        same_scale = (scales[:, :, None] == scales[:, None]).double()  # (B, K, K)
        areas = _area(first, last, size, same_scale)  # (B, K)
        # Each of the n patches of a scale s contributes 1 / n of the values of all n patches
        # together, which are the area of their union in pixels, divided by s^2 pixels per value.
        value_count = (areas / (same_scale.sum(dim=2) * scales.double().square())).sum(dim=1)
    return (value_count + thumbnail_px).clamp(max=size[0] * size[1])


def covered_px(
    keypoints: Tensor, patch_size: int, size: Size, scales: Scales = None, blocks: bool = False
) -> Tensor:
    """Return the number of pixels of each image that the patches cover, as float64 (B,).

    This equals the sum of `patch_mask` over the image, but its cost does not grow with the size of
    the image. The arguments are those of `coverage`.
    """
    return _area(*_span_px(keypoints.double(), patch_size, size, scales, blocks), size)


def _area(first: Tensor, last: Tensor, size: Size, groups: Tensor | None = None) -> Tensor:
    """Return the area in pixels (B,) of the union of rectangles, clipped to the image.

    Args:
        first: first pixel (x, y) of each rectangle (B, K, 2), float64.
        last: last pixel of each rectangle, inclusive.
        size: height and width of the image in pixels.
        groups: (B, K, K), above 0 for pairs of rectangles in the same group. If given, the result
            is (B, K): for each rectangle, the area of the union of its group.
    """
    extent = _extent(size, first)
    edges = torch.cat([first, last + 1], dim=1)  # (B, 2K, 2)
    edges = torch.minimum(edges.clamp(min=0), extent).sort(dim=1).values
    # The edges of all rectangles divide each axis into intervals. A rectangle contains an interval
    # completely or not at all, so the area is a sum over pairs of intervals, one of each axis.
    begins = edges[:, :-1]  # (B, 2K - 1, 2)
    lengths = edges.diff(dim=1)  # (B, 2K - 1, 2)
    contains = (begins[:, None] >= first[:, :, None]) & (begins[:, None] <= last[:, :, None])
    columns, rows = contains.double().unbind(-1)  # (B, K, 2K - 1) each
    if groups is None:
        covered = (rows.transpose(1, 2) @ columns > 0).double()
        return torch.einsum("byx,by,bx->b", covered, lengths[..., 1], lengths[..., 0])
    areas = [
        torch.einsum(
            "byx,by,bx->b",
            ((rows * groups[:, k, :, None]).transpose(1, 2) @ columns > 0).double(),
            lengths[..., 1],
            lengths[..., 0],
        )
        for k in range(first.shape[1])
    ]
    return torch.stack(areas, dim=1)


def _span_px(
    keypoints: Tensor, patch_size: int, size: Size, scales: Scales, blocks: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the first and the last pixel (x, y) that each patch reads, (B, K, 2) each."""
    half = (patch_size - 1) / 2
    reach: Tensor | float = half  # from the centre to the outermost pixels
    if scales is not None:
        reach = (patch_size * scales[..., None] - 1) / 2 if blocks else half * scales[..., None]
    # Rounding errors of coordinates in pixels are far below 1e-3. Slices and means consist of whole
    # pixels, so the span is reduced by 1e-3 in order not to include a pixel by error. Bilinear
    # samples may give a neighbouring pixel a tiny weight; extending their span includes it.
    margin = -1e-3 if scales is None or blocks else 1e-3  # by which the span grows at both ends
    centre = to_px(keypoints, size)
    return (centre - reach - margin).floor(), (centre + reach + margin).ceil()


def cut_patches(images: Tensor, keypoints: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    """Return slices of images as `slice_patches` does, but with a gradient for the keypoints.

    The keypoints are first moved to the nearest positions of aligned patches. The patches are then
    copied pixels, but their gradient is that of bilinear samples at the original keypoints
    (straight-through estimator, Bengio et al. 2013, arXiv:1308.3432).

    Args:
        images: (B, C, H, W).
        keypoints: (B, K, 2) in grid units.
        patch_size: side P in pixels.

    Returns:
        Patches (B, K, C, P, P) and the keypoints (B, K, 2) where they were cut.

    Raises:
        UserError: the image is smaller than a patch.
    """
    snapped = snap(keypoints, patch_size, (images.shape[-2], images.shape[-1]))
    patches = slice_patches(images, snapped, patch_size)
    if keypoints.requires_grad:
        # The added term is exactly zero, so values are bit-equal with and without gradients; it
        # carries a gradient to the keypoints only.
        samples = extract_patches(images.detach(), keypoints, patch_size)
        patches = patches + (samples - samples.detach())
        snapped = snapped + (keypoints - keypoints.detach())
    return patches, snapped


def soft_mask(keypoints: Tensor, patch_size: int, size: Size, softness_px: float) -> Tensor:
    """Return how much the patches cover each pixel, from 0 to 1, with soft edges.

    A patch's coverage of a pixel is the product of two sigmoids, one for each axis, of the pixel's
    distance from the nearest edge of the patch. The coverages of several patches are combined like
    the probabilities of independent events.

    Args:
        keypoints: (B, K, 2) in grid units.
        patch_size: side P in pixels.
        size: height and width of the image in pixels.
        softness_px: width in pixels of the soft edges, the scale of the sigmoids.

    Returns:
        (B, 1, H, W).
    """
    centre = to_px(keypoints, size)
    height, width = size
    covered = []  # along y, then along x: (B, K, H) and (B, K, W)
    for index, length in ((1, height), (0, width)):
        steps = torch.arange(length, dtype=centre.dtype, device=centre.device)
        inside = patch_size / 2 - (centre[..., index, None] - steps).abs()
        covered.append((inside / softness_px).sigmoid())
    rows, columns = covered
    uncovered = (1 - rows[..., :, None] * columns[..., None, :]).prod(dim=1)
    return 1 - uncovered[:, None]
