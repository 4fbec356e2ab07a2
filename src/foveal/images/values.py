"""Conversion of pixels between integers and floats in [0, 1]."""

import numpy as np
import torch
from torch import Tensor

from foveal.foundation.errors import UserError


def as_floats(pixels: Tensor) -> Tensor:
    """Return uint8 pixels of any shape as floats in [0, 1], on the same device."""
    return pixels.to(torch.float32, copy=True).div_(255)


def as_uint8(values: Tensor) -> Tensor:
    """Return floats in [0, 1] of any shape as the nearest uint8 pixels."""
    return (values * 255).round().to(torch.uint8)


def as_fractions(pixels: np.ndarray, bits: int = 8) -> np.ndarray:
    """Return pixels as float32 in [0, 1]: integers divided by their maximum, others unscaled.

    Args:
        pixels: unsigned integers, booleans, or floats in [0, 1].
        bits: number of bits per integer, which determines the maximum.

    Raises:
        UserError: signed integers, NaN, or floats outside of [0, 1].
    """
    if pixels.dtype.kind == "b":
        return pixels.astype(np.float32)
    if pixels.dtype.kind == "u":
        return pixels.astype(np.float32) / np.float32(2**bits - 1)
    if pixels.dtype.kind != "f":
        raise UserError(f"unsupported pixels of {pixels.dtype}: store unsigned integers")
    fractions = pixels.astype(np.float32)
    # Other floats could only be scaled by the image's maximum, and all of a large file would have
    # to be read to find it.
    if not (fractions.min(initial=0) >= 0 and fractions.max(initial=0) <= 1):
        raise UserError("floats outside of 0 to 1, or NaN: scale the pixels to that range")
    return fractions
