"""The interface of classifiers that read only the features of a backbone."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from foveal.backbones import Backbone


class BackboneClassifier(Protocol):
    """A classifier whose logits can be computed from given features of its backbone.

    Attributes:
        backbone: images -> local features of several depths, and a global vector.
        depths: depths, from 1, of the local features that it reads in addition to the
            global vector.
    """

    backbone: Backbone
    depths: Sequence[int]

    def classify(self, features: Mapping[int, Tensor], whole: Tensor) -> Tensor:
        """Return logits (B, classes).

        Args:
            features: local features (B, C_d, h, w) of `depths`, by depth.
            whole: the global vector (B, width).
        """

    def start_linear(self, weight: Tensor, bias: Tensor) -> None:
        """Set the classifier to a linear layer on the backbone's global vector.

        Args:
            weight: (classes, width).
            bias: (classes,).

        Raises:
            UserError: the classifier cannot be set to one.
        """
