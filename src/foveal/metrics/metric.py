"""Declarations of metrics: measurement, requirements and columns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from torch import Tensor

from foveal.foundation.columns import Column
from foveal.metrics.subject import Explained, Need, Subject

Input = TypeVar("Input")
Figure = TypeVar("Figure")
SAMPLE = 200  # images for metrics that require many passes


class About(Enum):
    """Subject of a metric; tables list the columns in this order."""

    PREDICTION = 0
    EXPLANATION = 1
    COST = 2


@dataclass(frozen=True)
class Measurement(Generic[Input, Figure]):
    """Common fields of metrics of models and of metrics of explanations.

    Attributes:
        name: key in the registry.
        measure: subject or batch -> value of each column.
        columns: columns of the figures, in their order.
        needs: requirements; the metric is skipped unless all are met.
        about: what the metric describes.
        sample: number of images to measure, if it requires too many passes for all.
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

    `measure` returns values (B,), NaN where undefined. After `sample` images no further batch is
    measured.

    Attributes:
        pool: values (N,) of all images -> figure; NaN to omit it.
    """

    pool: Callable[[Tensor], float] = mean_ignoring_nan
