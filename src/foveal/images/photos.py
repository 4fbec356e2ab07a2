"""Photographs in memory, each in its own proportions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PIXELS = 2**22  # per batch; a backbone's features take a hundred times their memory


@dataclass(frozen=True)
class Photos:
    """Photographs of a few sizes, ordered by size.

    They are indexed and split like a tensor (N, C, H, W), but each batch has a single size.

    Attributes:
        parts: uint8 (N_i, C, H_i, W_i), one tensor per size.
    """

    parts: tuple[Tensor, ...]

    dtype = torch.uint8

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W) with the most frequent size."""
        if not self.parts:
            return torch.Size((0, 3, 0, 0))
        largest = max(self.parts, key=len)
        return torch.Size((len(self), *largest.shape[1:]))

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield batches in order, (B, C, H, W) with at most `size` images and `PIXELS` pixels."""
        for part in self.parts:
            max_images = PIXELS // (part.shape[-2] * part.shape[-1])
            yield from part.split(max(1, min(size, max_images)))

    def __getitem__(self, indices: Tensor) -> "Photos":
        """Return the photographs at ascending `indices` (M,)."""
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
    """Return images as tensors (N_i, C, H_i, W_i) of one size each, in order."""
    return images.parts if isinstance(images, Photos) else (images,)


def sizes_of(images: Tensor | Photos) -> list[tuple[int, int]]:
    """Return height and width in pixels of each image."""
    return [(part.shape[-2], part.shape[-1]) for part in parts_of(images) for _ in range(len(part))]


def stacked(values: Sequence[Tensor], images: Tensor | Photos) -> Tensor | Photos:
    """Return values (C, H, W) of images as one tensor, or as `Photos` if the images are `Photos`.

    Args:
        values: a tensor per image, of the image's size and in the same order; at least one.
        images: N images.
    """
    if not isinstance(images, Photos):
        return torch.stack(list(values))
    remaining = iter(values)
    return Photos(tuple(torch.stack([next(remaining) for _ in part]) for part in images.parts))
