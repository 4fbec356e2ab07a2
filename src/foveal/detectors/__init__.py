"""Detectors: image -> keypoints."""

from collections.abc import Mapping
from typing import Any

from foveal.detectors.controls import Centre, Grid, RandomKeypoints
from foveal.detectors.corners import Harris, ShiTomasi
from foveal.detectors.detector import Detector
from foveal.detectors.heatmap import HeatmapDetector
from foveal.detectors.reconstruction import ReconstructionDetector
from foveal.detectors.regression import RegressionDetector
from foveal.errors import build_by_name

DETECTORS: dict[str, type[Detector]] = {
    "heatmap": HeatmapDetector,
    "regression": RegressionDetector,
    "reconstruction": ReconstructionDetector,
    "harris": Harris,
    "shi-tomasi": ShiTomasi,
    "random": RandomKeypoints,
    "grid": Grid,
    "centre": Centre,
}


def build_detector(settings: Mapping[str, Any]) -> Detector:
    """Build a detector from `{"name": ..., argument: value, ...}`.

    Raises:
        UserError: the name or an argument is not known, missing or of no use.
    """
    return build_by_name("detector", DETECTORS, settings)


def detector_settings(detector: Detector) -> dict[str, Any]:
    """Return the settings from which `build_detector` builds this detector again.

    A detector of the user's own is named by its class; add it to `DETECTORS` to load it again.
    """
    names = {kind: name for name, kind in DETECTORS.items()}
    return {"name": names.get(type(detector), type(detector).__name__), **detector.settings()}


__all__ = [
    "DETECTORS",
    "Centre",
    "Detector",
    "Grid",
    "Harris",
    "HeatmapDetector",
    "RandomKeypoints",
    "ReconstructionDetector",
    "RegressionDetector",
    "ShiTomasi",
    "build_detector",
    "detector_settings",
]
