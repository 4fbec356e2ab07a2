"""Grad-CAM: a layer's features weighted by the mean gradient of a logit."""

import torch.nn.functional as F
from torch import Tensor

from foveal.explainers.layer import feature_layer, features_of
from foveal.explainers.post_hoc import PostHoc
from foveal.explainers.task import Attributor, Task


def grad_cam(task: Task) -> Attributor:
    """Return a function that computes Grad-CAM maps (Selvaraju et al. 2017, equations 1 and 2).

    A map is the sum of a layer's channels, each weighted by the mean of its gradient over
    locations. Negative sums are set to 0. The map is resized bilinearly to the size of the image.

    Raises:
        UserError: the model has no suitable layer, or the layer of the task cannot be used; see
            `feature_layer`.
    """
    layer, as_features = feature_layer(task)

    def attribute(images: Tensor, targets: Tensor) -> Tensor:
        features, gradient = features_of(task, layer, images, targets)
        weights = as_features(gradient).mean(dim=(-2, -1), keepdim=True)
        coarse = (weights * as_features(features)).sum(dim=1, keepdim=True).relu()
        return F.interpolate(coarse, task.size, mode="bilinear")

    return attribute


GRAD_CAM = PostHoc("grad-cam", grad_cam, reads_layer=True)
