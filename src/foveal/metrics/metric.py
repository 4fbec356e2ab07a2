"""Declarations of metrics: measurement, requirements and columns.

A metric has one or several columns. A figure is the value of a metric in one of its columns, such
as an accuracy of 0.98. A metric of models is measured on a subject, which is a model with its data;
a metric of explanations is measured on batches of explained images.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from torch import Tensor

from foveal.foundation.columns import Column
from foveal.metrics.subject import Explained, Need, Subject

Input = TypeVar("Input")  # what `measure` receives: a subject, or a batch of explained images
Figure = TypeVar("Figure")  # what it returns for a column: a number, or values (B,) per image
SAMPLE = 200  # number of images for metrics that require many passes


class About(Enum):
    """The subject matter of a metric, by which tables order their columns.

    A metric describes the predictions of a model, its explanations, or their cost.
    """

    PREDICTION = 0
    EXPLANATION = 1
    COST = 2


@dataclass(frozen=True)
class Measurement(Generic[Input, Figure]):
    """Common fields of metrics of models and of metrics of explanations.

    Attributes:
        name: key in the registry.
        measure: function from a subject or a batch to the figures, by the keys of their columns.
        columns: columns of the figures, in their order.
        needs: requirements; the metric is skipped unless all are met.
        about: what the metric describes.
        sample: number of images to measure, if all images would require too many passes; None to
            measure all.
    """

    name: str
    measure: Callable[[Input], Mapping[str, Figure]]
    columns: tuple[Column, ...]
    needs: frozenset[Need] = frozenset()
    about: About = About.EXPLANATION
    sample: int | None = None


@dataclass(frozen=True)
class Metric(Measurement[Subject, float]):
    """A metric of a model on a dataset, which `evaluate` measures.

    `measure` omits figures that cannot be measured. A metric with a `sample` is measured only
    by `compare`.
    """


def mean_ignoring_nan(values: Tensor) -> float:
    """Return the mean of values (N,), ignoring NaN; NaN if all are NaN."""
    return float(values.nanmean())


@dataclass(frozen=True)
class ExplanationMetric(Measurement[Explained, Tensor]):
    """A metric of explanations by any method, which `compare` measures batch by batch.

    `measure` returns values (B,) per image, NaN where they are undefined. If there is a `sample`,
    no further batch is measured after that many images.

    Attributes:
        pool: function from the values (N,) of all images to the figure, or to NaN, which omits the
            figure.
    """

    pool: Callable[[Tensor], float] = mean_ignoring_nan
