"""LayerCAM: the features of a layer, each weighed by what it does to a logit where it lies."""

import torch.nn.functional as F
from torch import Tensor

from foveal.explainers.layer import feature_layer, features_of
from foveal.explainers.post_hoc import PostHoc
from foveal.explainers.task import Attributor, Task


def layer_cam(task: Task) -> Attributor:
    """Return the positive part of a layer's features, each times its own positive gradient.

    Unlike Grad-CAM it takes no mean of the gradient over locations, so it reads early layers too.
    Bilinearly made as large as the image. Never negative (Jiang et al. 2021, "LayerCAM",
    equations 6 to 8).

    Raises:
        UserError: the model has no layer whose features show locations, or the one named has none.
    """
    layer, as_features = feature_layer(task)

    def attribute(images: Tensor, targets: Tensor) -> Tensor:
        features, gradient = features_of(task, layer, images, targets)
        weighed = as_features(gradient).relu() * as_features(features)
        return F.interpolate(weighed.sum(dim=1, keepdim=True).relu(), task.size, mode="bilinear")

    return attribute


LAYER_CAM = PostHoc("layer-cam", layer_cam, reads_layer=True)
