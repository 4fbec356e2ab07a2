"""Geometry: patches are slices, pixels are pixels, gradients are gradients."""

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

few = settings(max_examples=30, deadline=None)


@st.composite
def whole_places(draw):
    """Return images of any shape, a patch size, and top left pixels of patches inside."""
    height, width = draw(st.integers(5, 19)), draw(st.integers(5, 19))
    patch = draw(st.integers(1, 5))
    batch, count = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    x = st.integers(0, width - patch)
    y = st.integers(0, height - patch)
    first = [[[draw(x), draw(y)] for _ in range(count)] for _ in range(batch)]
    images = torch.rand(batch, draw(st.sampled_from([1, 3])), height, width)
    return images, patch, torch.tensor(first)


def sliced(images, patch, first):
    """Cut patches by plain indexing, one by one."""
    return torch.stack(
        [
            torch.stack([image[:, y : y + patch, x : x + patch] for x, y in places.tolist()])
            for image, places in zip(images, first, strict=True)
        ]
    )


@st.composite
def any_places(draw):
    """Return keypoints (B, K, 2) inside, on and past the border, a patch size and a size."""
    size = draw(st.integers(5, 23)), draw(st.integers(5, 23))
    count = draw(st.integers(1, 3))
    place = st.one_of(st.floats(-1.5, 1.5, width=32), st.sampled_from([-1.0, 0.0, 1.0]))
    places = [[draw(place), draw(place)] for _ in range(count)]
    return torch.tensor([places]), draw(st.integers(1, 5)), size


@few
@given(whole_places())
def test_patches_equal_plain_slices_at_whole_pixel_places(case):
    images, patch, first = case
    keypoints = from_px(first + (patch - 1) / 2, images.shape[-2:])
    expected = sliced(images, patch, first)
    assert torch.equal(slice_patches(images, keypoints, patch), expected)
    torch.testing.assert_close(
        extract_patches(images, keypoints, patch), expected, atol=1e-5, rtol=0
    )


@few
@given(whole_places(), st.integers(1, 3))
def test_patches_of_whole_scale_equal_strided_slices(case, scale):
    images, patch, first = case
    expected = sliced(images, patch, first)[..., ::scale, ::scale]
    samples = expected.shape[-1]
    centre = first + (samples - 1) * scale / 2
    scales = torch.full(first.shape[:2], float(scale))
    patches = extract_patches(images, from_px(centre, images.shape[-2:]), samples, scales)
    torch.testing.assert_close(patches, expected, atol=1e-5, rtol=0)


@few
@given(any_places())
def test_pixels_and_grid_units_are_inverse(case):
    keypoints, _, size = case
    torch.testing.assert_close(from_px(to_px(keypoints, size), size), keypoints)


def test_grid_units_are_edges_and_pixels_are_centres_x_before_y():
    size = (2, 4)  # height, width
    edges = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])
    expected = torch.tensor([[-0.5, -0.5], [3.5, 1.5], [1.5, 0.5]])
    torch.testing.assert_close(to_px(edges, size), expected)
    aligned = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    expected = torch.tensor([[0.0, 0.0], [3.0, 1.0]])
    torch.testing.assert_close(to_px(from_aligned(aligned, size), size), expected)


@few
@given(any_places())
def test_snap_puts_every_patch_on_whole_pixels_inside_the_image(case):
    keypoints, patch, size = case
    whole = snap(keypoints, patch, size)
    first = to_px(whole, size) - (patch - 1) / 2
    torch.testing.assert_close(first, first.round(), atol=1e-4, rtol=0)
    first = corners_px(whole, patch, size)
    assert (first >= 0).all()
    assert (first + patch <= torch.tensor([size[1], size[0]])).all()
    assert torch.equal(snap(whole, patch, size), whole)


@few
@given(any_places())
def test_snap_moves_a_patch_inside_by_half_a_pixel_at_most(case):
    keypoints, patch, size = case
    extent = torch.tensor([size[1], size[0]])
    wanted = to_px(keypoints, size) - (patch - 1) / 2
    nearest = torch.minimum(wanted.clamp(min=0), (extent - patch).float())
    moved = to_px(snap(keypoints, patch, size), size) - (patch - 1) / 2 - nearest
    assert moved.abs().max() <= 0.5 + 1e-4


def test_snap_names_both_sizes_where_the_image_is_smaller_than_a_patch():
    with pytest.raises(ValueError, match=r"at least 5x5 .* got 4x9"):
        snap(torch.zeros(1, 1, 2), 5, (4, 9))


@pytest.mark.parametrize("scaled", [False, True])
def test_patch_gradients_agree_with_finite_differences(scaled):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 1, 7, 9, generator=generator, dtype=torch.float64)
    # Away from pixel boundaries, where bilinear sampling has a kink.
    places_px = torch.tensor([[[3.3, 2.6]], [[4.7, 3.4]]], dtype=torch.float64)
    keypoints = from_px(places_px, (7, 9)).requires_grad_()
    scales = torch.tensor([[1.1], [0.8]], dtype=torch.float64, requires_grad=True)
    inputs = (images.requires_grad_(), keypoints, *([scales] if scaled else []))
    assert torch.autograd.gradcheck(
        lambda i, k, s=None: extract_patches(i, k, 3, s), inputs, eps=1e-6, atol=1e-5
    )


