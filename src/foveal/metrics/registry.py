"""Registry of metrics, from which figures, tables, reports and documentation are generated.

A figure is the value of a metric in one of its columns.
"""

from collections.abc import Iterable

from foveal.foundation.columns import Column
from foveal.foundation.registry import Registry, by_name
from foveal.metrics.accuracy import ACCURACY
from foveal.metrics.adversarial import ADVERSARIAL
from foveal.metrics.annotated import ANNOTATED_IMAGES, ANNOTATIONS, LOCALISATION
from foveal.metrics.attention import ATTENTION
from foveal.metrics.content_following import CONTENT_FOLLOWING
from foveal.metrics.deletion import DELETION, INSERTION
from foveal.metrics.efficiency import LATENCY, MACS, PARAMETERS
from foveal.metrics.evidence import COVERED, EVIDENCE, PATCH_EVIDENCE
from foveal.metrics.explanation_cost import EXPLANATION_COST
from foveal.metrics.judged import JUDGED, JUDGED_MAPS, JUDGED_PATCHES
from foveal.metrics.metric import About, ExplanationMetric, Metric
from foveal.metrics.position_leakage import POSITION_LEAKAGE
from foveal.metrics.published import COLUMNS as PUBLISHED_COLUMNS
from foveal.metrics.random_focus import RANDOM_FOCUS
from foveal.metrics.rebuilding import REBUILDING
from foveal.metrics.stability import STABILITY
from foveal.metrics.subject import Given
from foveal.models.image_model import ImageModel

# Metrics of a model on a dataset, in the order of the figures of `evaluate`.
METRICS: Registry[Metric] = Registry(
    "foveal.metrics",
    by_name(
        ACCURACY,
        REBUILDING,
        PARAMETERS,
        MACS,
        EVIDENCE,
        COVERED,
        LATENCY,
        ANNOTATIONS,
        JUDGED_PATCHES,
        JUDGED_MAPS,
        POSITION_LEAKAGE,
        CONTENT_FOLLOWING,
        RANDOM_FOCUS,
        ATTENTION,
        ADVERSARIAL,
    ),
)
# Metrics of explanations by any method, in the order of the figures of `compare`.
EXPLANATION_METRICS: Registry[ExplanationMetric] = Registry(
    "foveal.explanation_metrics",
    by_name(
        EXPLANATION_COST,
        PATCH_EVIDENCE,
        JUDGED,
        DELETION,
        INSERTION,
        STABILITY,
        ANNOTATED_IMAGES,
        *LOCALISATION.values(),
    ),
)


def model_columns() -> list[Column]:
    """Return the columns of tables of models: predictions, then explanations, then cost."""
    return _columns(METRICS.values())


def explanation_columns() -> list[Column]:
    """Return the columns of tables of explanations.

    Published metrics, which are computed by Quantus, come before the cost.
    """
    metrics = EXPLANATION_METRICS.values()
    cost = [metric for metric in metrics if metric.about is About.COST]
    others = [metric for metric in metrics if metric.about is not About.COST]
    return [*_columns(others), *PUBLISHED_COLUMNS, *_columns(cost)]


def column_of(key: str) -> Column:
    """Return the column with a key.

    If metrics of models and of explanations share the key, the column is that of models.

    Raises:
        KeyError: no metric has a column with the key.
    """
    columns = {c.key: c for metric in EXPLANATION_METRICS.values() for c in metric.columns}
    columns |= {c.key: c for metric in METRICS.values() for c in metric.columns}
    return columns[key]


def useful_for(model: ImageModel) -> frozenset[Given]:
    """Return the optional inputs with which more metrics of a model can be measured.

    These are the inputs that at least one metric needs whose other needs the model meets.
    """
    available = model.abilities | frozenset(Given)
    possible = [metric for metric in METRICS.values() if metric.needs <= available]
    return frozenset(item for item in Given if any(item in metric.needs for metric in possible))


def _columns(metrics: Iterable[Metric | ExplanationMetric]) -> list[Column]:
    """Return the columns of metrics that tables list, in the order of the members of `About`."""
    ordered = sorted(metrics, key=lambda metric: metric.about.value)
    return [column for metric in ordered for column in metric.columns if column.listed]
