"""A linear probe of the images, and near-duplicates of training images among the test images.

A probe is a linear layer on a frozen backbone. Its accuracy is what a trained model has to exceed.
"""

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

# Two photographs count as near-duplicates if the cosine similarity of their centred vectors is at
# least this. It was for most of 50 photographs of garments and copies of them that were re-encoded,
# shrunk or cropped by 4% (medians of 0.92 to 0.95), and for 7 of 3,781 different photographs.
MIN_SIMILARITY = 0.9
_CHUNK = 1024  # number of test images that are compared at a time


@dataclass(frozen=True)
class Probe:
    """Results of a linear layer on the test images.

    Attributes:
        predictions: (N,) predicted class indices.
        accuracy: accuracy of the predictions, from 0 to 1.
        copies: pairs (test path, training path) of near-duplicate images, see `near_duplicates`.
    """

    predictions: Tensor
    accuracy: float
    copies: tuple[tuple[str, str], ...]


def probe(recipe: Recipe, sets: Mapping[str, ImageSet[Any]], folder: Path) -> Probe:
    """Fit a linear layer on the frozen backbone of a recipe's model, and test it.

    Args:
        recipe: a recipe with `training.cache`.
        sets: images, as `train`, `val` and `test`.
        folder: folder for the features; if training has saved features there, they are reused.
    """
    model = initial_model(recipe, model_settings(recipe, sets["train"]))
    features = with_features(model, recipe, sets, folder)
    train, val, test = features["train"], features["val"], features["test"]
    classes, balance = len(train.classes), recipe.training.balance
    linear = fit_linear(labelled_vectors(train), labelled_vectors(val), classes, balance)
    predictions = linear(test.images.global_vectors[:, 0]).argmax(dim=1)
    return Probe(
        predictions=predictions,
        accuracy=float((predictions == test.labels).double().mean()),
        copies=near_duplicates(test.images, train.images, test.paths, train.paths),
    )


def near_duplicates(
    test: Features, train: Features, test_paths: tuple[str, ...], train_paths: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """Return pairs (test path, training path) of near-duplicate images.

    Each test image is in at most one pair, with the most similar training image. Mirrored copies
    are found if the features of mirrored training images are stored. Without paths, there are no
    pairs.

    Args:
        test: features of the test images.
        train: features of the training images.
        test_paths: a path per test image, or empty.
        train_paths: a path per training image, or empty.
    """
    if not test_paths or not train_paths:
        return ()
    centre = train.global_vectors[:, 0].float().mean(dim=0)
    references = F.normalize(train.global_vectors.float() - centre, dim=-1)  # (N, views, F)
    pairs = []
    for start in range(0, len(test), _CHUNK):
        chunk = test.global_vectors[start : start + _CHUNK, 0].float()
        vectors = F.normalize(chunk - centre, dim=-1)
        similarity = torch.einsum("mf,nvf->mnv", vectors, references).amax(dim=2)  # (M, N)
        max_similarity, nearest = similarity.max(dim=1)
        for index in (max_similarity >= MIN_SIMILARITY).nonzero().flatten().tolist():
            pairs.append((test_paths[start + index], train_paths[int(nearest[index])]))
    return tuple(pairs)
