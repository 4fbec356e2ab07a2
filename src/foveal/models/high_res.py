"""The high-resolution focus model: a thumbnail says where, patches at full resolution say what."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from foveal.detectors.score_map import CELL, ScoreMap, best_places, refined
from foveal.errors import UserError
from foveal.explanation import Look
from foveal.geometry import corners_px, from_px, snap
from foveal.large import LargeImages, PartView, View, WholeView
from foveal.models.focus_model import FocusModel
from foveal.models.image_model import Inputs
from foveal.models.patch_attention import PatchAttention
from foveal.models.patch_encoder import PatchEncoder


class Answer(NamedTuple):
    """All that one pass over B images found."""

    logits: Tensor  # (B, T, classes)
    keypoints: Tensor  # (B, K, 2)
    patches: Tensor  # (B, K, C, P, P), normalised
    weights: Tensor  # (B, T, K), how much each answer attends to each patch
    scores: Tensor | None = None  # (B, K), of the detector
    thumbnail: Tensor | None = None  # (B, C, h, w), normalised


class HighResFocusNet(FocusModel):
    """Scores the places of a thumbnail, cuts patches there at full resolution, and attends to them.

    Args:
        shrink: each pixel of the thumbnail is the mean of a square of this side in pixels.
        keypoints: number K of patches.
        patch_size: side of a patch in pixels.
        in_channels: channels of the images.
        num_classes: number of classes.
        tasks: number of answers; `forward` gives the first one.
        width: numbers in a patch's vector.
        heads: queries of each task.
        detector: output channels of the thumbnail's convolutions.
        encoder: output channels of a patch's convolutions.
        explore: in training, how large the noise on the scores is, as a multiple of Gumbel noise.
        jitter_px: in training, standard deviation in pixels of noise on the places.
        dropout: share of features dropped in training.
        inputs: what images the model expects.
    """

    name = "high-res"

    def __init__(
        self,
        shrink: int = 8,
        keypoints: int = 20,
        patch_size: int = 50,
        in_channels: int = 1,
        num_classes: int = 10,
        tasks: int = 1,
        width: int = 128,
        heads: int = 8,
        detector: Sequence[int] = (16, 24, 24),
        encoder: Sequence[int] = (16, 32, 64, 96),
        explore: float = 1.0,
        jitter_px: float = 0.0,
        dropout: float = 0.0,
        inputs: Inputs = Inputs(),
    ):
        super().__init__(in_channels, num_classes, inputs)
        if shrink < 1:
            raise UserError(f"Expected shrink from 1, but got {shrink}.")
        self.shrink, self.keypoints, self.patch_size = shrink, keypoints, patch_size
        self.explore, self.jitter_px = explore, jitter_px
        self.detector = ScoreMap(in_channels, round(patch_size / shrink), detector)
        self.encoder = PatchEncoder(in_channels, encoder, width)
        self.attention = PatchAttention(width, tasks, heads, num_classes, dropout)

    def find(self, images: Tensor) -> tuple[Tensor, None]:
        """Return keypoints (B, K, 2) for normalised images; slices have no scale."""
        return self._find(WholeView(images))[0], None

    def decide(self, images: Tensor, keypoints: Tensor, scales: Tensor | None = None) -> Look:
        """Classify from whole-pixel patches at the places nearest to the keypoints."""
        found = self._decide(WholeView(images), keypoints)
        return Look(found.logits[:, 0], found.keypoints, found.patches)

    def look(self, images: Tensor) -> Look:
        """Find places and decide."""
        found = self.answer(WholeView(images))
        return Look(found.logits[:, 0], found.keypoints, found.patches, thumbnail=found.thumbnail)

    def view(self, images: LargeImages, numbers: Tensor) -> View:
        """Return some of the large images as this model reads them."""
        return PartView(images, numbers, self.mean, self.std)

    def answer(self, view: View) -> Answer:
        """Find places in a batch of images, and answer from the patches there."""
        keypoints, scores, thumbnail = self._find(view)
        return self._decide(view, keypoints, scores)._replace(scores=scores, thumbnail=thumbnail)

    def _find(self, view: View) -> tuple[Tensor, Tensor, Tensor]:
        thumbnail = view.thumbnail(self.shrink)
        scores = self.detector(thumbnail)  # (B, h, w)
        noisy = scores.detach()
        if self.training and self.explore:
            noise = torch.empty_like(noisy).exponential_().log().neg()  # Gumbel's
            noisy = noisy + self.explore * noise
        places = best_places(noisy, self.keypoints)
        chosen = scores.flatten(1).gather(1, places)  # (B, K)
        cells = refined(scores.detach(), places)  # (B, K, 2)
        centres_px = (cells + 0.5) * CELL * self.shrink - 0.5
        if self.training and self.jitter_px:
            centres_px = centres_px + self.jitter_px * torch.randn_like(centres_px)
        return from_px(centres_px, view.size), chosen, thumbnail

    def _decide(self, view: View, keypoints: Tensor, scores: Tensor | None = None) -> Answer:
        places = snap(keypoints, self.patch_size, view.size)
        patches = view.crops(corners_px(places, self.patch_size, view.size), self.patch_size)
        vectors = self.encoder(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])  # (B, K, D)
        # Zero, with the gradient of the weights: the detector learns which patches to weigh more.
        extra = None if scores is None else scores - scores.detach()
        logits, weights = self.attention(vectors, places, extra)
        return Answer(logits, places, patches, weights)
