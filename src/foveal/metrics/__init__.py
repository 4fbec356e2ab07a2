"""Metrics of accuracy, efficiency and the trustworthiness of explanations."""

from typing import TYPE_CHECKING

from foveal.foundation.lazy import lazy_names
from foveal.metrics.accuracy import accuracy, predict_logits
from foveal.metrics.adversarial import adversarial_accuracy
from foveal.metrics.attention import AttentionAblation, attention_ablation
from foveal.metrics.content_following import Following, content_following
from foveal.metrics.deletion import deletion, insertion
from foveal.metrics.efficiency import latency_ms, macs, parameters
from foveal.metrics.energy_inside import energy_inside
from foveal.metrics.evidence import evidence_fraction
from foveal.metrics.evidence_iou import evidence_iou
from foveal.metrics.figures import evaluate
from foveal.metrics.judged import Judged, judged
from foveal.metrics.metric import ExplanationMetric, Metric
from foveal.metrics.observing import observe_all
from foveal.metrics.pointing_game import pointing_game
from foveal.metrics.position_leakage import position_leakage
from foveal.metrics.random_focus import random_focus_accuracy
from foveal.metrics.rebuilding import Rebuilding, rebuilding
from foveal.metrics.registry import EXPLANATION_METRICS, METRICS
from foveal.metrics.stability import Stability, stability

if TYPE_CHECKING:
    from foveal.metrics.averages import (
        Deletion,
        EnergyInside,
        EvidenceIoU,
        Insertion,
        PointingGame,
    )
else:  # importing torchmetrics takes seconds
    _AVERAGES = ("Deletion", "EnergyInside", "EvidenceIoU", "Insertion", "PointingGame")
    __getattr__ = lazy_names(__name__, dict.fromkeys(_AVERAGES, "foveal.metrics.averages"))

__all__ = [
    "EXPLANATION_METRICS",
    "METRICS",
    "AttentionAblation",
    "Deletion",
    "EnergyInside",
    "EvidenceIoU",
    "ExplanationMetric",
    "Following",
    "Insertion",
    "Judged",
    "Metric",
    "PointingGame",
    "Rebuilding",
    "Stability",
    "accuracy",
    "adversarial_accuracy",
    "attention_ablation",
    "content_following",
    "deletion",
    "energy_inside",
    "evaluate",
    "evidence_fraction",
    "evidence_iou",
    "insertion",
    "judged",
    "latency_ms",
    "macs",
    "observe_all",
    "parameters",
    "pointing_game",
    "position_leakage",
    "predict_logits",
    "random_focus_accuracy",
    "rebuilding",
    "stability",
]
