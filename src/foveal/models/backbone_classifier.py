"""Classifiers that read images through a backbone alone."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from foveal.backbones import Backbone


class BackboneClassifier(Protocol):
    """A classifier whose logits follow from a backbone's features, computed by whomever.

    Attributes:
        backbone: images -> local features of several depths, and a global vector.
        depths: numbers, from 1, of the local features that it reads beside the global vector.
    """

    backbone: Backbone
    depths: Sequence[int]

    def classify(self, features: Mapping[int, Tensor], whole: Tensor) -> Tensor:
        """Return logits (B, classes).

        Args:
            features: local features (B, C_d, h, w) of the depths that it reads, by their depth.
            whole: the global vector (B, width).
        """

    def start_linear(self, weight: Tensor, bias: Tensor) -> None:
        """Set the classifier to a linear layer on the backbone's global vector.

        Args:
            weight: (classes, width).
            bias: (classes,).

        Raises:
            UserError: it cannot begin as one.
        """