@pytest.mark.parametrize("place", [(-1.0, -1.0), (1.0, 1.0), (-1.4, 0.2), (0.3, 1.7), (9.0, -9.0)])
def test_keypoints_on_and_past_the_border_have_patches(place):
    images = torch.rand(1, 3, 11, 8)
    keypoints = torch.tensor([[place]])
    outside = extract_patches(images, keypoints, 5)
    assert torch.isfinite(outside).all()
    if max(map(abs, place)) > 2:
        assert not outside.any()  # zeros where there is no image
    whole = snap(keypoints, 5, (11, 8))
    left, top = corners_px(whole, 5, (11, 8))[0, 0].tolist()
    expected = images[:, None, :, top : top + 5, left : left + 5]
    assert torch.equal(slice_patches(images, whole, 5), expected)


def weights(keypoints, patch, size, scale=1.0):
    """Give each pixel an image of its own and see how much it weighs in any sample: (1, H, W)."""
    pixels = torch.eye(size[0] * size[1]).reshape(-1, 1, *size)
    every = keypoints.expand(len(pixels), -1, -1)
    samples = extract_patches(pixels, every, patch, torch.full(every.shape[:2], scale))
    return samples.flatten(1).amax(dim=1).reshape(1, *size)


@few
@given(any_places())
def test_mask_equals_the_pixels_that_have_a_weight(case):
    keypoints, patch, size = case
    mask = patch_mask(keypoints, patch, size)
    weight = weights(keypoints, patch, size)
    # What rounding alone can weigh, 1e-3 across and down, may fall on either side.
    assert not ((weight > 2e-3) & ~mask).any()
    assert not ((weight < 5e-7) & mask).any()


@few
@given(any_places(), st.floats(0.5, 4.0))
def test_mask_of_scaled_patches_never_misses_a_pixel_that_was_read(case, scale):
    keypoints, patch, size = case
    mask = patch_mask(keypoints, patch, size, torch.full(keypoints.shape[:2], scale))
    read = weights(keypoints, patch, size, scale) != 0
    assert not (read & ~mask).any()


def test_mask_of_a_whole_patch_is_its_pixels_and_the_union_of_two():
    keypoints = snap(torch.tensor([[[0.0, 0.0], [0.2, 0.1]]]), 5, (9, 13))
    expected = torch.zeros(1, 9, 13, dtype=torch.bool)
    for left, top in corners_px(keypoints, 5, (9, 13))[0].tolist():
        expected[:, top : top + 5, left : left + 5] = True
    assert torch.equal(patch_mask(keypoints, 5, (9, 13)), expected)
    assert int(expected.sum()) > 25


@few
@given(any_places())
def test_the_same_keypoint_is_the_same_pixel_everywhere(case):
    keypoints, patch, size = case
    keypoints = snap(keypoints, patch, size)
    # Every pixel holds its own column and row.
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    images = torch.stack([x, y]).float()[None]
    patches = slice_patches(images, keypoints, patch)
    explanation = Explanation(images, torch.zeros(1, 2), keypoints=keypoints, patches=patches)
    centres_px = to_px(keypoints, size)
    for index, told in enumerate(explanation.to_dicts()[0]["keypoints"]):
        seen = patches[0, index]  # (2, P, P): column and row of each pixel in the patch
        assert [told["left_px"], told["top_px"]] == seen[:, 0, 0].tolist()
        middle = seen.mean(dim=(-2, -1))
        torch.testing.assert_close(centres_px[0, index], middle, atol=1e-4, rtol=0)
        assert [told["x_px"], told["y_px"]] == pytest.approx(middle.tolist(), abs=2e-3)
        inside = explanation.evidence[0, told["top_px"], told["left_px"]]
        assert bool(inside)


def test_the_pixel_of_a_scaled_patch_is_its_first_sample():
    images = torch.rand(1, 1, 20, 30)
    keypoints = from_px(torch.tensor([[[12.0, 9.0]]]), (20, 30))
    scales = torch.tensor([[2.0]])
    patches = extract_patches(images, keypoints, 5, scales)
    explanation = Explanation(
        images, torch.zeros(1, 2), keypoints=keypoints, patches=patches, scales=scales
    )
    told = explanation.to_dicts()[0]["keypoints"][0]
    assert (told["left_px"], told["top_px"], told["scale"]) == (8, 5, 2.0)
    torch.testing.assert_close(patches[0, 0, 0, 0, 0], images[0, 0, 5, 8])


def test_aligned_grid_units_cut_what_torch_cuts_with_aligned_corners():
    images = torch.rand(2, 3, 9, 14)
    aligned = torch.rand(2, 1, 2) * 2 - 1
    expected = F.grid_sample(images, aligned[:, :, None], align_corners=True)[..., 0, 0]
    patches = extract_patches(images, from_aligned(aligned, (9, 14)), 1)
    torch.testing.assert_close(patches[:, 0, :, 0, 0], expected)
