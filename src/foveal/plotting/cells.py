"""Coarse maps over photographs, interpolated between their cells.

A cell is a rectangle of pixels with the same value, which a map has if it was computed at fewer
locations than the image has pixels and then enlarged.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MIN_CELL_PX = 2  # minimum mean side of the cells in pixels; finer maps are not interpolated


class Cells(NamedTuple):
    """A map (H, W) as h x w cells with one value each."""

    values: Tensor  # (h, w), value of each cell
    rows: Tensor  # (H,), index of the row of cells that each row of pixels belongs to
    columns: Tensor  # (W,), index of the column of cells that each column of pixels belongs to

    @property
    def is_coarse(self) -> bool:
        """Whether the cells have a mean height and width of at least `MIN_CELL_PX` pixels."""
        sides = zip((self.rows, self.columns), self.values.shape, strict=True)
        return all(MIN_CELL_PX * cell_count <= len(indices) for indices, cell_count in sides)

    def interpolate(self) -> Tensor:
        """Return the map (H, W), interpolated bilinearly between the centres of the cells."""
        return _weights(self.rows) @ self.values @ _weights(self.columns).T


def cells_of(heat: Tensor) -> Cells:
    """Return the cells of a map (H, W).

    Consecutive equal rows of pixels form one row of cells, and likewise for columns.
    """
    heat = heat.float()
    rows, columns = _runs(heat), _runs(heat.T)
    return Cells(heat[_starts(rows)][:, _starts(columns)], rows, columns)


def smooth(heat: Tensor) -> Tensor:
    """Return a map (H, W), interpolated between its cells if it is coarse, or else unchanged."""
    cells = cells_of(heat)
    return cells.interpolate() if cells.is_coarse else heat


def _runs(heat: Tensor) -> Tensor:
    """Return for each row of a map (H, W) the index of the run of equal rows that it belongs to."""
    is_start = (heat[1:] != heat[:-1]).any(dim=1)
    return F.pad(is_start.long().cumsum(dim=0), (1, 0))


def _starts(runs: Tensor) -> Tensor:
    """Return the index of the first pixel of each run, given the index (L,) of each pixel's run."""
    counts = runs.bincount()
    return counts.cumsum(dim=0) - counts


def _weights(runs: Tensor) -> Tensor:
    """Return the interpolation weights (L, runs) of the runs at each of L pixels.

    Before the centre of the first run and after that of the last, the weights are constant.
    """
    counts = runs.bincount()
    centres = (_starts(runs) + (counts - 1) / 2).numpy()
    positions = np.arange(len(runs))
    weights = [np.interp(positions, centres, unit_vector) for unit_vector in np.eye(len(centres))]
    return torch.from_numpy(np.stack(weights, axis=1)).float()
