"""Declarations of metrics: measurement, requirements and columns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from foveal.foundation.columns import Column
from foveal.metrics.subject import Explained, Need, Subject

SAMPLE = 200  # images for metrics that require many passes


class About(Enum):
    """Subject of a metric; tables list the columns in this order."""

    PREDICTION = 0
    EXPLANATION = 1
    COST = 2


@dataclass(frozen=True)
class Metric:
    """A metric of a model on a dataset, which `evaluate` measures.

    Attributes:
        name: key in `METRICS`.
        measure: subject -> figure of each column, without those that cannot be measured.
        columns: columns of the figures, in their order.
        needs: requirements; the metric is skipped unless all are met.
        about: what the metric describes.
        sample: number of images to measure, if it requires too many passes for all. Such a metric
            is measured only by `compare`.
    """

    name: str
    measure: Callable[[Subject], Mapping[str, float]]
    columns: tuple[Column, ...]
    needs: frozenset[Need] = frozenset()
    about: About = About.EXPLANATION
    sample: int | None = None


def mean_of_known(values: Tensor) -> float:
    """Return the mean of values (N,), ignoring NaN; NaN if all are NaN."""
    return float(values.nanmean())


@dataclass(frozen=True)
class ExplanationMetric:
    """A metric of explanations by any method, which `compare` measures batch by batch.

    Attributes:
        name: key in `EXPLANATION_METRICS`.
        measure: batch -> values (B,) of each column, NaN where undefined.
        columns: columns of the figures, in their order.
        needs: requirements; the metric is skipped unless all are met.
        about: what the metric describes.
        sample: number of images after which no further batch is measured; None for all images.
        pool: values (N,) of all images -> figure; NaN to leave it out.
    """

    name: str
    measure: Callable[[Explained], Mapping[str, Tensor]]
    columns: tuple[Column, ...]
    needs: frozenset[Need] = frozenset()
    about: About = About.EXPLANATION
    sample: int | None = None
    pool: Callable[[Tensor], float] = mean_of_known
