"""Single precision at least, where half precision is too coarse or not understood."""

import torch
from torch import Tensor


def at_least_single(values: Tensor) -> Tensor:
    """Return float16 and bfloat16 as float32, and wider floats as they are.

    Half precision cannot tell neighbouring pixels of a large image apart, and NumPy knows no
    bfloat16.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))
