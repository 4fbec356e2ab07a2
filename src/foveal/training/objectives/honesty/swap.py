"""Swap: patches of other images at an image's keypoints must give the other images' classes."""

import torch
from torch import Tensor

from foveal.detectors import Located
from foveal.explanation import Explanation
from foveal.images import WholeView
from foveal.models.focus import FocusNet
from foveal.training.objectives.losses import classification_loss
from foveal.training.settings import Training


def swap_loss(
    model: FocusNet, images: Tensor, observed: Explanation, labels: Tensor, training: Training
) -> Tensor:
    """Return the classification loss of images read at each other's keypoints.

    Args:
        model: the focus model.
        images: (B, C, H, W), normalised.
        observed: its explanation of these images.
        labels: (B,) class indices.
        training: settings of the classification loss.
    """
    assert observed.keypoints is not None
    others = torch.randperm(len(labels), device=labels.device)
    located = Located(observed.keypoints.detach(), observed.scales)
    swapped = model.decide(WholeView(images[others]), located)
    return classification_loss(swapped.logits, labels[others], training)
