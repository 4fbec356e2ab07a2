"""Value ranges of training settings, as annotated types."""

from typing import Annotated

from foveal.foundation.arguments import Range

Amount = Annotated[float, Range(0, 1_000_000, below=True)]  # such as a weight or a rate
ImageCount = Annotated[int, Range(0, 2**40)]  # a setting's docstring says what 0 means
