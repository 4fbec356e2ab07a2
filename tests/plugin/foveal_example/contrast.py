"""An explainer that ignores the model: the distance of each pixel from the image's mean."""

from torch import Tensor

from foveal.explainers import Attributor, PostHoc, Task
from foveal.observation.values import Values


def contrast(task: Task) -> Attributor:
    """Return the absolute difference of each pixel from the mean of its image."""

    def attribute(images: Tensor, targets: Tensor) -> Tensor:
        grey = images.mean(dim=1, keepdim=True)  # (B, 1, H, W)
        return (grey - grey.mean(dim=(-2, -1), keepdim=True)).abs()

    return attribute


CONTRAST = PostHoc("contrast", contrast, Values("distance from the mean"))
