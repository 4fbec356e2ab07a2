"""Basics of all figures: colours, empty figures, and pixels and names for matplotlib."""

from textwrap import fill
from typing import TYPE_CHECKING

from torch import Tensor

from foveal.foundation.escaping import printable

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "^")  # for points of the same colour
# After Okabe & Ito 2008, distinguishable by colour-blind people; the yellow is darker here, for
# white numbers on it. Numbers repeat the information of the colours.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#7F7F00")
INK, PALE, RIGHT, WRONG = "#222222", "#B8C0C8", "#0072B2", "#D55E00"
DPI = 144


def colour(index: int) -> str:
    """Return the colour of the patch at an index."""
    return COLOURS[index % len(COLOURS)]


def new_figure(width: float, height: float, dpi: float = DPI) -> "Figure":
    """Return an empty figure of a size in inches, outside of pyplot's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=dpi, facecolor="white", layout="constrained")


def pixels(image: Tensor) -> "np.ndarray":
    """Return (C, H, W) in [0, 1] as (H, W, 3) for matplotlib; one channel becomes three."""
    clamped = image.detach().float().clamp(0, 1)
    rgb = clamped.expand(3, -1, -1) if clamped.shape[0] == 1 else clamped[:3]
    return rgb.permute(1, 2, 0).numpy()


def shorten(name: str, length: int = 18) -> str:
    """Return a name on one line, truncated to a length, with dollar signs escaped."""
    return _escape_dollars(_truncate(name, length))


def wrap(name: str, width: int, length: int = 60) -> str:
    """Return a name on lines of at most `width` characters, otherwise like `shorten`."""
    return _escape_dollars(fill(_truncate(name, length), width))


def _truncate(name: str, length: int) -> str:
    plain = printable(name[: length + 1])
    return plain if len(plain) <= length else plain[: length - 1] + "…"


def _escape_dollars(text: str) -> str:
    return text.replace("$", r"\$")  # two dollar signs would delimit mathematics


def plain_axes(axes: "Axes") -> None:
    """Reduce axes to the data and a pale grid."""
    axes.grid(color="#E4E8EB", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
