"""Photographs in memory, each with its own aspect ratio."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Maximum number of pixels per batch. A backbone's features take about 100 times their memory.
PIXELS = 2**22


@dataclass(frozen=True)
class Photos:
    """Photographs of a few sizes, ordered by size.

    They are indexed and split like a tensor (N, C, H, W), but all images of a batch have one size.

    Attributes:
        parts: uint8 (N_i, C, H_i, W_i), one tensor per size.
    """

    parts: tuple[Tensor, ...]

    dtype = torch.uint8

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W), where H and W are the most frequent size."""
        if not self.parts:
            return torch.Size((0, 3, 0, 0))
        most_frequent = max(self.parts, key=len)
        return torch.Size((len(self), *most_frequent.shape[1:]))

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield batches in order, (B, C, H, W) with at most `size` images and `PIXELS` pixels."""
        for part in self.parts:
            max_images = PIXELS // (part.shape[-2] * part.shape[-1])
            yield from part.split(max(1, min(size, max_images)))

    def __getitem__(self, indices: Tensor) -> "Photos":
        """Return the photographs at `indices` (M,), which must be ascending.

        Raises:
            ValueError: the indices are not ascending.
        """
        selected = torch.zeros(len(self), dtype=torch.bool)
        selected[indices] = True
        if len(indices) != int(selected.sum()) or not torch.equal(
            indices, selected.nonzero()[:, 0]
        ):
            raise ValueError("Expected ascending indices, as photographs are ordered by size.")
        masks = selected.split([len(part) for part in self.parts])
        parts = (part[mask] for part, mask in zip(self.parts, masks, strict=True))
        return Photos(tuple(part for part in parts if len(part)))


def parts_of(images: Tensor | Photos) -> tuple[Tensor, ...]:
    """Return images as tensors (N_i, C, H_i, W_i), one per size, in the order of the images."""
    return images.parts if isinstance(images, Photos) else (images,)


def sizes_of(images: Tensor | Photos) -> list[tuple[int, int]]:
    """Return height and width in pixels of each image."""
    return [(part.shape[-2], part.shape[-1]) for part in parts_of(images) for _ in range(len(part))]


def stacked(values: Sequence[Tensor], images: Tensor | Photos) -> Tensor | Photos:
    """Return tensors as one tensor (N, C, H, W), or as `Photos` if the images are `Photos`.

    Args:
        values: for each image a tensor (C, H, W) of the image's height and width; at least one.
        images: N images, in the same order.
    """
    if not isinstance(images, Photos):
        return torch.stack(list(values))
    remaining = iter(values)
    return Photos(tuple(torch.stack([next(remaining) for _ in part]) for part in images.parts))
