"""Figures of explanations, training curves, and accuracy against cost.

Figures are plain `matplotlib.figure.Figure` objects without pyplot's global state: any number of
them can be drawn in a loop without leaking memory.
"""

from foveal.plotting.canvas import COLOURS, DPI, INK, PALE, RIGHT, WRONG, colour, new_figure
from foveal.plotting.confusion import confusion_matrix
from foveal.plotting.curves import frontier, judged_curves, learning_curves
from foveal.plotting.figures import draw_classes, draw_image, explanation_figure, gallery
from foveal.plotting.maps import attention_grid, combined, draw_attention_map, relative
from foveal.plotting.patches import draw_frames, draw_patch, frames_px
from foveal.plotting.photo import draw_photo, photo_of
from foveal.plotting.rebuilding import rebuilding_grid, sample_grid
from foveal.plotting.saving import save_explanation, save_figure
from foveal.plotting.showing import show
from foveal.plotting.side_by_side import side_by_side

__all__ = [
    "COLOURS",
    "DPI",
    "INK",
    "PALE",
    "RIGHT",
    "WRONG",
    "attention_grid",
    "colour",
    "combined",
    "confusion_matrix",
    "draw_attention_map",
    "draw_classes",
    "draw_frames",
    "draw_image",
    "draw_patch",
    "draw_photo",
    "explanation_figure",
    "frames_px",
    "frontier",
    "gallery",
    "judged_curves",
    "learning_curves",
    "new_figure",
    "photo_of",
    "rebuilding_grid",
    "relative",
    "sample_grid",
    "save_explanation",
    "save_figure",
    "show",
    "side_by_side",
]
