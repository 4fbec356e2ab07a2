"""Coarse maps over photographs, interpolated between their locations."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 2  # minimum side of a location in pixels; finer maps are not interpolated


class Cells(NamedTuple):
    """A map (H, W) as h x w locations with one value each."""

    values: Tensor  # (h, w)
    rows: Tensor  # (H,), the row of locations of each row of pixels
    columns: Tensor  # (W,)

    @property
    def coarse(self) -> bool:
        """Whether each location covers many pixels."""
        sides = zip((self.rows, self.columns), self.values.shape, strict=True)
        return all(LEAST * count <= len(pixels) for pixels, count in sides)

    def interpolated(self) -> Tensor:
        """Return the map (H, W) bilinear between the centres of the locations."""
        return _weights(self.rows) @ self.values @ _weights(self.columns).T


def cells_of(heat: Tensor) -> Cells:
    """Return the locations of a map (H, W): runs of equal rows and of equal columns."""
    heat = heat.float()
    rows, columns = _runs(heat), _runs(heat.T)
    return Cells(heat[_first(rows)][:, _first(columns)], rows, columns)


def smooth(heat: Tensor) -> Tensor:
    """Return a map (H, W), interpolated between its locations if those cover many pixels."""
    cells = cells_of(heat)
    return cells.interpolated() if cells.coarse else heat


def _runs(heat: Tensor) -> Tensor:
    """Return for each row of (H, W) the index of its run of equal rows."""
    begins = (heat[1:] != heat[:-1]).any(dim=1)
    return F.pad(begins.long().cumsum(dim=0), (1, 0))


def _first(runs: Tensor) -> Tensor:
    counts = runs.bincount()
    return counts.cumsum(dim=0) - counts


def _weights(runs: Tensor) -> Tensor:
    """Return the weight of each run at each of L pixels (L, runs); constant at the edges."""
    counts = runs.bincount()
    centres = (_first(runs) + (counts - 1) / 2).numpy()
    pixels = np.arange(len(runs))
    lines = [np.interp(pixels, centres, line) for line in np.eye(len(centres))]
    return torch.from_numpy(np.stack(lines, axis=1)).float()
