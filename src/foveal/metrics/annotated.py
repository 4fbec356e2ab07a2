"""Agreement of explanations with annotated regions.

Agreement is measured by hits of the pointing game, by the energy inside a region, and by the
overlap of the evidence with a region. An annotated region is the part of an image that matters
according to a mask. A control is a map that does not depend on the image, as a baseline.
"""

from functools import partial
from math import isnan, nan

import torch
from torch import Tensor

from foveal.datasets import ImageSet
from foveal.datasets.annotations import annotated
from foveal.explainers import CONTROLS, explainer, own_method
from foveal.explanation import Explanation
from foveal.foundation.columns import Column
from foveal.metrics.energy_inside import ENERGY_INSIDE
from foveal.metrics.evidence_iou import EVIDENCE_IOU
from foveal.metrics.metric import ExplanationMetric, Metric
from foveal.metrics.observing import as_floats
from foveal.metrics.pointing_game import POINTING_GAME, pointing_game
from foveal.metrics.subject import Explained, Given, Subject
from foveal.models.image_model import ImageModel

# Metrics of explanations by any method. `compare` measures them for each method that it compares,
# and `evaluate` only for the model's own explanation.
LOCALISATION: dict[str, ExplanationMetric] = {
    metric.name: metric for metric in (POINTING_GAME, ENERGY_INSIDE, EVIDENCE_IOU)
}


def annotated_figures(
    model: ImageModel, test: ImageSet, *, batch_size: int = 500
) -> dict[str, float] | None:
    """Return the agreement of a model's own explanation with annotations, as means over images.

    Args:
        model: a model of any family.
        test: images with masks; images with an empty mask are skipped.
        batch_size: images per pass.

    Returns:
        The number of images with an annotated region as `annotated_images`, the figures of
        `LOCALISATION`, and the pointing game of each of `CONTROLS` (`centre_pointing_game`, …);
        None if there are no masks, or if the model has no explanation of its own.
    """
    method = own_method(model)
    if test.masks is None or method is None:
        return None
    explain = partial(explainer(method), model)
    indices = annotated(test).nonzero()[:, 0]
    batches = test.subset(indices).batches(batch_size) if len(indices) else ()
    values: dict[str, list[Tensor]] = {}
    for batch in batches:
        explained = Explained(model, explain(as_floats(model, batch.images)), batch, explain)
        results = [metric.measure(explained) for metric in LOCALISATION.values()]
        for result in (*results, _control_hits(explained.truth)):
            for key, value in result.items():
                values.setdefault(key, []).append(value.double())
    means = {key: float(torch.cat(tensors).nanmean()) for key, tensors in values.items()}
    figures = {key: mean for key, mean in means.items() if not isnan(mean)}
    return {"annotated_images": len(indices), **figures}


def _control_hits(masks: Tensor) -> dict[str, Tensor]:
    """Return the hits (B,) of each control in the pointing game, for masks (B, 1, H, W).

    Controls need no model.
    """
    size = (masks.shape[-2], masks.shape[-1])
    logits = masks[:, 0, :1, 0]  # placeholder: the metric reads only the maps and their size
    return {
        f"{name}_pointing_game": pointing_game(
            Explanation(masks, logits, maps=control.draw(size).expand(len(masks), 1, -1, -1)),
            masks,
        )
        for name, control in CONTROLS.items()
    }


def _measure(subject: Subject) -> dict[str, float]:
    figures = annotated_figures(subject.model, subject.test, batch_size=subject.batch_size)
    return figures or {}


def _count(values: Tensor) -> float:
    """Return how many of the booleans (N,) are set, or NaN, which omits the figure, if none is."""
    count = int(values.sum())
    return count if count else nan


_ANNOTATED_IMAGES = Column(
    "annotated_images",
    "annotated",
    "{:,}",
    "number of images with an annotated region; localisation metrics are means over these",
    "for comparison",
)
_CONTROL_COLUMNS = (
    Column(
        "centre_pointing_game",
        "centre hits",
        "{:.1%}",
        "pointing game of a map that decreases from the centre of the image outwards, without a "
        "model",
        "for comparison",
    ),
    Column(
        "uniform_pointing_game",
        "uniform hits",
        "{:.1%}",
        "pointing game of a uniform map, without a model: the relative area of the region",
        "for comparison",
    ),
)
ANNOTATIONS = Metric(
    "annotations",
    _measure,
    (
        _ANNOTATED_IMAGES,
        *(column for metric in LOCALISATION.values() for column in metric.columns),
        *_CONTROL_COLUMNS,
    ),
    needs=frozenset({Given.MASKS}),
)
ANNOTATED_IMAGES = ExplanationMetric(
    "annotated_images",
    lambda batch: {"annotated_images": annotated(batch.test)},
    (_ANNOTATED_IMAGES,),
    needs=frozenset({Given.MASKS}),
    pool=_count,
)
