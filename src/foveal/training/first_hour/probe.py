"""Linear layer on a frozen backbone, and near-duplicates of training images in the test images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.datasets import ImageSet
from foveal.training.feature_files import with_features
from foveal.training.features import Features
from foveal.training.initial_model import initial_model
from foveal.training.linear import fit_linear, labelled_vectors
from foveal.training.sets import model_settings
from foveal.training.settings import Recipe

# Cosine similarity of two photographs' centred vectors from which they count as near-duplicates.
# Most of 50 photographs of garments that were encoded again, shrunk or cropped by 4% exceed it
# (medians of 0.92 to 0.95); of 3,781 different photographs, 7 do too.
MIN_SIMILARITY = 0.9
_CHUNK = 1024  # test images compared at a time


@dataclass(frozen=True)
class Probe:
    """Results of a linear layer on the test images.

    Attributes:
        predictions: (N,) predicted class indices.
        accuracy: their accuracy, from 0 to 1.
        copies: pairs (test path, training path) of near-duplicate images.
    """

    predictions: Tensor
    accuracy: float
    copies: tuple[tuple[str, str], ...]


def probe(recipe: Recipe, sets: Mapping[str, ImageSet[Any]], folder: Path) -> Probe:
    """Fit a linear layer on the frozen backbone and test it.

    Args:
        recipe: a recipe with `training.cache`.
        sets: `train`, `val` and `test`.
        folder: folder for features; those saved there by training are reused.
    """
    model = initial_model(recipe, model_settings(recipe, sets["train"]))
    features = with_features(model, recipe, sets, folder)
    train, val, test = features["train"], features["val"], features["test"]
    classes, balance = len(train.classes), recipe.training.balance
    linear = fit_linear(labelled_vectors(train), labelled_vectors(val), classes, balance)
    predictions = linear(test.images.whole[:, 0]).argmax(dim=1)
    return Probe(
        predictions,
        float((predictions == test.labels).double().mean()),
        near_duplicates(test.images, train.images, test.paths, train.paths),
    )


def near_duplicates(
    test: Features, train: Features, test_paths: tuple[str, ...], train_paths: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """Return pairs (test path, training path) of near-duplicate images.

    Args:
        test: features of the test images.
        train: features of the training images.
        test_paths: a path per test image, or empty.
        train_paths: a path per training image, or empty.
    """
    if not test_paths or not train_paths:
        return ()
    middle = train.whole[:, 0].float().mean(dim=0)
    references = F.normalize(train.whole.float() - middle, dim=-1)  # (N, views, F)
    pairs = []
    for start in range(0, len(test), _CHUNK):
        vectors = F.normalize(test.whole[start : start + _CHUNK, 0].float() - middle, dim=-1)
        similarity = torch.einsum("mf,nvf->mnv", vectors, references).amax(dim=2)
        best = similarity.max(dim=1)
        for row in (best.values >= MIN_SIMILARITY).nonzero().flatten().tolist():
            pairs.append((test_paths[start + row], train_paths[int(best.indices[row])]))
    return tuple(pairs)
