"""Generated benchmarks: reproducible images, of which it is known which pixels are informative."""

from foveal.datasets.generated.cluttered import load_cluttered_mnist
from foveal.datasets.generated.megapixel import SparseImages, megapixel_mnist
from foveal.datasets.generated.mosaic import Mosaics, mosaics
from foveal.datasets.generated.planted import plant_marks, planted_marks

__all__ = [
    "Mosaics",
    "SparseImages",
    "load_cluttered_mnist",
    "megapixel_mnist",
    "mosaics",
    "plant_marks",
    "planted_marks",
]
