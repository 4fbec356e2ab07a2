"""Local self-attention: equality with loops over pixels, and properties of the weights."""

import pytest
import torch

from foveal.foundation.errors import UserError
from foveal.models.local_attention import (
    GROUP_SIZE,
    PairwiseAttention,
    PatchwiseAttention,
    aggregate,
    positions,
    received_attention,
    windows,
)
from foveal.models.self_attention import SAN10, SANet


def mirror(index, length):
    """Return an index, mirrored at the border if it lies outside of `range(length)`."""
    index = abs(index)
    return 2 * (length - 1) - index if index >= length else index


def clamp(index, length):
    """Return the nearest index in `range(length)`."""
    return min(max(index, 0), length - 1)


def offsets(side):
    """Return the offsets (y, x) of the neighbours in a window, row by row."""
    reach = side // 2
    return [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]


@pytest.mark.parametrize("side", [1, 3, 5])
def test_windows_hold_each_neighbour_mirrored_at_the_border(side):
    features = torch.rand(2, 3, 6, 7)
    for (dy, dx), neighbours in zip(offsets(side), windows(features, side), strict=True):
        for y in range(6):
            for x in range(7):
                expected = features[:, :, mirror(y + dy, 6), mirror(x + dx, 7)]
                assert torch.equal(neighbours[:, :, y, x], expected)


def test_a_window_wider_than_the_image_repeats_the_border():
    features = torch.rand(1, 1, 2, 3)
    for (dy, dx), neighbours in zip(offsets(5), windows(features, 5), strict=True):
        assert neighbours[0, 0, 1, 2] == features[0, 0, clamp(1 + dy, 2), clamp(2 + dx, 3)]


def weighted_sum(values, weights, side):
    """Return the weighted sum over each window by loops over pixels."""
    height, width = values.shape[-2:]
    total = torch.zeros_like(values)
    for y in range(height):
        for x in range(width):
            for number, (dy, dx) in enumerate(offsets(side)):
                neighbour = values[:, :, mirror(y + dy, height), mirror(x + dx, width)]
                weight = weights[:, number, :, y, x].repeat_interleave(GROUP_SIZE, dim=1)
                total[:, :, y, x] += weight * neighbour  # (B, C)
    return total


@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_weighted_sum_equals_a_loop_over_pixels(side, layout):
    torch.manual_seed(0)
    values = torch.randn(1, 2 * GROUP_SIZE, 4, 5, dtype=torch.float64)
    weights = torch.randn(1, side**2, 2, 4, 5, dtype=torch.float64)
    total = aggregate(values.contiguous(memory_format=layout), weights, side)
    torch.testing.assert_close(total, weighted_sum(values, weights, side))


def test_the_gradient_of_the_weighted_sum_agrees_with_finite_differences():
    torch.manual_seed(0)
    values = torch.randn(1, GROUP_SIZE, 3, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(1, 9, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, w: aggregate(v, w, 3), (values, weights))


def pairwise_weights(layer, features):
    """Return the weights of equation 2 by loops over pixels and their neighbours."""
    here, there = layer.phi(features), layer.psi(features)
    encoding = layer.place(positions(features))
    batch, _, height, width = features.shape
    scores = []
    for dy, dx in offsets(layer.side):
        pair = torch.empty(batch, here.shape[1] + 2, height, width, dtype=features.dtype)
        for y in range(height):
            for x in range(width):
                near_y, near_x = mirror(y + dy, height), mirror(x + dx, width)
                pair[:, :-2, y, x] = here[:, :, y, x] - there[:, :, near_y, near_x]
                pair[:, -2:, y, x] = encoding[:, :, y, x] - encoding[:, :, near_y, near_x]
        scores.append(layer.gamma(pair))
    return torch.stack(scores, dim=1).softmax(dim=1)


def patchwise_weights(layer, features):
    """Return the weights of equation 4 by loops over pixels, a linear map of each window."""
    here, there = layer.phi(features), layer.psi(features)
    batch, _, height, width = features.shape
    scores = torch.empty(batch, layer.groups, height, width, dtype=features.dtype)
    kernel = layer.around.weight.flatten(2)  # (groups, relation, side * side)
    for y in range(height):
        for x in range(width):
            total = here[:, :, y, x] @ layer.here.weight[:, :, 0, 0].T
            for number, (dy, dx) in enumerate(offsets(layer.side)):
                neighbour = there[:, :, mirror(y + dy, height), mirror(x + dx, width)]
                total = total + neighbour @ kernel[:, :, number].T
            scores[:, :, y, x] = total
    return layer.gamma(scores).unflatten(1, (layer.side**2, layer.groups))


@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize(
    ("operator", "weights_by_loops"),
    [(PairwiseAttention, pairwise_weights), (PatchwiseAttention, patchwise_weights)],
)
def test_each_operator_equals_a_direct_loop_over_pixels(operator, weights_by_loops, side):
    torch.manual_seed(0)
    layer = operator(6, 2 * GROUP_SIZE, 4, side).double().eval()
    features = torch.randn(2, 6, 4, 5, dtype=torch.float64)
    output, weights = layer(features)
    expected = weights_by_loops(layer, features)
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(output, weighted_sum(layer.beta(features), expected, side))


def test_pairwise_weights_of_a_window_sum_to_one():
    layer = PairwiseAttention(4, GROUP_SIZE, 4, 3).eval()
    weights = layer.weigh(torch.randn(2, 4, 5, 5))
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 1, 5, 5))


def test_received_attention_sums_the_weights_of_all_windows():
    torch.manual_seed(0)
    weights = torch.randn(2, 9, 3, 4, 5)
    expected = torch.zeros(2, 4, 5)
    for y in range(4):
        for x in range(5):
            for number, (dy, dx) in enumerate(offsets(3)):
                if 0 <= y + dy < 4 and 0 <= x + dx < 5:
                    expected[:, y + dy, x + dx] += weights[:, number, :, y, x].abs().mean(1)
    torch.testing.assert_close(received_attention(weights, 3), expected)


@pytest.mark.parametrize(("kind", "millions"), [("pairwise", 10.5), ("patchwise", 11.8)])
def test_san10_has_the_size_in_the_paper(kind, millions):
    model = SANet(kind, **SAN10, pool_first=True, num_classes=1000)
    actual = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert round(actual, 1) == millions


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "pairwize"}, "Did you mean 'pairwise'"),
        ({"blocks": [1, 2]}, "as many blocks"),
        ({"blocks": [1, 0, 1]}, r"Expected blocks\[1\] from 1"),
        ({"widths": [64, 100, 128]}, "multiples of 32, but got 100"),
        ({"sides": [3, 4, 5]}, "odd sides of windows, but got 4"),
        ({"whiten": -1}, "Expected whiten from 0 to 16, but got -1"),
    ],
)
def test_invalid_settings_are_user_errors(settings, message):
    with pytest.raises(UserError, match=message):
        SANet(**settings)
