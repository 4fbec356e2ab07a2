"""Detectors: the parts of focus models that choose the locations of patches (`Located`)."""

from foveal.detectors.controls import Centre, Grid, RandomKeypoints
from foveal.detectors.corners import Harris, ShiTomasi
from foveal.detectors.crops import CropDetector
from foveal.detectors.detector import Detector, Located
from foveal.detectors.glimpse import GlimpseDetector
from foveal.detectors.heatmap import HeatmapDetector
from foveal.detectors.high_res import HighResDetector
from foveal.detectors.published import PublishedDetector
from foveal.detectors.reconstruction import ReconstructionDetector
from foveal.detectors.registry import DETECTORS
from foveal.detectors.regression import RegressionDetector
from foveal.detectors.zoom import ZoomDetector

__all__ = [
    "DETECTORS",
    "Centre",
    "CropDetector",
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

build_detector, detector_settings = DETECTORS.build, DETECTORS.settings_of
