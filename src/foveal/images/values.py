"""Pixels as integers and as floats in [0, 1]."""

import numpy as np
import torch
from torch import Tensor

from foveal.foundation.errors import UserError


def as_floats(pixels: Tensor) -> Tensor:
    """Return uint8 pixels of any shape as floats in [0, 1], on the same device."""
    return pixels.to(torch.float32, copy=True).div_(255)


def as_bytes(values: Tensor) -> Tensor:
    """Return floats in [0, 1] of any shape as the nearest uint8 pixels."""
    return (values * 255).round().to(torch.uint8)


def as_fractions(pixels: np.ndarray, bits: int = 8) -> np.ndarray:
    """Return pixels as floats in [0, 1]: integers by their range, floats as they are.

    Args:
        pixels: unsigned integers, booleans, or floats.
        bits: of an integer.

    Raises:
        UserError: floats that are not from 0 to 1, NaN, or numbers with a sign.
    """
    if pixels.dtype.kind in "bu":
        return pixels.astype(np.float32) / np.float32(2**bits - 1)
    if pixels.dtype.kind != "f":
        raise UserError(f"pixels of {pixels.dtype} are not read: store whole numbers from 0")
    fractions = pixels.astype(np.float32)
    # What a large file's maximum is, only reading all of it would tell.
    if not (fractions.min(initial=0) >= 0 and fractions.max(initial=0) <= 1):
        raise UserError("floats beyond 0 to 1, or NaN: scale the pixels to that range")
    return fractions
