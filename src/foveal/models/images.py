"""Conversion of images to one tensor (B, C, H, W)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from foveal.foundation.errors import UserError

Images = Tensor | np.ndarray | Sequence[Tensor | np.ndarray]


def as_images(images: Images) -> Tensor:
    """Return images as one tensor.

    A tensor is returned as it is, and the result shares the memory of an array if torch supports
    the array's layout. A list is copied.

    Args:
        images: a tensor or NumPy array (B, C, H, W), or a list of tensors or arrays (C, H, W) of
            one size.

    Raises:
        UserError: the images are of another type or of several sizes, or there are none.
    """
    if isinstance(images, Tensor):
        return images
    if isinstance(images, np.ndarray):
        return _from_array(images)
    if not isinstance(images, list | tuple):
        raise _type_error(images)
    if not images:
        raise UserError("Expected at least 1 image, but got none.")
    tensors = []
    for image in images:
        if not isinstance(image, Tensor | np.ndarray):
            raise _type_error(image)
        tensors.append(as_images(image))
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1:
        raise UserError(
            "Expected a list of images (C, H, W) of one size, but got "
            f"{', '.join(map(str, sorted(shapes)))}. Resize them, or explain each size "
            "separately."
        )
    return torch.stack(tensors)


def _from_array(array: np.ndarray) -> Tensor:
    """Return an array as a tensor, which shares its memory if torch supports its layout."""
    # torch requires the native byte order, no negative strides, and a writable array.
    must_copy = not array.flags.writeable
    supported = array.astype(array.dtype.newbyteorder("="), order="C", copy=must_copy)
    try:
        return torch.from_numpy(supported)
    except TypeError:
        raise UserError(f"Expected images of floats, but got NumPy's {array.dtype}.") from None


def _type_error(value: object) -> UserError:
    return UserError(
        "Expected images as a tensor or NumPy array (B, C, H, W), or a list of those (C, H, W), "
        f"but got {type(value).__module__}.{type(value).__qualname__}."
    )
