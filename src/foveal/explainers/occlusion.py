"""Occlusion: the drop in a logit when a window of the image is hidden."""

from torch import Tensor

from foveal.explainers.post_hoc import PostHoc
from foveal.explainers.task import Attributor, Task
from foveal.foundation.errors import extra

SIDES_PER_IMAGE = 6  # the shorter side of the image, in sides of a window


def window_px(size: tuple[int, int]) -> int:
    """Return the side of the square window for an image of `size` (H, W), both in pixels."""
    return max(1, round(min(size) / SIDES_PER_IMAGE))


def occlusion(task: Task) -> Attributor:
    """Return a function that computes occlusion maps (after Zeiler & Fergus 2014, section 4.2).

    The value of a pixel is the mean drop in the target's logit over all windows that hide the
    pixel. A square window moves over the image in steps of half its side, so that windows overlap,
    and the pixels inside it are replaced by the mean colour of the image (the paper uses grey). The
    last windows of a row or column may extend beyond the image.
    """
    with extra("captum", "captum"):
        from captum.attr import Occlusion

    captum_method = Occlusion(task.scores)
    channels = task.shape[0]
    side = window_px(task.size)
    stride = max(1, side // 2)

    def attribute(images: Tensor, targets: Tensor) -> Tensor:
        drops = captum_method.attribute(
            images,
            sliding_window_shapes=(channels, side, side),
            strides=(channels, stride, stride),
            baselines=images.mean(dim=(-2, -1), keepdim=True).expand_as(images),
            target=targets,
            perturbations_per_eval=task.variants_per_pass(images),
        )
        return drops[:, :1]  # a window hides all channels, so all have the same value

    return attribute


OCCLUSION = PostHoc("occlusion", occlusion)
