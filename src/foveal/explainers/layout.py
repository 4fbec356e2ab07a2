"""Layouts of layer outputs: which axes are channels, rows and columns."""

from collections.abc import Callable

from torch import Tensor, nn

MAX_EXTRA_TOKENS = 5  # maximum number before the image's tokens: a class token and four registers
CHANNELS_FIRST = (nn.Conv2d, nn.BatchNorm2d)  # layers whose output always has the channels first

# Conversion of a layer's output, or of its gradient, into features (B, channels, h, w).
AsFeatures = Callable[[Tensor], Tensor]


def layouts(layer: nn.Module, output: Tensor, size: tuple[int, int]) -> list[AsFeatures]:
    """Return all possible conversions of a layer's output into features (B, channels, h, w).

    The grid of h rows and w columns must have the aspect ratio of the image. If the output has four
    axes, rows and columns are the last two (channels first) or the two in the middle (channels
    last). If it has three axes, it consists of tokens, which form the grid row by row, possibly
    after a class token and registers. An output with any other number of axes has no conversion.

    Args:
        layer: the layer that returned the output.
        output: a tensor of any shape.
        size: height and width of the images in pixels.
    """
    if output.ndim == 3:
        return [_from_tokens(*grid) for grid in _grids(output.shape[1], size)]
    conversions: list[AsFeatures] = []
    if can_be_channels_first(layer, output, size):
        conversions.append(_channels_first)
    if _can_be_channels_last(layer, output, size):
        conversions.append(_channels_last)
    return conversions


def can_be_channels_first(layer: nn.Module, output: Tensor, size: tuple[int, int]) -> bool:
    """Return whether an output may be (B, channels, h, w); see `layouts` for the arguments."""
    if output.ndim != 4:
        return False
    if isinstance(layer, CHANNELS_FIRST):
        return True
    return _has_aspect_ratio(output.shape[2], output.shape[3], size)


def _can_be_channels_last(layer: nn.Module, output: Tensor, size: tuple[int, int]) -> bool:
    if output.ndim != 4 or isinstance(layer, CHANNELS_FIRST):
        return False
    return _has_aspect_ratio(output.shape[1], output.shape[2], size)


def _has_aspect_ratio(rows: int, columns: int, size: tuple[int, int]) -> bool:
    """Return whether a grid has the aspect ratio of an image, to within one row or column.

    A square image requires a square grid. The grid of another image may deviate, because strides
    round the numbers of rows and columns.
    """
    height, width = size
    is_smaller = rows <= height and columns <= width
    return is_smaller and abs(rows * width - columns * height) < max(height, width)


def _grids(token_count: int, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the grids (h, w) of square patches that a number of tokens may represent.

    Up to `MAX_EXTRA_TOKENS` tokens may be left over. Of all grids, those that leave the fewest are
    returned, or none if all leave too many.
    """
    height, width = size
    grids = {(height // side, width // side) for side in range(1, min(size) + 1)}
    candidates = [(h, w) for h, w in grids if 0 <= token_count - h * w <= MAX_EXTRA_TOKENS]
    max_locations = max((h * w for h, w in candidates), default=0)
    return [(h, w) for h, w in candidates if h * w == max_locations]


def _channels_first(output: Tensor) -> Tensor:
    return output


def _channels_last(output: Tensor) -> Tensor:
    return output.permute(0, 3, 1, 2)


def _from_tokens(rows: int, columns: int) -> AsFeatures:
    """Return the conversion of tokens (B, tokens, channels) whose last ones form a grid."""

    def as_features(output: Tensor) -> Tensor:
        return output[:, -rows * columns :].transpose(1, 2).unflatten(2, (rows, columns))

    return as_features
