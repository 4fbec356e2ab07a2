"""Attributions from the gradient of a logit with respect to the pixels."""

from torch import Tensor

from foveal.explainers.post_hoc import PostHoc
from foveal.explainers.task import Attributor, Task
from foveal.foundation.errors import extra

STEPS = 32


def gradient_x_input(task: Task) -> Attributor:
    """Return the gradient of the target's logit times the pixel, summed over channels.

    For a linear model it is the contribution of each pixel to the logit (Shrikumar et al. 2016,
    arXiv:1605.01713).
    """
    with extra("captum", "captum"):
        from captum.attr import InputXGradient

    method = InputXGradient(task.scores)

    def attribute(images: Tensor, targets: Tensor) -> Tensor:
        inputs = images.clone().requires_grad_()
        return method.attribute(inputs, target=targets).detach().sum(dim=1, keepdim=True)

    return attribute


def integrated_gradients(task: Task) -> Attributor:
    """Return integrated gradients from the black image, summed over channels.

    The mean gradient at 32 points on the straight line from black to the image (Gauss–Legendre
    quadrature), times the pixel. The sum over pixels is the difference of the two logits
    (Sundararajan et al. 2017, equation 1 and proposition 1).
    """
    with extra("captum", "captum"):
        from captum.attr import IntegratedGradients

    method = IntegratedGradients(task.scores)

    def attribute(images: Tensor, targets: Tensor) -> Tensor:
        maps = method.attribute(
            images, target=targets, n_steps=STEPS, internal_batch_size=task.batch_size
        )
        return maps.detach().sum(dim=1, keepdim=True)

    return attribute


GRADIENT_X_INPUT = PostHoc("gradient-x-input", gradient_x_input)
INTEGRATED_GRADIENTS = PostHoc("integrated-gradients", integrated_gradients)
