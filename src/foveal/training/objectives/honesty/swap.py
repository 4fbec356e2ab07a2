"""Swap loss: images read at other images' keypoints must still be classified correctly."""

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
    """Return the classification loss of images whose patches are cut at another image's keypoints.

    The keypoints are permuted at random among the images of the batch, and get no gradient.

    Args:
        model: the focus model.
        images: (B, C, H, W), normalised.
        observed: the model's explanation of these images, which holds their keypoints.
        labels: (B,) class indices of the images.
        training: settings of the classification loss.
    """
    assert observed.keypoints is not None
    permutation = torch.randperm(len(labels), device=labels.device)
    located = Located(observed.keypoints.detach(), observed.scales)
    swapped = model.decide(WholeView(images[permutation]), located)
    return classification_loss(swapped.logits, labels[permutation], training)
