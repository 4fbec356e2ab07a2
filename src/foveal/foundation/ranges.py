"""Ranges of settings that detectors, backbones, decoders and models share.

The maxima are far above useful values, yet small enough that no single setting makes a model take
gigabytes.
"""

from collections.abc import Sequence
from typing import Annotated

from foveal.foundation.arguments import Length, Range

Keypoints = Annotated[int, Range(1, 4096)]
PatchSize = Annotated[int, Range(1, 1024)]  # side in pixels or samples
Channels = Annotated[int, Range(1, 512)]  # of images
Classes = Annotated[int, Range(1, 100_000)]
Width = Annotated[int, Range(1, 16_384)]  # outputs of a layer
Widths = Annotated[Sequence[Width], Length(1, 64)]
Side = Annotated[int, Range(1, 4096)]  # of an image in pixels
Fraction = Annotated[float, Range(0, 1, below=True)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Positive = Annotated[float, Range(0, 10_000, above=True)]
