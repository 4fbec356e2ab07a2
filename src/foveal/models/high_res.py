"""The high-resolution focus model: a thumbnail says where, patches at full resolution say what."""

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from foveal.arguments import Length, Range, checked
from foveal.detectors.score_map import CELL, ScoreMap
from foveal.errors import UserError
from foveal.models.image_model import Inputs
from foveal.models.large_model import LargeFocusModel
from foveal.models.patch_attention import PatchAttention
from foveal.models.patch_encoder import PatchEncoder
from foveal.ranges import Channels, Classes, Fraction, Keypoints, PatchSize, Width, Widths


class HighResFocusNet(LargeFocusModel):
    """Scores the places of a thumbnail, cuts patches there at full resolution, attends to those.

    What it costs depends on the thumbnail and on K, not on the image: where a thumbnail would have
    more than `thumbnail_side` squared pixels, a coarser one takes its place, which says in which
    `regions` to look for patches. (Those grow with the image, but are small beside the thumbnail
    up to some 20,000 pixels a side.) The answer is made from the patches and
    their positions alone. In training the noise of Gumbel on the scores draws K places without
    replacement, by their chances (Kool et al. 2019, "Stochastic beams and where to find them").

    Args:
        shrink: each pixel of the thumbnail is the mean of a square of this side in pixels.
        keypoints: number K of patches.
        patch_size: side of a patch in pixels.
        in_channels: channels of the images.
        num_classes: number of classes.
        tasks: names of what is answered; `forward` and `explain` answer the first.
        width: numbers in a patch's vector.
        heads: learned questions of each task.
        detector_widths: output channels of the thumbnail's convolutions.
        encoder_widths: output channels of a patch's convolutions.
        regions: number of regions that are looked into in larger images; 0 for no coarser
            thumbnail, whatever the size.
        thumbnail_side: greatest side in pixels of a square image's thumbnail.
        explore: in training, of the noise on the scores, as a multiple of Gumbel's.
        dropout: share of features dropped in training.
        inputs: what images the model expects.

    Raises:
        UserError: an argument is not what is listed here.

    Example:
        >>> import torch
        >>> model = HighResFocusNet(shrink=8, keypoints=4, patch_size=32)
        >>> explanation = model.explain(torch.rand(1, 1, 256, 320))
        >>> tuple(explanation.thumbnail.shape), tuple(explanation.patches.shape)
        ((1, 1, 32, 40), (1, 4, 1, 32, 32))
    """

    name = "high-res"

    @checked
    def __init__(
        self,
        shrink: Annotated[int, Range(1, 1024)] = 8,
        keypoints: Keypoints = 20,
        patch_size: PatchSize = 50,
        in_channels: Channels = 1,
        num_classes: Classes = 10,
        tasks: Annotated[Sequence[str], Length(1, 64)] = ("class",),
        width: Width = 128,
        heads: Annotated[int, Range(1, 64)] = 8,
        detector_widths: Annotated[Widths, Length(2, 64)] = (8, 16, 24),
        encoder_widths: Widths = (16, 32, 64, 96),
        regions: Annotated[int, Range(0, 1024)] = 0,
        thumbnail_side: Annotated[int, Range(CELL, 4096)] = 192,
        explore: Annotated[float, Range(0, 1000)] = 1.0,
        dropout: Fraction = 0.0,
        inputs: Inputs = Inputs(),
    ):
        super().__init__(
            in_channels,
            num_classes,
            inputs,
            shrink=shrink,
            keypoints=keypoints,
            patch_size=patch_size,
            tasks=tasks,
            regions=regions,
            thumbnail_side=thumbnail_side,
            explore=explore,
        )
        window = max(CELL, round(patch_size / shrink))
        self.detector = ScoreMap(in_channels, window, detector_widths)
        self.coarse = ScoreMap(in_channels, 2 * CELL, detector_widths) if regions else None
        self.encoder = PatchEncoder(in_channels, encoder_widths, width)
        self.attention = PatchAttention(width, len(tasks), heads, num_classes, dropout)

    def score(self, thumbnail: Tensor) -> Tensor:
        """Return scores (B, h // 2, w // 2) of a normalised thumbnail (B, C, h, w)."""
        return self.detector(thumbnail)

    def score_coarsely(self, thumbnail: Tensor) -> Tensor:
        """Return scores (B, h // 2, w // 2) of a coarser normalised thumbnail (B, C, h, w).

        Raises:
            UserError: the model has no regions.
        """
        if self.coarse is None:
            raise UserError("Expected a model with regions, but this one has none.")
        return self.coarse(thumbnail)

    def read(
        self, patches: Tensor, keypoints: Tensor, scores: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Encode patches (B, K, C, P, P), each by itself, and attend to them.

        Args:
            patches: normalised.
            keypoints: (B, K, 2), at whole pixels.
            scores: (B, K), zeros that take the gradient of the patches' weights, or None.
        """
        vectors = self.encoder(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])  # (B, K, D)
        return self.attention(vectors, keypoints, scores)
