"""Value ranges of training settings."""

from typing import Annotated

from foveal.foundation.arguments import Range

Amount = Annotated[float, Range(0, 1_000_000, below=True)]
Images = Annotated[int, Range(0, 2**40)]  # number of images; 0 for all or none
