"""Sizes in pixels to which images are resized for a model."""

from dataclasses import dataclass

STEP = 32  # pixels; sides are multiples of it, the stride of pretrained backbones
MAX_RATIO = 4  # maximum ratio of the long side to the short side


@dataclass(frozen=True)
class ShortSide:
    """The size of an image given by the length of its short side, at its own aspect ratio.

    Both sides are rounded to multiples of `STEP` pixels, so that a dataset has few different sizes,
    each with enough images for batches. Aspect ratios above `MAX_RATIO` are reduced to it.

    Attributes:
        pixels: length of the short side in pixels.
    """

    pixels: int

    def of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width to which an image of `size` (H, W) is resized, in pixels.

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


# The same height and width for all images, or a size that depends on the image.
Sizing = tuple[int, int] | ShortSide


def size_for(sizing: Sizing, size: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width to which an image of `size` (H, W) is resized, in pixels."""
    return sizing.of(size) if isinstance(sizing, ShortSide) else sizing
