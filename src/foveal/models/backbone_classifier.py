"""The interface of classifiers that read only the features of a backbone.

Depth d is the d-th stage of the backbone, counted from 1. Training stores the features of a frozen
backbone, and then computes the logits from these instead of from images.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from foveal.backbones import Backbone


class BackboneClassifier(Protocol):
    """A classifier whose logits can be computed from given features of its backbone.

    Attributes:
        backbone: turns images into local features at several depths, and a global vector.
        depths: depths of the local features that the classifier reads in addition to the global
            vector.
    """

    backbone: Backbone
    depths: Sequence[int]

    def classify(self, features: Mapping[int, Tensor], whole: Tensor) -> Tensor:
        """Return logits (B, classes).

        Args:
            features: local features (B, C_d, h, w) of `depths`, by depth.
            whole: the global vector (B, width), which describes the whole image.
        """

    def start_linear(self, weight: Tensor, bias: Tensor) -> None:
        """Set the weights, in place, so that the logits are a linear layer on the global vector.

        Args:
            weight: weights (classes, width) of that layer.
            bias: biases (classes,) of that layer.

        Raises:
            UserError: with its settings, the classifier cannot compute such logits.
        """
