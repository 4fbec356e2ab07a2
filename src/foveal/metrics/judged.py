"""Sufficiency and necessity: what an independent judge makes of the evidence, and without it."""

from typing import NamedTuple

import torch
from torch import Tensor

from foveal.data import ImageSet
from foveal.data.images import new_labels
from foveal.data.names import some_names
from foveal.errors import UserError
from foveal.metrics.accuracy import share_equal
from foveal.metrics.classes import classes_of, match_classes
from foveal.metrics.looks import as_floats, evaluating
from foveal.models.classifier import ImageClassifier


class Judged(NamedTuple):
    """What the judge says; shares from 0 to 1."""

    sufficiency: float  # its accuracy on the evidence alone
    sufficiency_agreement: float  # how often it then answers as the model does
    necessity: float  # how much of its accuracy goes when the evidence is greyed


def judged(
    judge: ImageClassifier,
    test: ImageSet,
    evidence: Tensor,
    answers: Tensor,
    *,
    batch_size: int = 500,
) -> Judged:
    """Ask a judge that has not seen the model what the model's evidence shows.

    The judge was trained on images with random regions greyed out, at all ratios, so that a
    greyed image is not foreign to it (EVAL-X of Jethani et al. 2021, "Have we learned to
    explain?"). Where the model knows the class but its evidence does not show it to the judge, the
    evidence encodes the answer and does not explain it.

    Args:
        judge: a classifier trained with `augment.hide`; grey is its mean of the images.
        test: N labelled images; the judge's classes are matched with theirs by name.
        evidence: (N, H, W) booleans.
        answers: (N,) the model's classes, as indices into those of `test`.
        batch_size: images in one forward pass.

    Raises:
        UserError: images of a class that the judge does not know.
    """
    labels, answers = _in_terms_of(judge, test, answers)
    nothing = torch.zeros_like(evidence)
    shown = _predict(judge, test.images, ~evidence, batch_size)
    hidden = _predict(judge, test.images, evidence, batch_size)
    whole = _predict(judge, test.images, nothing, batch_size)
    return Judged(
        share_equal(shown, labels),
        share_equal(shown, answers),
        share_equal(whole, labels) - share_equal(hidden, labels),
    )


def _in_terms_of(judge: ImageClassifier, test: ImageSet, answers: Tensor) -> tuple[Tensor, Tensor]:
    """Return labels and answers as indices of the judge's classes, answers of others as -1."""
    if not test.classes:
        return test.labels, answers
    known = classes_of(judge, f"the judge ({judge.name})")
    indices = match_classes(known, test.name, test.classes)
    labels = new_labels(test.labels, indices)
    if int(labels.min()) < 0:
        unknown = [test.classes[int(label)] for label in test.labels[labels < 0].unique()]
        raise UserError(
            f"{known.model} does not know the classes {some_names(unknown)} of {test.name}."
        )
    return labels, new_labels(answers, indices)


def _predict(judge: ImageClassifier, images: Tensor, greyed: Tensor, batch_size: int) -> Tensor:
    """Return the judge's classes (N,) for uint8 images with pixels greyed."""
    found = []
    with evaluating(judge):
        for batch, grey in zip(images.split(batch_size), greyed.split(batch_size), strict=True):
            seen = as_floats(judge, batch)
            seen = torch.where(grey[:, None].to(seen.device), judge.mean, seen)
            found.append(judge(seen).argmax(dim=1).cpu())
    return torch.cat(found)
