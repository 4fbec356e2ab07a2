"""Coarse maps over photographs, interpolated between their cells."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MIN_CELL_PX = 2  # minimum side of a cell in pixels; finer maps are not interpolated


class Cells(NamedTuple):
    """A map (H, W) as h x w cells with one value each."""

    values: Tensor  # (h, w)
    rows: Tensor  # (H,), index of the row of cells of each row of pixels
    columns: Tensor  # (W,), index of the column of cells of each column of pixels

    @property
    def coarse(self) -> bool:
        """Whether each cell covers several pixels."""
        sides = zip((self.rows, self.columns), self.values.shape, strict=True)
        return all(MIN_CELL_PX * count <= len(pixels) for pixels, count in sides)

    def interpolate(self) -> Tensor:
        """Return the map (H, W), interpolated bilinearly between the centres of the cells."""
        return _weights(self.rows) @ self.values @ _weights(self.columns).T


def cells_of(heat: Tensor) -> Cells:
    """Return the cells of a map (H, W): runs of equal rows and of equal columns."""
    heat = heat.float()
    rows, columns = _runs(heat), _runs(heat.T)
    return Cells(heat[_starts(rows)][:, _starts(columns)], rows, columns)


def smooth(heat: Tensor) -> Tensor:
    """Return a map (H, W), interpolated between its cells if they cover several pixels."""
    cells = cells_of(heat)
    return cells.interpolate() if cells.coarse else heat


def _runs(heat: Tensor) -> Tensor:
    """Return for each row of (H, W) the index of its run of equal rows."""
    is_start = (heat[1:] != heat[:-1]).any(dim=1)
    return F.pad(is_start.long().cumsum(dim=0), (1, 0))


def _starts(runs: Tensor) -> Tensor:
    counts = runs.bincount()
    return counts.cumsum(dim=0) - counts


def _weights(runs: Tensor) -> Tensor:
    """Return the weights (L, runs) of the runs at each of L pixels, constant at the edges."""
    counts = runs.bincount()
    centres = (_starts(runs) + (counts - 1) / 2).numpy()
    pixels = np.arange(len(runs))
    lines = [np.interp(pixels, centres, line) for line in np.eye(len(centres))]
    return torch.from_numpy(np.stack(lines, axis=1)).float()
