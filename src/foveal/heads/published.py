"""The patch classifiers of the project "Unboxing the Black Box" as published, defects included."""

from typing import Annotated

from torch import Tensor, nn

from foveal.detectors import Located
from foveal.detectors.published import KINDS
from foveal.foundation.arguments import OneOf, Range
from foveal.foundation.ranges import Channels, Classes, Keypoints
from foveal.heads.head import Head, HeadOutput


class PublishedHead(Head):
    """The classifiers of the original project's focus, corners and zoom models.

    The original project is "Unboxing the Black Box: Explainable and Efficient CNNs with Focus and
    Attention". Two of its defects are preserved here: the classifiers do not read the locations of
    the patches; and the last two linear layers of `focus` have only dropout between them, so
    together they can compute no more than one linear layer.

    Args:
        keypoints: number K of patches.
        patch_size: points P along a patch's side, at least 2.
        in_channels: channels C of the patches.
        num_classes: number of classes.
        kind: model whose classifier this is: `focus`, `corners` or `zoom`.
    """

    def __init__(
        self,
        keypoints: Keypoints,
        patch_size: Annotated[int, Range(2, 1024)],
        in_channels: Channels = 1,
        num_classes: Classes = 10,
        kind: Annotated[str, OneOf(KINDS)] = "focus",
    ):
        super().__init__()
        self.keypoints, self.patch_size, self.in_channels = keypoints, patch_size, in_channels
        self.num_classes, self.kind = num_classes, kind
        self.encode = nn.Sequential(
            nn.Conv2d(in_channels, 8, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * patch_size**2, 64),
            nn.ReLU(),
        )
        tokens = 64 * keypoints
        output = nn.Linear(tokens, num_classes)
        hidden = [nn.Dropout(0.25), nn.Linear(tokens, tokens), nn.Dropout(0.5)]
        self.classify = nn.Sequential(*hidden, output) if kind == "focus" else output

    def forward(self, patches: Tensor, located: Located) -> HeadOutput:
        """Return logits (B, classes) for normalised patches (B, K, C, P, P)."""
        tokens = self.encode(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])  # (B, K, 64)
        return HeadOutput(self.classify(tokens.flatten(1)))
