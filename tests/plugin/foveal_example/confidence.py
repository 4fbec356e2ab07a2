"""Mean confidence: the probability of the predicted class."""

from foveal.foundation.columns import Column
from foveal.metrics import Metric
from foveal.metrics.subject import Subject
from foveal.models.abilities import Ability


def confidence(subject: Subject) -> dict[str, float]:
    """Return the mean probability of the predicted class, from 0 to 1."""
    probabilities = subject.observed.logits.softmax(dim=1)
    return {"confidence": float(probabilities.amax(dim=1).mean())}


CONFIDENCE = Metric(
    "confidence",
    confidence,
    (Column("confidence", "confidence", "{:.1%}", "mean probability of the prediction", "higher"),),
    needs=frozenset({Ability.CLASSES}),
)
