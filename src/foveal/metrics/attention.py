"""What attention maps are worth: the accuracy with another image's maps, or with none."""

from typing import NamedTuple

import torch
from torch import Tensor

from foveal.data import ImageSet
from foveal.errors import UserError
from foveal.metrics.looks import as_floats, evaluating
from foveal.metrics.random_focus import derangement
from foveal.models.attention_model import AttentionModel


class MapsWorth(NamedTuple):
    """Accuracies of a model whose maps are not its own; shares from 0 to 1."""

    shuffled_attention_accuracy: float
    uniform_attention_accuracy: float


def maps_worth(
    model: AttentionModel, test: ImageSet, seed: int = 0, *, batch_size: int = 500
) -> MapsWorth:
    """Return the accuracy with each image's maps replaced, its features kept.

    `shuffled`: by those of another random image; each lends its maps to exactly one other.
    Photographs exchange them with others of their size, and one alone of its size with none.
    `uniform`: at every depth by the map's own mean, the same at every place. Where either is as
    good as the accuracy, the maps explain nothing.

    Args:
        model: an attention model; its mode and device stay as they are.
        test: at least two labelled images.
        seed: of the exchange; the caller's random numbers stay what they were.
        batch_size: images in one forward pass.

    Raises:
        UserError: no two images are of one size.
    """
    shuffled = uniform = exchanged = 0
    for part in test.by_size():
        maps = _maps(model, part.images, batch_size)
        means = [weights.mean(dim=(1, 2), keepdim=True).expand_as(weights) for weights in maps]
        uniform += _right(model, part, means, batch_size)
        if len(part) > 1:
            others = derangement(len(part), seed)
            shuffled += _right(model, part, [weights[others] for weights in maps], batch_size)
            exchanged += len(part)
    if not exchanged:
        raise UserError("Expected at least 2 images of one size, to exchange their maps.")
    return MapsWorth(shuffled / exchanged, uniform / len(test))


def _maps(model: AttentionModel, images: Tensor, batch_size: int) -> list[Tensor]:
    """Return each depth's maps (N, h, w) of uint8 images (N, C, H, W)."""
    with evaluating(model):
        parts = [_attend(model, batch)[1] for batch in images.split(batch_size)]
    return [torch.cat([weights.cpu() for weights in depth]) for depth in zip(*parts, strict=True)]


def _right(model: AttentionModel, test: ImageSet, maps: list[Tensor], batch_size: int) -> int:
    """Return how many images of one size are named right, weighed by given maps."""
    right = 0
    with evaluating(model):
        for part in torch.arange(len(test)).split(batch_size):
            local, _ = _attend(model, test.images[part])
            given = [weights[part].to(model.mean.device) for weights in maps]
            predictions = model.decide(local, given).argmax(dim=1).cpu()
            right += int((predictions == test.labels[part]).sum())
    return right


def _attend(model: AttentionModel, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    return model.attend((as_floats(model, images) - model.mean) / model.std)
