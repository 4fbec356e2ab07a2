"""Declarations of metrics: how they are measured, what they need and the columns they fill."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from foveal.foundation.columns import Column
from foveal.metrics.subject import Explained, Need, Subject

SAMPLE = 200  # images that a metric of many passes is measured on


class About(Enum):
    """What a metric describes; tables list the columns in this order."""

    PREDICTION = 0
    EXPLANATION = 1
    COST = 2


@dataclass(frozen=True)
class Metric:
    """A metric of a model on a dataset, which `evaluate` measures.

    Attributes:
        name: in `METRICS`.
        measure: returns the figure of each column; a figure that cannot be measured is left out.
        columns: of the figures, in their order.
        needs: without any of which the metric is left out.
        about: what it describes.
        sample: images that are enough, where it takes too many passes for all. Such a metric is
            measured by `compare` alone.
    """

    name: str
    measure: Callable[[Subject], Mapping[str, float]]
    columns: tuple[Column, ...]
    needs: frozenset[Need] = frozenset()
    about: About = About.EXPLANATION
    sample: int | None = None


def mean_of_known(values: Tensor) -> float:
    """Return the mean of values (N,), some of which may be NaN; NaN if all are."""
    return float(values.nanmean())


@dataclass(frozen=True)
class ExplanationMetric:
    """A metric of explanations of any method, which `compare` measures batch by batch.

    Attributes:
        name: in `EXPLANATION_METRICS`.
        measure: returns for each column a value (B,) per image, NaN where there is none.
        columns: of the figures, in their order.
        needs: without any of which the metric is left out.
        about: what it describes.
        sample: images after which no further batch is measured; None for all images.
        pool: values (N,) of all images -> the figure; NaN to leave it out.
    """

    name: str
    measure: Callable[[Explained], Mapping[str, Tensor]]
    columns: tuple[Column, ...]
    needs: frozenset[Need] = frozenset()
    about: About = About.EXPLANATION
    sample: int | None = None
    pool: Callable[[Tensor], float] = mean_of_known
