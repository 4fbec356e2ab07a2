"""What every high-resolution model is: scores of a thumbnail say where, patches there say what."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from foveal.detectors.score_map import CELL, best_places, refined
from foveal.errors import UserError, at_least_one
from foveal.explanation import Explanation
from foveal.geometry import Size, from_px
from foveal.images import LargeImages, PartView, View, WholeView
from foveal.models.focus_model import FocusModel
from foveal.models.image_model import Inputs
from foveal.models.modes import evaluation_mode

MARGIN = 2  # cells around a region that are seen with it


class Places(NamedTuple):
    """Where to look in B images."""

    keypoints: Tensor  # (B, K, 2)
    scores: Tensor  # (B, K)
    thumbnail: Tensor  # (B, C, h, w), normalised
    map: Tensor  # (B, h // 2, w // 2), the scores of all of the thumbnail


class Answer(NamedTuple):
    """What patches of B images told."""

    logits: Tensor  # (B, T, classes)
    keypoints: Tensor  # (B, K, 2), at whole pixels
    patches: Tensor  # (B, K, C, P, P), normalised
    weights: Tensor  # (B, T, K), how much each task attends to each patch


class LargeFocusModel(FocusModel, ABC):
    """A focus model that reads images in part: a thumbnail, and patches at full resolution.

    A subclass is final and implements what is computed from pixels: `score`, `score_coarsely` and
    `read`. What is read where, and which places are taken, is the same for all.

    Args:
        in_channels: channels of the images.
        num_classes: number of classes.
        inputs: what images the model expects.
        shrink: each pixel of the thumbnail is the mean of a square of this side in pixels.
        keypoints: number K of patches.
        patch_size: side of a patch in pixels.
        tasks: names of what is answered; `forward` and `explain` answer the first.
        regions: number of regions that are looked into in larger images; 0 for no coarser
            thumbnail, whatever the size.
        thumbnail_side: greatest side in pixels of a square image's thumbnail.
        explore: in training, of the noise on the scores, as a multiple of Gumbel's.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        inputs: Inputs,
        *,
        shrink: int,
        keypoints: int,
        patch_size: int,
        tasks: Sequence[str],
        regions: int,
        thumbnail_side: int,
        explore: float = 0.0,
    ):
        super().__init__(in_channels, num_classes, inputs)
        self.shrink, self.keypoints, self.patch_size = shrink, keypoints, patch_size
        self.tasks = tuple(tasks)
        self.regions, self.thumbnail_side, self.explore = regions, thumbnail_side, explore

    @abstractmethod
    def score(self, thumbnail: Tensor) -> Tensor:
        """Return how good it is to look at each place (B, h // 2, w // 2).

        Args:
            thumbnail: (B, C, h, w), normalised, of images or of regions.
        """

    @abstractmethod
    def score_coarsely(self, thumbnail: Tensor) -> Tensor:
        """Return how good it is to look for places around each place (B, h // 2, w // 2).

        Args:
            thumbnail: (B, C, h, w), normalised, coarser than that of `score`.
        """

    @abstractmethod
    def read(
        self, patches: Tensor, keypoints: Tensor, scores: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Answer all tasks from patches.

        Args:
            patches: (B, K, C, P, P), normalised.
            keypoints: (B, K, 2), at whole pixels.
            scores: (B, K), zeros that take the gradient of the patches' weights, or None.

        Returns:
            Logits (B, T, classes), and the patches' weights (B, T, K).
        """

    def find(self, images: Tensor) -> tuple[Tensor, None]:
        """Return keypoints (B, K, 2) for normalised images; slices have no scale."""
        return self.places(self._whole(images)).keypoints, None

    def decide(
        self, images: Tensor, keypoints: Tensor, scales: Tensor | None = None
    ) -> Explanation:
        """Classify from whole-pixel patches at the places nearest to the keypoints.

        The thumbnail that comes with them says where; it changes no answer.
        """
        view = self._whole(images)
        thumbnail = view.thumbnail(self.shrink * self.factor(view.size))
        return _observed(self.answer(view, keypoints), thumbnail, view.size)

    def observe(self, images: Tensor) -> Explanation:
        """Find places in normalised images (B, C, H, W), then decide from the patches there."""
        return self.observe_view(self._whole(images))

    def observe_view(self, view: View) -> Explanation:
        """Find places in a batch of images, however large, then decide from the patches there."""
        places = self.places(view)
        answer = self.answer(view, places.keypoints, places.scores)
        return _observed(answer, places.thumbnail, view.size)

    @torch.no_grad()
    def explain_large(
        self, images: LargeImages, numbers: Tensor | None = None, batch_size: int = 16
    ) -> Explanation:
        """Return what the model looks at in large images, of which it reads no more than that.

        Args:
            images: what reads them.
            numbers: (B,) of some of them; all if not given.
            batch_size: images in one forward pass; bounds the memory.
        """
        batch_size = at_least_one("batch_size", batch_size)
        numbers = torch.arange(len(images)) if numbers is None else numbers
        with evaluation_mode(self):
            parts = [
                self.explained(self.observe_view(self.view(images, part)))
                for part in numbers.split(batch_size)
            ]
        return Explanation.concatenate(parts)

    def view(self, images: LargeImages, numbers: Tensor) -> View:
        """Return some of the large images, by their numbers (B,), as this model reads them."""
        return PartView(images, numbers, self.mean, self.std)

    def places(self, view: View) -> Places:
        """Return where to look.

        Raises:
            UserError: the images are too small for the thumbnail or for K places.
        """
        factor = self.factor(view.size)
        _check_size(view.size, self.shrink * factor * CELL)
        thumbnail = view.thumbnail(self.shrink * factor)  # (B, C, h, w)
        if factor == 1:
            scores = self.score(thumbnail)  # (B, h / 2, w / 2)
            keypoints, chosen = self._chosen(scores[:, None], None, 0, view.size)
            return Places(keypoints, chosen, thumbnail, scores)
        scores = self.score_coarsely(thumbnail)
        ranked = scores.flatten(1)
        best = ranked.topk(min(self.regions, ranked.shape[1]), dim=1)  # (B, R)
        width = scores.shape[-1]
        cells = torch.stack([best.indices % width, best.indices // width], dim=-1)
        corners = (cells * factor - MARGIN) * (CELL * self.shrink)  # (B, R, 2) in pixels
        side = (factor + 2 * MARGIN) * CELL * self.shrink
        regions = view.crops(corners, side, self.shrink)  # (B, R, C, r, r)
        fine = self.score(regions.flatten(0, 1)).unflatten(0, regions.shape[:2])
        fine = fine + (best.values - best.values.detach())[..., None, None]
        keypoints, chosen = self._chosen(fine, corners, MARGIN, view.size)
        return Places(keypoints, chosen, thumbnail, scores)

    def factor(self, size: Size) -> int:
        """Return how many times coarser than `shrink` the thumbnail of images of a size is.

        Of the factors that make it small enough, one up to half as large again that leaves the
        fewest pixels unseen at the right and lower edge.
        """
        if not self.regions:
            return 1
        area = size[0] * size[1] / (self.shrink * self.thumbnail_side) ** 2
        least = max(1, -int(-(area**0.5) // 1))
        choices = range(least, least + least // 2 + 1)
        return min(choices, key=lambda f: max(side % (f * CELL * self.shrink) for side in size))

    def answer(self, view: View, keypoints: Tensor, scores: Tensor | None = None) -> Answer:
        """Answer all tasks from the whole-pixel patches nearest to keypoints (B, K, 2).

        Args:
            view: the images.
            keypoints: in grid units.
            scores: (B, K) of the detector; they change no answer, but get the gradient of the
                patches' weights.

        Raises:
            UserError: the images are smaller than a patch.
        """
        patches, whole = view.patches(keypoints, self.patch_size)
        nothing = None if scores is None else scores - scores.detach()
        logits, weights = self.read(patches, whole, nothing)
        return Answer(logits, whole, patches, weights)

    def _chosen(
        self, scores: Tensor, corners: Tensor | None, margin: int, size: Size
    ) -> tuple[Tensor, Tensor]:
        """Return keypoints (B, K, 2) and their scores (B, K) from maps (B, R, h, w) at corners."""
        drawn = scores.detach()
        if self.training and self.explore:
            drawn = drawn - self.explore * torch.empty_like(drawn).exponential_().log()
        numbers = best_places(drawn, self.keypoints, margin)
        cells = refined(scores.detach(), numbers)
        places_px = (cells + 0.5) * (CELL * self.shrink) - 0.5
        if corners is not None:
            whose = numbers // (scores.shape[-2] * scores.shape[-1])
            places_px = places_px + corners.gather(1, whose[..., None].expand(-1, -1, 2))
        return from_px(places_px, size), scores.flatten(1).gather(1, numbers)

    def _whole(self, images: Tensor) -> View:
        return WholeView(images, -self.mean / self.std)


def _observed(found: Answer, thumbnail: Tensor, size: Size) -> Explanation:
    """Return the main task's answer, with a thumbnail in the place of images of a size."""
    return Explanation(
        thumbnail,
        found.logits[:, 0],
        found.keypoints,
        found.patches,
        thumbnail=thumbnail,
        weights=found.weights[:, 0],
        extent=size,
    )


def _check_size(size: Size, least: int) -> None:
    if min(size) < least:
        raise UserError(
            f"Expected images of at least {least}x{least} pixels, but got {size[0]}x{size[1]}. "
            "Resize them or choose a smaller shrink."
        )
