"""Coordinates and patches: the only module that converts between grid units and pixels.

A keypoint is (x, y), x to the right and y down, in grid units: -1 and 1 are the outer edges of
the image and pixel centres lie between them (`align_corners=False`). Names that end in `_px`
are in pixels, with (0, 0) the centre of the top left pixel. Coordinates are computed in at least
single precision for images of any type: half precision cannot resolve more than 256 pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.foundation.errors import UserError
from foveal.foundation.precision import at_least_single

Size = tuple[int, int]  # (height, width) in pixels
Scales = Tensor | None  # (B, K) pixels from one sample of a patch to the next; None for 1


def _extent(size: Size, like: Tensor) -> Tensor:
    height, width = size
    return torch.tensor([width, height], dtype=like.dtype, device=like.device)


def to_px(keypoints: Tensor, size: Size) -> Tensor:
    """Convert keypoints (..., 2) from grid units to pixels in an image of `size` (H, W)."""
    keypoints = at_least_single(keypoints)
    return ((keypoints + 1) * _extent(size, keypoints) - 1) / 2


def from_px(keypoints_px: Tensor, size: Size) -> Tensor:
    """Convert keypoints (..., 2) from pixels to grid units in an image of `size` (H, W)."""
    keypoints_px = at_least_single(keypoints_px)
    return (2 * keypoints_px + 1) / _extent(size, keypoints_px) - 1


def from_aligned(keypoints: Tensor, size: Size) -> Tensor:
    """Convert keypoints (..., 2) whose -1 and 1 are the centres of the outermost pixels.

    That is torch's `align_corners=True`; Foveal's grid units are those of `align_corners=False`.
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
        scales: (...) pixels from one sample to the next; 1 if not given.
    """
    reach: Tensor | float = (patch_size - 1) / 2
    if scales is not None:
        reach = reach * scales[..., None]
    # Half a pixel is rounded right and down, with a margin for float errors: the patch of a corner
    # must not depend on the last bit of a float if its size is even.
    return (to_px(keypoints, size) - reach + 0.501).floor().long()


def snap(keypoints: Tensor, patch_size: int, size: Size) -> Tensor:
    """Move keypoints (..., 2) until each patch consists of whole pixels inside the image.

    Patches of odd size are centred on a pixel, those of even size between two pixels.

    Raises:
        UserError: the image is smaller than a patch.
    """
    if patch_size > min(size):
        raise UserError(
            f"Expected an image of at least {patch_size}x{patch_size} pixels (one patch), but got "
            f"{size[0]}x{size[1]}. Resize the image or choose a smaller patch_size."
        )
    first = corners_px(keypoints, patch_size, size)
    last = _extent(size, first) - patch_size
    first = torch.minimum(first.clamp(min=0), last).to(at_least_single(keypoints).dtype)
    return from_px(first + (patch_size - 1) / 2, size)


def extract_patches(
    images: Tensor, keypoints: Tensor, patch_size: int, scales: Scales = None
) -> Tensor:
    """Cut square patches around keypoints, bilinearly and differentiably in both.

    Args:
        images: (B, C, H, W).
        keypoints: (B, K, 2) in grid units; pixels outside the image are zero.
        patch_size: side P in samples; 5 means 5 pixels at a spacing of 1.
        scales: (B, K) spacing of the sampled points in pixels; 1 if not given.

    Returns:
        Patches (B, K, C, P, P). At whole pixels they equal plain slices of `images`.
    """
    batch, channels, height, width = images.shape
    count = keypoints.shape[1]
    sampled = at_least_single(images)
    steps = torch.arange(patch_size, dtype=sampled.dtype, device=images.device)
    steps = steps - (patch_size - 1) / 2
    offsets = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)  # (P, P, 2)
    offsets = offsets * 2 / _extent((height, width), offsets)
    if scales is None:
        points = offsets.expand(batch, count, patch_size, patch_size, 2)
    else:
        points = offsets * scales[:, :, None, None, None]
    grid = keypoints.to(sampled.dtype)[:, :, None, None, :] + points  # (B, K, P, P, 2)
    grid = grid.reshape(batch, count * patch_size, patch_size, 2)
    patches = F.grid_sample(sampled, grid, mode="bilinear", align_corners=False)
    patches = patches.reshape(batch, channels, count, patch_size, patch_size)
    return patches.transpose(1, 2).to(images.dtype)


def slice_patches(images: Tensor, keypoints: Tensor, patch_size: int) -> Tensor:
    """Cut whole-pixel patches (B, K, C, P, P) around snapped keypoints (B, K, 2).

    They are plain slices of `images` (B, C, H, W): no pixel outside a patch affects it. No
    gradient reaches the keypoints.
    """
    channels, height, width = images.shape[1:]
    first = corners_px(keypoints, patch_size, (height, width))  # (B, K, 2)
    steps = torch.arange(patch_size, device=images.device)
    rows = first[..., 1, None] + steps  # (B, K, P)
    columns = first[..., 0, None] + steps
    index = rows[..., :, None] * width + columns[..., None, :]  # (B, K, P, P)
    flat = index.flatten(1)[:, None].expand(-1, channels, -1)
    patches = images.flatten(2).gather(2, flat)
    return patches.unflatten(2, index.shape[1:]).transpose(1, 2)


def patch_mask(
    keypoints: Tensor, patch_size: int, size: Size, scales: Scales = None, blocks: bool = False
) -> Tensor:
    """Return which pixels the patches read, as booleans (B, H, W); arguments as in `coverage`."""
    return coverage(keypoints, patch_size, size, scales, blocks) > 0


def coverage(
    keypoints: Tensor, patch_size: int, size: Size, scales: Scales = None, blocks: bool = False
) -> Tensor:
    """Return how many patches read each pixel, as floats (B, H, W).

    Without scales, keypoints at whole pixels give exactly the P x P pixels of each patch, and
    keypoints between pixels one more row and column. With scales the patches are bilinear samples:
    each pixel that a sample may depend on counts, rounding included, and so do pixels between
    samples more than one pixel apart. The result may include more pixels than were read, but never
    fewer.

    Args:
        keypoints: (B, K, 2) in grid units.
        patch_size: side P in samples.
        size: height and width of the image in pixels.
        scales: (B, K) pixels from one sample to the next, or None for plain slices.
        blocks: samples are means of squares with a side of `scales` pixels, not bilinear.
    """
    height, width = size
    first, last = _span_px(keypoints, patch_size, size, scales, blocks)
    x = torch.arange(width, device=keypoints.device)
    y = torch.arange(height, device=keypoints.device)
    across = (x >= first[..., :1]) & (x <= last[..., :1])  # (B, K, W)
    down = (y >= first[..., 1:]) & (y <= last[..., 1:])  # (B, K, H)
    return down.float().transpose(1, 2) @ across.float()


def evidence_px(
    keypoints: Tensor,
    patch_size: int,
    size: Size,
    scales: Scales = None,
    thumbnail_px: int = 0,
    blocks: bool = False,
) -> Tensor:
    """Return the number of values of each image (B,) that were read, float64, at most its pixels.

    These are the pixels of `covered_px`, except that a patch whose samples are means of s x s
    pixels counts a value for each mean. Where patches of the same scale overlap, values count
    only once. The cost does not grow with the image.

    Args:
        keypoints: (B, K, 2) in grid units.
        patch_size: side P in samples.
        size: height and width of the images in pixels.
        scales: (B, K) pixels from one sample of a patch to the next, or None for 1.
        thumbnail_px: number of pixels of a thumbnail that was read too; each counts as one value.
        blocks: samples are means of squares with a side of `scales` pixels, not bilinear.
    """
    first, last = _span_px(keypoints.double(), patch_size, size, scales, blocks)
    if scales is None or not blocks:
        values = _area(first, last, size)
    else:
        same_scale = (scales[:, :, None] == scales[:, None]).double()  # (B, K, K)
        areas = _area(first, last, size, same_scale)  # (B, K)
        values = (areas / (same_scale.sum(dim=2) * scales.double().square())).sum(dim=1)
    return (values + thumbnail_px).clamp(max=size[0] * size[1])


def covered_px(
    keypoints: Tensor, patch_size: int, size: Size, scales: Scales = None, blocks: bool = False
) -> Tensor:
    """Return how many pixels of each image (B,) the patches cover, in float64.

    The sum of `patch_mask`, at a cost that does not grow with the image; arguments as in
    `coverage`.
    """
    return _area(*_span_px(keypoints.double(), patch_size, size, scales, blocks), size)


def _area(first: Tensor, last: Tensor, size: Size, groups: Tensor | None = None) -> Tensor:
    """Return the area in pixels (B,) of the union of rectangles, clipped to the image.

    Args:
        first: first pixel (x, y) of each rectangle (B, K, 2), float64.
        last: last pixel of each rectangle, inclusive.
        size: height and width of the image in pixels.
        groups: (B, K, K), above 0 for pairs of rectangles in one group; if given, the area of
            each rectangle's group is returned (B, K).
    """
    extent = _extent(size, first)
    edges = torch.cat([first, last + 1], dim=1)  # (B, 2K, 2)
    edges = torch.minimum(edges.clamp(min=0), extent).sort(dim=1).values
    begins, lengths = edges[:, :-1], edges.diff(dim=1)  # (B, 2K - 1, 2)
    contains = (begins[:, None] >= first[:, :, None]) & (begins[:, None] <= last[:, :, None])
    across, down = contains.double().unbind(-1)  # (B, K, 2K - 1) each
    if groups is None:
        covered = (down.transpose(1, 2) @ across > 0).double()
        return torch.einsum("byx,by,bx->b", covered, lengths[..., 1], lengths[..., 0])
    areas = [
        torch.einsum(
            "byx,by,bx->b",
            ((down * groups[:, k, :, None]).transpose(1, 2) @ across > 0).double(),
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
    reach: Tensor | float = half
    if scales is not None:
        reach = (patch_size * scales[..., None] - 1) / 2 if blocks else half * scales[..., None]
    # Converting grid units to pixels has errors far below 1e-3. They are ignored if patches are
    # slices, and counted if they are samples, where any weight above zero counts.
    slack = -1e-3 if scales is None or blocks else 1e-3
    centre = to_px(keypoints, size)
    return (centre - reach - slack).floor(), (centre + reach + slack).ceil()


def cut_patches(images: Tensor, keypoints: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    """Cut the whole-pixel patches nearest to keypoints, differentiably in the keypoints.

    The patches are plain slices; their gradient is that of bilinear samples at the keypoints
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
    """Return how much each pixel is covered by any patch, from 0 to 1, with soft edges.

    A patch covers a pixel by the product of two sigmoids of its distance from the patch's edges,
    across and down; several patches combine like independent probabilities.

    Args:
        keypoints: (B, K, 2) in grid units.
        patch_size: side P in pixels.
        size: height and width of the image in pixels.
        softness_px: width of the edges in pixels.

    Returns:
        (B, 1, H, W).
    """
    centre = to_px(keypoints, size)
    height, width = size
    covered = []
    for index, length in ((1, height), (0, width)):
        steps = torch.arange(length, dtype=centre.dtype, device=centre.device)
        inside = patch_size / 2 - (centre[..., index, None] - steps).abs()
        covered.append((inside / softness_px).sigmoid())  # (B, K, length)
    uncovered = (1 - covered[0][..., :, None] * covered[1][..., None, :]).prod(dim=1)
    return 1 - uncovered[:, None]
