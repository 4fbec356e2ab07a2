"""Metrics: accuracy, efficiency, and whether the explanation can be trusted."""

from foveal.metrics.accuracy import accuracy, predict_logits
from foveal.metrics.adversarial import adversarial_accuracy
from foveal.metrics.attention import MapsWorth, maps_worth
from foveal.metrics.content_following import Following, content_following
from foveal.metrics.deletion import Deletion, Insertion, deletion, insertion
from foveal.metrics.efficiency import latency_ms, macs, parameters
from foveal.metrics.energy_inside import EnergyInside, energy_inside
from foveal.metrics.evidence import evidence_fraction
from foveal.metrics.evidence_iou import EvidenceIoU, evidence_iou
from foveal.metrics.figures import evaluate
from foveal.metrics.judged import Judged, judged
from foveal.metrics.looks import Looks, look_over
from foveal.metrics.pointing_game import PointingGame, pointing_game
from foveal.metrics.position_leakage import position_leakage
from foveal.metrics.random_focus import random_focus_accuracy
from foveal.metrics.rebuilding import Rebuilding, rebuilding
from foveal.metrics.stability import Stability, stability

__all__ = [
    "Deletion",
    "EnergyInside",
    "EvidenceIoU",
    "Following",
    "Insertion",
    "Judged",
    "Looks",
    "MapsWorth",
    "PointingGame",
    "Rebuilding",
    "Stability",
    "accuracy",
    "adversarial_accuracy",
    "content_following",
    "deletion",
    "energy_inside",
    "evaluate",
    "evidence_fraction",
    "evidence_iou",
    "insertion",
    "judged",
    "latency_ms",
    "look_over",
    "macs",
    "maps_worth",
    "parameters",
    "pointing_game",
    "position_leakage",
    "predict_logits",
    "random_focus_accuracy",
    "rebuilding",
    "stability",
]
