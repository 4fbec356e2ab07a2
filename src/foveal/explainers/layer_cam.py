"""LayerCAM: a layer's features weighted by the gradient of a logit at each location."""

import torch.nn.functional as F
from torch import Tensor

from foveal.explainers.layer import feature_layer, features_of
from foveal.explainers.post_hoc import PostHoc
from foveal.explainers.task import Attributor, Task


def layer_cam(task: Task) -> Attributor:
    """Return a function that computes LayerCAM maps (Jiang et al. 2021, equations 6 to 8).

    A map is the sum of a layer's channels, each weighted at each location by the positive part of
    its gradient there. Unlike Grad-CAM, the method does not average the gradient over locations,
    so it also suits early layers. Negative sums are set to 0. The map is resized bilinearly to the
    size of the image.

    Raises:
        UserError: see `feature_layer`.
    """
    layer, as_features = feature_layer(task)

    def attribute(images: Tensor, targets: Tensor) -> Tensor:
        features, gradient = features_of(task, layer, images, targets)
        weighted = as_features(gradient).relu() * as_features(features)
        return F.interpolate(weighted.sum(dim=1, keepdim=True).relu(), task.size, mode="bilinear")

    return attribute


LAYER_CAM = PostHoc("layer-cam", layer_cam, reads_layer=True)
