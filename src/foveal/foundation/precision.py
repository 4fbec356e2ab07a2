"""Checks of floats: at least single precision, and finite."""

import torch
from torch import Tensor

from foveal.foundation.errors import UserError


def at_least_single(values: Tensor) -> Tensor:
    """Return float16 and bfloat16 as float32, and wider floats unchanged.

    This is needed because coordinates in half precision cannot distinguish neighbouring pixels of a
    large image, and because NumPy has no bfloat16.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def check_finite(what: str, values: Tensor) -> None:
    """Raise UserError if values (B, ...) of B images contain NaN or infinity.

    Args:
        what: plural name of the values, which begins the error.
        values: floats.
    """
    invalid = (~values.flatten(1).isfinite().all(dim=1)).nonzero()[:, 0].tolist()
    if invalid:
        raise UserError(
            f"{what} hold NaN or infinity for {len(invalid)} of {len(values)} images, first for "
            f"image {invalid[0]}. Check the images and the model's weights."
        )
