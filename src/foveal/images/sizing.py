"""The size in pixels that an image is resized to for a model."""

from dataclasses import dataclass

STEP = 32  # pixels; sides are multiples of it, as the strides of pretrained backbones are
MOST = 4  # times the short side that the long one may have


@dataclass(frozen=True)
class ShortSide:
    """Images whose proportions are kept, resized by their short side.

    Sides are rounded to multiples of `STEP` pixels, so that images come in few sizes, of which
    batches can be made. A strip of more than 1 : `MOST` is squeezed to that.

    Attributes:
        pixels: of the short side.
    """

    pixels: int

    def of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width for an image of another height and width in pixels.

        Example:
            >>> ShortSide(224).of((1200, 1600))
            (224, 288)
        """
        scale = self.pixels / min(size)
        height, width = (
            min(max(STEP, round(side * scale / STEP) * STEP), MOST * self.pixels) for side in size
        )
        return height, width


Sizing = tuple[int, int] | ShortSide  # a fixed height and width, or one for each image


def size_for(sizing: Sizing, size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width in pixels to which an image of another size is resized."""
    return sizing.of(size) if isinstance(sizing, ShortSide) else sizing
