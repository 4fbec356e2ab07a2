"""Sizes in pixels to which images are resized for a model."""

from dataclasses import dataclass

STEP = 32  # pixels; sides are multiples of it, the stride of pretrained backbones
MAX_RATIO = 4  # maximum ratio of the long side to the short side


@dataclass(frozen=True)
class ShortSide:
    """Resizing by the short side, which keeps the proportions.

    Sides are rounded to multiples of `STEP` pixels, which results in few sizes, each with enough
    images for batches. Aspect ratios above `MAX_RATIO` are reduced to it.

    Attributes:
        pixels: length of the short side.
    """

    pixels: int

    def of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the new height and width of an image of a size in pixels.

        Example:
            >>> ShortSide(224).of((1200, 1600))
            (224, 288)
        """
        scale = self.pixels / min(size)
        height, width = (
            min(max(STEP, round(side * scale / STEP) * STEP), MAX_RATIO * self.pixels)
            for side in size
        )
        return height, width


Sizing = tuple[int, int] | ShortSide  # a fixed height and width, or one per image


def size_for(sizing: Sizing, size: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width in pixels to which an image of a size is resized."""
    return sizing.of(size) if isinstance(sizing, ShortSide) else sizing
