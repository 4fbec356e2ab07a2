"""Geometry: patches, coordinates, masks and gradients.

In grid units, -1 and 1 are the outer edges of the image; in pixels, (0, 0) is the centre of the
first pixel. Both are in the order (x, y).
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from foveal.explanation import Explanation
from foveal.images.geometry import (
    corners_px,
    extract_patches,
    from_aligned,
    from_px,
    patch_mask,
    slice_patches,
    snap,
    to_px,
)

few_examples = settings(max_examples=30, deadline=None)


@st.composite
def integer_patches(draw):
    """Return images, a patch size, and top left pixels (B, K, 2) of patches inside the images."""
    height, width = draw(st.integers(5, 19)), draw(st.integers(5, 19))
    patch_size = draw(st.integers(1, 5))
    batch, count = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    x = st.integers(0, width - patch_size)
    y = st.integers(0, height - patch_size)
    top_left = [[[draw(x), draw(y)] for _ in range(count)] for _ in range(batch)]
    images = torch.rand(batch, draw(st.sampled_from([1, 3])), height, width)
    return images, patch_size, torch.tensor(top_left)


def slice_by_index(images, patch_size, top_left):
    """Return patches (B, K, C, P, P), each cut out by plain indexing."""
    return torch.stack(
        [
            torch.stack(
                [image[:, y : y + patch_size, x : x + patch_size] for x, y in positions.tolist()]
            )
            for image, positions in zip(images, top_left, strict=True)
        ]
    )


@st.composite
def any_keypoints(draw):
    """Return keypoints (B, K, 2) inside, on and past the border, a patch size and an image size."""
    size = draw(st.integers(5, 23)), draw(st.integers(5, 23))
    count = draw(st.integers(1, 3))
    coordinate = st.one_of(st.floats(-1.5, 1.5, width=32), st.sampled_from([-1.0, 0.0, 1.0]))
    keypoints = [[draw(coordinate), draw(coordinate)] for _ in range(count)]
    return torch.tensor([keypoints]), draw(st.integers(1, 5)), size


@few_examples
@given(integer_patches())
def test_patches_equal_slices_at_integer_pixel_positions(case):
    images, patch_size, top_left = case
    keypoints = from_px(top_left + (patch_size - 1) / 2, images.shape[-2:])
    expected = slice_by_index(images, patch_size, top_left)
    assert torch.equal(slice_patches(images, keypoints, patch_size), expected)
    torch.testing.assert_close(
        extract_patches(images, keypoints, patch_size), expected, atol=1e-5, rtol=0
    )


@few_examples
@given(integer_patches(), st.integers(1, 3))
def test_patches_of_integer_scale_equal_strided_slices(case, scale):
    images, patch_size, top_left = case
    expected = slice_by_index(images, patch_size, top_left)[..., ::scale, ::scale]
    samples = expected.shape[-1]
    centre = top_left + (samples - 1) * scale / 2
    scales = torch.full(top_left.shape[:2], float(scale))
    patches = extract_patches(images, from_px(centre, images.shape[-2:]), samples, scales)
    torch.testing.assert_close(patches, expected, atol=1e-5, rtol=0)


@few_examples
@given(any_keypoints())
def test_pixels_and_grid_units_are_inverse(case):
    keypoints, _, size = case
    torch.testing.assert_close(from_px(to_px(keypoints, size), size), keypoints)


def test_grid_units_mark_edges_and_pixels_mark_centres_in_xy_order():
    size = (2, 4)  # height, width
    edges = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])
    expected = torch.tensor([[-0.5, -0.5], [3.5, 1.5], [1.5, 0.5]])
    torch.testing.assert_close(to_px(edges, size), expected)
    aligned = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    expected = torch.tensor([[0.0, 0.0], [3.0, 1.0]])
    torch.testing.assert_close(to_px(from_aligned(aligned, size), size), expected)


@few_examples
@given(any_keypoints())
def test_snap_puts_every_patch_on_integer_pixels_inside_the_image(case):
    keypoints, patch_size, size = case
    snapped = snap(keypoints, patch_size, size)
    top_left = to_px(snapped, size) - (patch_size - 1) / 2
    torch.testing.assert_close(top_left, top_left.round(), atol=1e-4, rtol=0)
    top_left = corners_px(snapped, patch_size, size)
    assert (top_left >= 0).all()
    assert (top_left + patch_size <= torch.tensor([size[1], size[0]])).all()
    assert torch.equal(snap(snapped, patch_size, size), snapped)


@few_examples
@given(any_keypoints())
def test_snap_moves_an_inner_patch_by_at_most_half_a_pixel(case):
    keypoints, patch_size, size = case
    extent = torch.tensor([size[1], size[0]])
    top_left = to_px(keypoints, size) - (patch_size - 1) / 2
    nearest = torch.minimum(top_left.clamp(min=0), (extent - patch_size).float())
    offset = to_px(snap(keypoints, patch_size, size), size) - (patch_size - 1) / 2 - nearest
    assert offset.abs().max() <= 0.501 + 1e-4  # `corners_px` rounds with a margin of 0.001


def test_snap_error_names_both_sizes_for_an_image_smaller_than_a_patch():
    with pytest.raises(ValueError, match=r"at least 5x5 .* got 4x9"):
        snap(torch.zeros(1, 1, 2), 5, (4, 9))


@pytest.mark.parametrize("scaled", [False, True])
def test_patch_gradients_agree_with_finite_differences(scaled):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 1, 7, 9, generator=generator, dtype=torch.float64)
    # Away from pixel boundaries, where bilinear sampling has a kink.
    positions_px = torch.tensor([[[3.3, 2.6]], [[4.7, 3.4]]], dtype=torch.float64)
    keypoints = from_px(positions_px, (7, 9)).requires_grad_()
    scales = torch.tensor([[1.1], [0.8]], dtype=torch.float64, requires_grad=True)
    inputs = (images.requires_grad_(), keypoints, *([scales] if scaled else []))
    assert torch.autograd.gradcheck(
        lambda images, keypoints, scales=None: extract_patches(images, keypoints, 3, scales),
        inputs,
        eps=1e-6,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    "keypoint", [(-1.0, -1.0), (1.0, 1.0), (-1.4, 0.2), (0.3, 1.7), (9.0, -9.0)]
)
def test_keypoints_on_and_past_the_border_have_patches(keypoint):
    images = torch.rand(1, 3, 11, 8)
    keypoints = torch.tensor([[keypoint]])
    patches = extract_patches(images, keypoints, 5)
    assert torch.isfinite(patches).all()
    if max(map(abs, keypoint)) > 2:  # the whole patch lies outside the image
        assert not patches.any()
    snapped = snap(keypoints, 5, (11, 8))
    left, top = corners_px(snapped, 5, (11, 8))[0, 0].tolist()
    expected = images[:, None, :, top : top + 5, left : left + 5]
    assert torch.equal(slice_patches(images, snapped, 5), expected)


def max_weights(keypoints, patch_size, size, scale=1.0):
    """Return the maximum weight of each pixel in any sample of the patches (1, H, W).

    The patches are read from one-hot images, one image per pixel: the samples of a patch are then
    the weights of that pixel.
    """
    pixels = torch.eye(size[0] * size[1]).reshape(-1, 1, *size)
    repeated_keypoints = keypoints.expand(len(pixels), -1, -1)
    samples = extract_patches(
        pixels, repeated_keypoints, patch_size, torch.full(repeated_keypoints.shape[:2], scale)
    )
    return samples.flatten(1).amax(dim=1).reshape(1, *size)


@few_examples
@given(any_keypoints())
def test_mask_contains_exactly_the_pixels_with_a_weight(case):
    keypoints, patch_size, size = case
    mask = patch_mask(keypoints, patch_size, size)
    weight = max_weights(keypoints, patch_size, size)
    # Whether a pixel with a tiny weight is in the mask depends on rounding, so it is not tested.
    assert not ((weight > 2e-3) & ~mask).any()
    assert not ((weight < 5e-7) & mask).any()


@few_examples
@given(any_keypoints(), st.floats(0.5, 4.0))
def test_mask_of_scaled_patches_contains_every_pixel_that_is_read(case, scale):
    keypoints, patch_size, size = case
    mask = patch_mask(keypoints, patch_size, size, torch.full(keypoints.shape[:2], scale))
    is_read = max_weights(keypoints, patch_size, size, scale) != 0
    assert not (is_read & ~mask).any()


def test_mask_of_two_patches_is_the_union_of_their_pixels():
    keypoints = snap(torch.tensor([[[0.0, 0.0], [0.2, 0.1]]]), 5, (9, 13))
    expected = torch.zeros(1, 9, 13, dtype=torch.bool)
    for left, top in corners_px(keypoints, 5, (9, 13))[0].tolist():
        expected[:, top : top + 5, left : left + 5] = True
    assert torch.equal(patch_mask(keypoints, 5, (9, 13)), expected)
    assert int(expected.sum()) > 25


@few_examples
@given(any_keypoints())
def test_keypoint_is_the_same_pixel_in_patches_dicts_and_evidence(case):
    keypoints, patch_size, size = case
    keypoints = snap(keypoints, patch_size, size)
    # Two channels, whose values are the column and the row of the pixel.
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    images = torch.stack([x, y]).float()[None]
    patches = slice_patches(images, keypoints, patch_size)
    explanation = Explanation(images, torch.zeros(1, 2), keypoints=keypoints, patches=patches)
    centres_px = to_px(keypoints, size)
    for index, keypoint in enumerate(explanation.to_dicts()[0]["keypoints"]):
        patch_pixels = patches[0, index]  # (2, P, P): column and row of each pixel in the patch
        assert [keypoint["left_px"], keypoint["top_px"]] == patch_pixels[:, 0, 0].tolist()
        centre = patch_pixels.mean(dim=(-2, -1))
        torch.testing.assert_close(centres_px[0, index], centre, atol=1e-4, rtol=0)
        assert [keypoint["x_px"], keypoint["y_px"]] == pytest.approx(centre.tolist(), abs=2e-3)
        inside = explanation.evidence[0, keypoint["top_px"], keypoint["left_px"]]
        assert bool(inside)


def test_reported_corner_of_a_scaled_patch_is_the_pixel_of_its_first_sample():
    images = torch.rand(1, 1, 20, 30)
    keypoints = from_px(torch.tensor([[[12.0, 9.0]]]), (20, 30))
    scales = torch.tensor([[2.0]])
    patches = extract_patches(images, keypoints, 5, scales)
    explanation = Explanation(
        images, torch.zeros(1, 2), keypoints=keypoints, patches=patches, scales=scales
    )
    keypoint = explanation.to_dicts()[0]["keypoints"][0]
    assert (keypoint["left_px"], keypoint["top_px"], keypoint["scale"]) == (8, 5, 2.0)
    torch.testing.assert_close(patches[0, 0, 0, 0, 0], images[0, 0, 5, 8])


def test_aligned_grid_units_match_torch_with_align_corners():
    images = torch.rand(2, 3, 9, 14)
    aligned = torch.rand(2, 1, 2) * 2 - 1
    expected = F.grid_sample(images, aligned[:, :, None], align_corners=True)[..., 0, 0]
    patches = extract_patches(images, from_aligned(aligned, (9, 14)), 1)
    torch.testing.assert_close(patches[:, 0, :, 0, 0], expected)
