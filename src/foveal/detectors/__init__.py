"""Detectors: view -> located."""

from collections.abc import Mapping

from foveal.backbones import build_backbone
from foveal.detectors.controls import Centre, Grid, RandomKeypoints
from foveal.detectors.corners import Harris, ShiTomasi
from foveal.detectors.detector import Detector, Located
from foveal.detectors.glimpse import GlimpseDetector
from foveal.detectors.heatmap import HeatmapDetector
from foveal.detectors.high_res import HighResDetector
from foveal.detectors.published import PublishedDetector
from foveal.detectors.reconstruction import ReconstructionDetector
from foveal.detectors.regression import RegressionDetector
from foveal.detectors.zoom import ZoomDetector
from foveal.errors import build_by_name
from foveal.registry import Registry

DETECTORS: Registry[type[Detector]] = Registry(
    "foveal.detectors",
    {
        "heatmap": HeatmapDetector,
        "regression": RegressionDetector,
        "reconstruction": ReconstructionDetector,
        "harris": Harris,
        "shi-tomasi": ShiTomasi,
        "random": RandomKeypoints,
        "grid": Grid,
        "centre": Centre,
        "zoom": ZoomDetector,
        "glimpse": GlimpseDetector,
        "high-res": HighResDetector,
        "published": PublishedDetector,
    },
)


def build_detector(settings: Mapping[str, object]) -> Detector:
    """Build a detector from `{"name": ..., argument: value, ...}`; a backbone has its own settings.

    Raises:
        UserError: the name or an argument is not known, missing or of no use.
    """
    backbone = settings.get("backbone") if isinstance(settings, Mapping) else None
    if isinstance(backbone, Mapping):
        settings = {**settings, "backbone": build_backbone(backbone)}
    return build_by_name("detector", DETECTORS, settings)


def detector_settings(detector: Detector) -> dict[str, object]:
    """Return the settings from which `build_detector` builds this detector again.

    A detector of the user's own is named by its class; add it to `DETECTORS` to load it again.
    """
    kind = type(detector)
    return {"name": DETECTORS.name_of(kind) or kind.__name__, **detector.settings()}


__all__ = [
    "DETECTORS",
    "Centre",
    "Detector",
    "GlimpseDetector",
    "Grid",
    "Harris",
    "HeatmapDetector",
    "HighResDetector",
    "Located",
    "PublishedDetector",
    "RandomKeypoints",
    "ReconstructionDetector",
    "RegressionDetector",
    "ShiTomasi",
    "ZoomDetector",
    "build_detector",
    "detector_settings",
]
