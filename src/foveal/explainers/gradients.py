"""Attributions from the gradient of a logit with respect to the pixels."""

from torch import Tensor

from foveal.explainers.post_hoc import PostHoc
from foveal.explainers.task import Attributor, Task
from foveal.foundation.errors import extra

STEPS = 32  # points on the path of integrated gradients


def gradient_x_input(task: Task) -> Attributor:
    """Return a function that computes gradient x input (Shrikumar et al. 2016, arXiv:1605.01713).

    A map is the product of each pixel and the gradient of the target's logit with respect to it,
    summed over channels. If the model is linear, this is the pixel's contribution to the logit.
    """
    with extra("captum", "captum"):
        from captum.attr import InputXGradient

    captum_method = InputXGradient(task.scores)

    def attribute(images: Tensor, targets: Tensor) -> Tensor:
        inputs = images.clone().requires_grad_()
        return captum_method.attribute(inputs, target=targets).detach().sum(dim=1, keepdim=True)

    return attribute


def integrated_gradients(task: Task) -> Attributor:
    """Return a function that computes integrated gradients from the black image.

    A map is the mean gradient at 32 points on the straight line from black to the image
    (Gauss–Legendre quadrature), times the pixel, summed over channels. The sum of the map
    approximates the difference between the logits of the image and of the black image
    (Sundararajan et al. 2017, equation 1 and proposition 1).
    """
    with extra("captum", "captum"):
        from captum.attr import IntegratedGradients

    captum_method = IntegratedGradients(task.scores)

    def attribute(images: Tensor, targets: Tensor) -> Tensor:
        maps = captum_method.attribute(
            images, target=targets, n_steps=STEPS, internal_batch_size=task.batch_size
        )
        return maps.detach().sum(dim=1, keepdim=True)

    return attribute


GRADIENT_X_INPUT = PostHoc("gradient-x-input", gradient_x_input)
INTEGRATED_GRADIENTS = PostHoc("integrated-gradients", integrated_gradients)
