"""Registry of detectors."""

from foveal.backbones import BACKBONES
from foveal.detectors.controls import Centre, Grid, RandomKeypoints
from foveal.detectors.corners import Harris, ShiTomasi
from foveal.detectors.crops import CropDetector
from foveal.detectors.detector import Detector
from foveal.detectors.glimpse import GlimpseDetector
from foveal.detectors.heatmap import HeatmapDetector
from foveal.detectors.high_res import HighResDetector
from foveal.detectors.published import PublishedDetector
from foveal.detectors.reconstruction import ReconstructionDetector
from foveal.detectors.regression import RegressionDetector
from foveal.detectors.zoom import ZoomDetector
from foveal.foundation.registry import PartRegistry

DETECTORS: PartRegistry[Detector] = PartRegistry(
    "detector",
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
        "crops": CropDetector,
        "published": PublishedDetector,
    },
    inner={"backbone": BACKBONES},
)
