"""Layouts of layer outputs: which axes are channels, rows and columns."""

from collections.abc import Callable

from torch import Tensor, nn

EXTRA_TOKENS = 5  # maximum number before the image's tokens: a class token and four registers
CHANNELS_FIRST = (nn.Conv2d, nn.BatchNorm2d)  # layers whose output always has the channels first

AsFeatures = Callable[[Tensor], Tensor]  # a layer's output, or its gradient -> (B, channels, h, w)


def layouts(layer: nn.Module, output: Tensor, size: tuple[int, int]) -> list[AsFeatures]:
    """Return all possible conversions of a layer's output into features (B, channels, h, w).

    Rows and columns must have the proportions of the image. With four axes they are the last two
    (channels first) or the two in the middle (channels last). With three axes, the tokens form a
    grid, row by row, possibly preceded by a class token and registers.

    Args:
        layer: the layer that returned the output.
        output: a tensor of any shape.
        size: height and width of the images in pixels.
    """
    if output.ndim == 3:
        return [_tokens(*grid) for grid in _grids(output.shape[1], size)]
    conversions: list[AsFeatures] = []
    if can_be_channels_first(layer, output, size):
        conversions.append(_channels_first)
    if _can_be_channels_last(layer, output, size):
        conversions.append(_channels_last)
    return conversions


def can_be_channels_first(layer: nn.Module, output: Tensor, size: tuple[int, int]) -> bool:
    """Return whether an output may be (B, channels, h, w). Arguments as in `layouts`."""
    if output.ndim != 4:
        return False
    return isinstance(layer, CHANNELS_FIRST) or _in_proportion(
        output.shape[2], output.shape[3], size
    )


def _can_be_channels_last(layer: nn.Module, output: Tensor, size: tuple[int, int]) -> bool:
    if output.ndim != 4 or isinstance(layer, CHANNELS_FIRST):
        return False
    return _in_proportion(output.shape[1], output.shape[2], size)


def _in_proportion(rows: int, columns: int, size: tuple[int, int]) -> bool:
    """Return whether a grid has the proportions of an image, to within one row or column.

    A square image requires a square grid; strides round the proportions of other images.
    """
    height, width = size
    is_smaller = rows <= height and columns <= width
    return is_smaller and abs(rows * width - columns * height) < max(height, width)


def _grids(tokens: int, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the grids (h, w) of square patches that leave the fewest tokens unused."""
    height, width = size
    grids = {(height // side, width // side) for side in range(1, min(size) + 1)}
    candidates = [(h, w) for h, w in grids if 0 <= tokens - h * w <= EXTRA_TOKENS]
    max_locations = max((h * w for h, w in candidates), default=0)
    return [(h, w) for h, w in candidates if h * w == max_locations]


def _channels_first(output: Tensor) -> Tensor:
    return output


def _channels_last(output: Tensor) -> Tensor:
    return output.permute(0, 3, 1, 2)


def _tokens(rows: int, columns: int) -> AsFeatures:
    def as_features(output: Tensor) -> Tensor:
        return output[:, -rows * columns :].transpose(1, 2).unflatten(2, (rows, columns))

    return as_features
