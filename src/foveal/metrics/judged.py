"""Sufficiency and necessity: predictions of a judge with and without the evidence.

A judge is a classifier that is trained independently of the explained model, on images with regions
greyed out, to tell how much evidence a region contains.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from foveal.datasets import ImageSet
from foveal.datasets.images import new_labels
from foveal.datasets.names import some_names
from foveal.explanation import Explanation
from foveal.foundation.columns import Column
from foveal.foundation.errors import UserError
from foveal.metrics.classes import classes_of, match_classes
from foveal.metrics.evidence import evidence_masks
from foveal.metrics.metric import ExplanationMetric, Metric
from foveal.metrics.observing import as_floats, evaluating
from foveal.metrics.subject import Explained, Given, Subject
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel

FRACTIONS = (0.05, 0.1, 0.2, 0.5)  # fractions of the pixels that are used as a map's evidence
TABLE_FRACTION = 0.1  # the fraction whose figures are shown in tables


class Judged(NamedTuple):
    """Results of a judge; fractions from 0 to 1."""

    sufficiency: float  # accuracy of the judge given only the evidence
    sufficiency_agreement: float  # fraction of these predictions that equal the model's
    necessity: float  # drop in the judge's accuracy when the evidence is greyed out


def judged(
    judge: ImageModel,
    test: ImageSet,
    evidence: Tensor,
    answers: Tensor,
    *,
    batch_size: int = 500,
) -> Judged:
    """Return how well an independent judge classifies images from the model's evidence.

    The judge was trained on images with random regions of any size greyed out, so that greyed
    images are within its training distribution (EVAL-X, Jethani et al. 2021, "Have we learned to
    explain?"). If the model predicts the class, but the judge cannot predict it from the evidence,
    then the evidence encodes the prediction instead of explaining it.

    Args:
        judge: a classifier trained with `augment.hide`; grey is its mean pixel.
        test: N labelled images; their classes are matched with the judge's by name.
        evidence: (N, H, W) booleans, the pixels that the judge is shown.
        answers: (N,) the model's predictions, as indices of the classes of `test`.
        batch_size: images per forward pass.

    Raises:
        UserError: an image belongs to a class that the judge does not have.
    """
    (result,) = _judge_evidence(judge, test, [evidence], answers, batch_size)
    means = {name: float(values.mean()) for name, values in result.items()}
    return Judged(**means)


def judged_explanation(
    judge: ImageModel, test: ImageSet, explanation: Explanation, batch_size: int = 500
) -> dict[str, Tensor]:
    """Return the fields of `Judged` for an explanation, as values (B,) per image.

    For maps there is one result for each of `FRACTIONS`: the evidence is this fraction of the
    pixels, the hottest ones, and the key ends with the fraction, as in `sufficiency_at_5%`.

    Args:
        judge: a classifier trained with `augment.hide`.
        test: the B explained images, with labels.
        explanation: an explanation with patches or maps.
        batch_size: images per forward pass.

    Raises:
        UserError: an image belongs to a class that the judge does not have.
    """
    if explanation.maps is None:
        masks = {"": explanation.evidence}
    else:
        masks = {_suffix(f): explanation.top_evidence(f) for f in FRACTIONS}
    results = _judge_evidence(
        judge, test, list(masks.values()), explanation.predictions, batch_size
    )
    return {
        f"{name}{suffix}": values
        for suffix, result in zip(masks, results, strict=True)
        for name, values in result.items()
    }


def at_top(row: Mapping[str, object]) -> dict[str, object]:
    """Return the figures of an explanation as a row of a table.

    A map has figures at several fractions of the pixels, under keys with a suffix. Those at
    `TABLE_FRACTION` are copied to keys without a suffix, where the row of patches has its figures.
    """
    suffix = _suffix(TABLE_FRACTION)
    copied = {key.removesuffix(suffix): row[key] for key in row if key.endswith(suffix)}
    return {"evidence_fraction": TABLE_FRACTION, **row, **copied}


def _suffix(fraction: float) -> str:
    """Return the end of the keys of a map's figures at a fraction of the pixels."""
    return f"_at_{fraction:.0%}"


def _judge_evidence(
    judge: ImageModel,
    test: ImageSet,
    masks: list[Tensor],
    predictions: Tensor,
    batch_size: int,
) -> Iterator[dict[str, Tensor]]:
    """Yield for each mask (N, H, W) of evidence the fields of `Judged` as values (N,) per image."""
    labels, predictions = _as_judge_classes(judge, test, predictions)
    none_greyed = torch.zeros_like(masks[0])
    correct_in_full = (_predict(judge, test.images, none_greyed, batch_size) == labels).double()
    for mask in masks:
        on_evidence = _predict(judge, test.images, ~mask, batch_size)
        without_evidence = _predict(judge, test.images, mask, batch_size)
        yield {
            "sufficiency": (on_evidence == labels).double(),
            "sufficiency_agreement": (on_evidence == predictions).double(),
            "necessity": correct_in_full - (without_evidence == labels).double(),
        }


def _as_judge_classes(
    judge: ImageModel, test: ImageSet, predictions: Tensor
) -> tuple[Tensor, Tensor]:
    """Return labels and predictions as indices of the judge's classes.

    A prediction of a class that the judge does not have becomes -1.
    """
    if not test.classes:
        return test.labels, predictions
    classes = classes_of(judge, f"the judge ({judge.name})")
    indices = match_classes(classes, test.name, test.classes)
    labels = new_labels(test.labels, indices)
    if int(labels.min()) < 0:
        unknown = [test.classes[int(label)] for label in test.labels[labels < 0].unique()]
        raise UserError(
            f"{classes.model} does not have the classes {some_names(unknown)} of {test.name}."
        )
    return labels, new_labels(predictions, indices)


def _predict(judge: ImageModel, images: Tensor, is_greyed: Tensor, batch_size: int) -> Tensor:
    """Return the judge's predictions (N,) for uint8 images with the marked pixels greyed out."""
    predictions = []
    with evaluating(judge):
        batches = zip(images.split(batch_size), is_greyed.split(batch_size), strict=True)
        for batch, is_grey in batches:
            floats = as_floats(judge, batch)
            masked = torch.where(is_grey[:, None].to(floats.device), judge.mean, floats)
            predictions.append(judge(masked).argmax(dim=1).cpu())
    return torch.cat(predictions)


COLUMNS = (
    Column(
        "sufficiency",
        "sufficiency",
        "{:.1%}",
        "accuracy of an independent judge on the evidence, with all other pixels grey",
        "higher",
    ),
    Column(
        "sufficiency_agreement",
        "agreement",
        "{:.1%}",
        "how often the judge, shown only the evidence, makes the same prediction as the model",
        "higher",
    ),
    Column(
        "necessity",
        "necessity",
        "{:.1%}",
        "drop of the judge's accuracy when the evidence is greyed out",
        "higher",
    ),
)
MAP_COLUMNS = tuple(
    replace(
        column,
        key=f"{column.key}{_suffix(fraction)}",
        heading=f"{column.heading} at {fraction:.0%}",
        meaning=f"{column.meaning}; the evidence is {fraction:.0%} of the pixels",
        listed=False,
    )
    for fraction in FRACTIONS
    for column in COLUMNS
)


def _measure_patches(subject: Subject) -> dict[str, float]:
    """Return the means over all images of the fields of `Judged` for a model with keypoints."""
    assert subject.judge is not None
    evidence = evidence_masks(subject.observed, subject.batch_size)
    predictions = subject.observed.logits.argmax(dim=1)
    result = judged(
        subject.judge, subject.test, evidence, predictions, batch_size=subject.batch_size
    )
    return result._asdict()


def _measure_maps(subject: Subject) -> dict[str, float]:
    """Return the means over all images of the fields of `Judged` for a model with maps."""
    assert subject.judge is not None
    values_by_key: dict[str, list[Tensor]] = {}
    for batch in subject.test.batches(subject.batch_size):
        images = as_floats(subject.model, batch.images)
        explanation = subject.model.explain(images, subject.batch_size)
        result = judged_explanation(subject.judge, batch, explanation, subject.batch_size)
        for key, values in result.items():
            values_by_key.setdefault(key, []).append(values)
    return {key: float(torch.cat(values).mean()) for key, values in values_by_key.items()}


def _measure_explanation(batch: Explained) -> dict[str, Tensor]:
    assert batch.judge is not None
    return judged_explanation(batch.judge, batch.test, batch.explanation)


JUDGED_PATCHES = Metric(
    "judged_patches",
    _measure_patches,
    COLUMNS,
    needs=frozenset({Ability.CLASSES, Ability.KEYPOINTS, Given.JUDGE}),
)
JUDGED_MAPS = Metric(
    "judged_maps",
    _measure_maps,
    MAP_COLUMNS,
    needs=frozenset({Ability.CLASSES, Ability.MAPS, Given.JUDGE}),
)
JUDGED = ExplanationMetric(
    "judged",
    _measure_explanation,
    (*COLUMNS, *MAP_COLUMNS),
    needs=frozenset({Given.JUDGE}),
)
