"""What attention maps are worth: the accuracy with another image's maps, or with none."""

from typing import NamedTuple

import torch
from torch import Tensor

from foveal.data import ImageSet
from foveal.metrics.accuracy import share_equal
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
    `uniform`: at every depth by the map's own mean, the same at every place. Where either is as
    good as the accuracy, the maps explain nothing.

    Args:
        model: an attention model; its mode and device stay as they are.
        test: at least two labelled images.
        seed: of the exchange; the caller's random numbers stay what they were.
        batch_size: images in one forward pass.

    Raises:
        UserError: there is only one image.
    """
    others = derangement(len(test), seed)
    maps = _maps(model, test.images, batch_size)
    uniform = [weights.mean(dim=(1, 2), keepdim=True).expand_as(weights) for weights in maps]
    return MapsWorth(
        *(
            share_equal(_predict(model, test.images, given, batch_size), test.labels)
            for given in ([weights[others] for weights in maps], uniform)
        )
    )


def _maps(model: AttentionModel, images: Tensor, batch_size: int) -> list[Tensor]:
    """Return each depth's maps (N, h, w) of uint8 images (N, C, H, W)."""
    with evaluating(model):
        parts = [_attend(model, batch)[1] for batch in images.split(batch_size)]
    return [torch.cat([weights.cpu() for weights in depth]) for depth in zip(*parts, strict=True)]


def _predict(model: AttentionModel, images: Tensor, maps: list[Tensor], batch_size: int) -> Tensor:
    """Return the classes (N,) named for uint8 images (N, C, H, W) weighed by given maps."""
    predictions = []
    with evaluating(model):
        for number, batch in enumerate(images.split(batch_size)):
            local, _ = _attend(model, batch)
            part = slice(number * batch_size, number * batch_size + len(batch))
            given = [weights[part].to(model.mean.device) for weights in maps]
            predictions.append(model.decide(local, given).argmax(dim=1).cpu())
    return torch.cat(predictions)


def _attend(model: AttentionModel, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    return model.attend((as_floats(model, images) - model.mean) / model.std)
