"""Grad-CAM: the features of a layer, weighed by what they do to a logit."""

import torch.nn.functional as F
from torch import Tensor

from foveal.attribution.layer import feature_layer
from foveal.attribution.task import Attributor, Task


def grad_cam(task: Task) -> Attributor:
    """Return the positive part of a layer's features, each weighed by its mean gradient.

    Bilinearly made as large as the image. Never negative (Selvaraju et al. 2017, equations 1
    and 2).

    Raises:
        UserError: the model has no convolution that sees the image, or the layer named is none.
    """
    from captum.attr import LayerGradCam

    method = LayerGradCam(task.model, feature_layer(task))

    def attribute(images: Tensor, targets: Tensor) -> Tensor:
        coarse = method.attribute(images, target=targets, relu_attributions=True).detach()
        return F.interpolate(coarse, task.size, mode="bilinear")

    return attribute
