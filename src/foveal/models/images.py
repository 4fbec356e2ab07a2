"""Images as callers hold them -> one tensor (B, C, H, W)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from foveal.foundation.errors import UserError

Images = Tensor | np.ndarray | Sequence[Tensor | np.ndarray]


def as_images(images: Images) -> Tensor:
    """Return images as one tensor; a tensor as it is, an array without a copy where torch can.

    Args:
        images: a tensor or NumPy array (B, C, H, W), or a list of tensors or arrays (C, H, W) of
            one size.

    Raises:
        UserError: they are something else, none, or of several sizes.
    """
    if isinstance(images, Tensor):
        return images
    if isinstance(images, np.ndarray):
        return _from_array(images)
    if not isinstance(images, list | tuple):
        raise _unknown(images)
    if not images:
        raise UserError("Expected at least one image, but got none.")
    parts = []
    for image in images:
        if not isinstance(image, Tensor | np.ndarray):
            raise _unknown(image)
        parts.append(as_images(image))
    shapes = {tuple(part.shape) for part in parts}
    if len(shapes) > 1:
        raise UserError(
            "Expected a list of images (C, H, W) of one size, but got "
            f"{', '.join(map(str, sorted(shapes)))}. Resize them, or explain those of each size "
            "apart."
        )
    return torch.stack(parts)


def _from_array(array: np.ndarray) -> Tensor:
    # torch takes the machine's byte order, no negative strides, and nothing that is read-only.
    native = array.astype(array.dtype.newbyteorder("="), order="C", copy=not array.flags.writeable)
    try:
        return torch.from_numpy(native)
    except TypeError:
        raise UserError(f"Expected images of floats, but got NumPy's {array.dtype}.") from None


def _unknown(found: object) -> UserError:
    return UserError(
        "Expected images as a tensor or NumPy array (B, C, H, W), or a list of those (C, H, W), "
        f"but got {type(found).__module__}.{type(found).__qualname__}."
    )
