"""Metrics: accuracy, efficiency, and whether the explanation can be trusted."""

from foveal.metrics.accuracy import accuracy, predict_logits
from foveal.metrics.attention import MapsWorth, maps_worth
from foveal.metrics.content_following import Following, content_following
from foveal.metrics.efficiency import latency_ms, macs, parameters
from foveal.metrics.evidence import evidence_fraction
from foveal.metrics.figures import evaluate
from foveal.metrics.looks import Looks, look_over
from foveal.metrics.position_leakage import position_leakage
from foveal.metrics.random_focus import random_focus_accuracy
from foveal.metrics.rebuilding import Rebuilding, rebuilding

__all__ = [
    "Following",
    "Looks",
    "MapsWorth",
    "Rebuilding",
    "accuracy",
    "content_following",
    "evaluate",
    "evidence_fraction",
    "latency_ms",
    "look_over",
    "macs",
    "maps_worth",
    "parameters",
    "position_leakage",
    "predict_logits",
    "random_focus_accuracy",
    "rebuilding",
]
