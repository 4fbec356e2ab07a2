"""Indices of images, converted to slices or tensors that keep the batch dimension."""

import operator
from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
import torch
from torch import Tensor

Index = SupportsIndex | slice | Sequence[int] | Sequence[bool] | np.ndarray | Tensor


def selection(index: Index, length: int) -> slice | Tensor:
    """Return a slice or tensor that selects from a tensor (B, ...) and keeps that dimension.

    Args:
        index: an integer of any kind, a slice, a list or array of integers, or a mask of B
            booleans; negative integers count from the end.
        length: number B of images.

    Raises:
        IndexError: there is no such image.
        TypeError: the index is of another type.
    """
    if isinstance(index, slice):
        indices = range(length)[index]
        return index if indices.step > 0 else torch.tensor(indices, dtype=torch.long)
    if isinstance(index, list | np.ndarray | Tensor) and np.ndim(index) != 0:
        return _index_tensor(index, length)
    try:
        number = operator.index(index)  # type: ignore[arg-type]
    except TypeError:
        raise _index_error(f"{type(index).__name__}") from None
    if not -length <= number < length:
        raise IndexError(f"Expected an index from {-length} to {length - 1}, but got {number}.")
    number %= length
    return slice(number, number + 1)


def _index_tensor(indices: Sequence[int] | np.ndarray | Tensor, length: int) -> Tensor:
    """Return a list or array as a tensor: non-negative indices, or a mask of `length` booleans."""
    try:
        index = torch.as_tensor(indices).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise _index_error("a list of other values") from None
    if index.dtype == torch.bool:
        if index.shape != (length,):
            raise IndexError(f"Expected a mask ({length},), but got {tuple(index.shape)}.")
        return index
    if index.numel() == 0:
        return index.new_zeros(0, dtype=torch.long)
    if index.ndim != 1 or index.is_floating_point() or index.is_complex():
        raise _index_error(f"{tuple(index.shape)} of {index.dtype}")
    index = index.long()
    out_of_range = index[(index < -length) | (index >= length)]
    if len(out_of_range):
        raise IndexError(
            f"Expected indices from {-length} to {length - 1}, but got {int(out_of_range[0])}."
        )
    return index % length


def _index_error(description: str) -> TypeError:
    return TypeError(
        "Expected an integer, a slice, a list of integers or a mask of booleans as the index of an "
        f"explanation, but got {description}."
    )
