"""Keypoints and patches: frames over the image, and enlarged patches.

A keypoint is the centre of a patch, and a frame shows which square of the image the patch spans.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foveal.images.geometry import to_px
from foveal.observation.tensors import Observation
from foveal.plotting.canvas import colour, rgb_array

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def frames_px(explanation: Observation) -> Tensor:
    """Return left, top, width and height (K, 4) in pixels of one image's patch frames.

    The edges are on the scale of pixel centres: pixel (0, 0) extends from -0.5 to 0.5 on both axes.
    """
    assert explanation.keypoints is not None
    assert explanation.patch_size is not None
    centres = to_px(explanation.keypoints[0], explanation.size)  # (K, 2)
    spacing = torch.ones(len(centres)) if explanation.scales is None else explanation.scales[0]
    # The outermost samples extend by half a block, or by half a pixel.
    side = (explanation.patch_size - 1) * spacing + (spacing if explanation.blocks else 1)
    return torch.stack([centres[:, 0] - side / 2, centres[:, 1] - side / 2, side, side], dim=1)


def draw_frames(axes: "Axes", explanation: Observation, numbers: bool = True) -> None:
    """Draw the numbered patch frames of one image, and a cross at each keypoint."""
    from matplotlib.patches import Rectangle

    assert explanation.keypoints is not None
    centres = to_px(explanation.keypoints[0], explanation.size)
    line_width = max(1.2, 1.8 - 0.05 * len(centres))
    for index, (left, top, frame_width, frame_height) in enumerate(frames_px(explanation).tolist()):
        frame = Rectangle(
            (left, top), frame_width, frame_height, fill=False, ec=colour(index), lw=line_width
        )
        axes.add_patch(frame)
        x, y = centres[index].tolist()
        axes.plot([x], [y], marker="+", ms=4, color=colour(index), ls="none")
        if numbers:
            _draw_number(axes, left, top, index)
    height, width = explanation.size
    axes.set_xlim(-1.5, width + 0.5)
    axes.set_ylim(height + 0.5, -1.5)


def _draw_number(axes: "Axes", left: float, top: float, index: int) -> None:
    """Draw the number of a keypoint at the top left corner of its frame."""
    axes.annotate(
        str(index + 1),
        (left, top),
        fontsize=7,
        fontweight="bold",
        color="white",
        ha="center",
        va="center",
        bbox={"boxstyle": "circle,pad=0.18", "fc": colour(index), "ec": "none"},
    )


def draw_patch(axes: "Axes", patch: Tensor, index: int, note: str = "") -> None:
    """Draw one patch (C, P, P) enlarged, with the colour and the number of its keypoint.

    Args:
        axes: to draw on.
        patch: (C, P, P) in [0, 1].
        index: index of the keypoint, from 0; the number drawn is one higher.
        note: text below the patch.
    """
    if note:
        axes.set_xlabel(note, fontsize=7, labelpad=2)
    axes.imshow(rgb_array(patch), interpolation="nearest", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(edgecolor=colour(index), linewidth=3)
    _draw_number(axes, -0.5, -0.5, index)
