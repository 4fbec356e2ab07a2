"""Basics of all figures: colours, empty figures, arrays of pixels, and names as labels."""

from textwrap import fill
from typing import TYPE_CHECKING

from torch import Tensor

from foveal.foundation.escaping import printable

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "^")  # for points of the same colour
# Colours of patches and curves, after Okabe & Ito 2008, which colour-blind people can distinguish.
# The yellow is darker than theirs, so that white numbers on it are legible. Patches are numbered as
# well, so that no information is in the colours only.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#7F7F00")
INK = "#222222"  # colour of text and of emphasised marks
PALE = "#B8C0C8"  # colour of marks without emphasis
RIGHT = "#0072B2"  # colour of correct predictions
WRONG = "#D55E00"  # colour of wrong predictions
DPI = 144  # dots per inch


def colour(index: int) -> str:
    """Return the colour of the patch or curve at an index; the colours repeat."""
    return COLOURS[index % len(COLOURS)]


def new_figure(width: float, height: float, dpi: float = DPI) -> "Figure":
    """Return an empty figure of a size in inches, outside of pyplot's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=dpi, facecolor="white", layout="constrained")


def rgb_array(image: Tensor) -> "np.ndarray":
    """Return an image (C, H, W) as an array (H, W, 3) for matplotlib, clamped to [0, 1].

    A single channel is repeated; channels after the third are omitted.
    """
    clamped = image.detach().float().clamp(0, 1)
    rgb = clamped.expand(3, -1, -1) if clamped.shape[0] == 1 else clamped[:3]
    return rgb.permute(1, 2, 0).numpy()


def shorten(name: str, length: int = 18) -> str:
    """Return a name on one line of at most `length` characters, with dollar signs escaped."""
    return _escape_dollars(_truncate(name, length))


def wrap(name: str, width: int, length: int = 60) -> str:
    """Return a name of at most `length` characters on lines of at most `width`, for matplotlib.

    Like `shorten`, it escapes dollar signs.
    """
    return _escape_dollars(fill(_truncate(name, length), width))


def _truncate(name: str, length: int) -> str:
    plain = printable(name[: length + 1])
    return plain if len(plain) <= length else plain[: length - 1] + "…"


def _escape_dollars(text: str) -> str:
    return text.replace("$", r"\$")  # matplotlib sets text between two dollar signs as mathematics


def plain_axes(axes: "Axes") -> None:
    """Remove the frame and the tick marks of axes, and add a pale grid."""
    axes.grid(color="#E4E8EB", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
