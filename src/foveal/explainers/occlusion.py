"""Occlusion: the drop of a logit when a window of the image is hidden."""

from torch import Tensor

from foveal.explainers.post_hoc import PostHoc
from foveal.explainers.task import Attributor, Task
from foveal.foundation.errors import extra

WINDOWS = 6  # windows side by side along the shorter side of the image


def window_px(size: tuple[int, int]) -> int:
    """Return the side of the window for an image of `size` (H, W), both in pixels."""
    return max(1, round(min(size) / WINDOWS))


def occlusion(task: Task) -> Attributor:
    """Return the mean drop of the target's logit, per pixel, over the windows that hide it.

    A square window moves over the image in steps of half its side; the pixels in it are replaced
    by the mean colour of the image. The last windows of a row or column may extend beyond the
    image (Zeiler & Fergus 2014, section 4.2, who use grey).
    """
    with extra("captum", "captum"):
        from captum.attr import Occlusion

    method = Occlusion(task.scores)
    side = window_px(task.size)
    stride = max(1, side // 2)

    def attribute(images: Tensor, targets: Tensor) -> Tensor:
        drops = method.attribute(
            images,
            sliding_window_shapes=(task.shape[0], side, side),
            strides=(task.shape[0], stride, stride),
            baselines=images.mean(dim=(-2, -1), keepdim=True).expand_as(images),
            target=targets,
            perturbations_per_eval=task.repeats(images),
        )
        return drops[:, :1]  # a window hides all channels, so all have the same value

    return attribute


OCCLUSION = PostHoc("occlusion", occlusion)
