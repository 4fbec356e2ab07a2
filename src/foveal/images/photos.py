"""Photographs in memory, each in its own proportions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PIXELS = 2**22  # of a batch; a backbone's features take a hundred times as much memory


@dataclass(frozen=True)
class Photos:
    """Photographs of a few sizes, in the order of their sizes.

    They are indexed and split as a tensor (N, C, H, W) is, but a batch holds one size alone.

    Attributes:
        parts: uint8 (N_i, C, H_i, W_i), one tensor per size.
    """

    parts: tuple[Tensor, ...]

    dtype = torch.uint8

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W) with the size that most of them have."""
        if not self.parts:
            return torch.Size((0, 3, 0, 0))
        most = max(self.parts, key=len)
        return torch.Size((len(self), *most.shape[1:]))

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield them in order, (B, C, H, W) with B of at most `size` and `PIXELS` in all."""
        for part in self.parts:
            most = PIXELS // (part.shape[-2] * part.shape[-1])
            yield from part.split(max(1, min(size, most)))

    def __getitem__(self, indices: Tensor) -> "Photos":
        """Return those at ascending `indices` (M,)."""
        chosen = torch.zeros(len(self), dtype=torch.bool)
        chosen[indices] = True
        if len(indices) != int(chosen.sum()) or not torch.equal(indices, chosen.nonzero()[:, 0]):
            raise ValueError("Expected ascending indices: photographs lie in the order of sizes.")
        masks = chosen.split([len(part) for part in self.parts])
        parts = (part[mask] for part, mask in zip(self.parts, masks, strict=True))
        return Photos(tuple(part for part in parts if len(part)))


def parts_of(images: Tensor | Photos) -> tuple[Tensor, ...]:
    """Return images as tensors (N_i, C, H_i, W_i) of one size each, in order."""
    return images.parts if isinstance(images, Photos) else (images,)


def sizes_of(images: Tensor | Photos) -> list[tuple[int, int]]:
    """Return height and width in pixels of each image."""
    return [(part.shape[-2], part.shape[-1]) for part in parts_of(images) for _ in range(len(part))]


def stacked(values: Sequence[Tensor], images: Tensor | Photos) -> Tensor | Photos:
    """Return a value (C, H, W) per image as one tensor, or as `Photos` where the images are those.

    Args:
        values: each of the size of its image, in the order of the images; at least one.
        images: N of them.
    """
    if not isinstance(images, Photos):
        return torch.stack(list(values))
    remaining = iter(values)
    return Photos(tuple(torch.stack([next(remaining) for _ in part]) for part in images.parts))
