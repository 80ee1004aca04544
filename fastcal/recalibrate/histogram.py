"""A fine, mergeable histogram of probabilities, and the isotonic curve through it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastcal.core.arrays import Floats, Integers

_MANTISSA = 9
_SHIFT = 23 - _MANTISSA
_HALF = 0x3F000000 >> _SHIFT
"""Number of cells below one half."""
N_CELLS = 2 * _HALF
"""129,024 cells: 512 per power of two of p below one half, and of 1 - p above it."""


def cells(p: Tensor) -> Tensor:
    """Return the cell of each probability, int64 in [0, `N_CELLS`), which rises with p.

    Cells are spaced by the float32 bits of p below one half and of 1 - p above, so that the voxels
    of a saturated network do not all share one. The values of a cell lie within 2^-9 of each other,
    relative to p or to 1 - p.
    """
    p = p.double().clamp(0, 1)
    upper = p >= 0.5
    near = torch.where(upper, 1 - p, p).float()
    # Where 1 - p is exactly one half, it belongs to the topmost of the lower cells, mirrored.
    cell = (near.view(torch.int32) >> _SHIFT).long().clamp(max=_HALF - 1)
    return torch.where(upper, N_CELLS - 1 - cell, cell)


def cell_values() -> Floats:
    """Return the middle of each cell as float64 ``[N_CELLS]``, with 0 and 1 at the ends."""
    bits = (np.arange(_HALF, dtype=np.uint32) << _SHIFT) + (1 << (_SHIFT - 1))
    lower = bits.view(np.float32).astype(np.float64)
    lower[0] = 0.0
    return np.concatenate([lower, 1 - lower[::-1]])


class FineHistogram:
    """Numbers of voxels and of hits of each class in each cell, as integers that add up.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int) -> None:
        self.count: Integers = np.zeros((num_classes, N_CELLS), dtype=np.int64)
        """Voxels, ``[C, N_CELLS]``."""
        self.hits: Integers = np.zeros((num_classes, N_CELLS), dtype=np.int64)
        """Voxels whose target is the class, ``[C, N_CELLS]``."""

    def add(self, p: Tensor, present: Tensor) -> None:
        """Count voxels.

        Args:
            p: Probabilities ``[C, n]``.
            present: Which classes each voxel has, bool ``[C, n]``.
        """
        for k, (cell, hit) in enumerate(zip(cells(p).cpu(), present.cpu(), strict=True)):
            self.count[k] += torch.bincount(cell, minlength=N_CELLS).numpy()
            self.hits[k] += torch.bincount(cell[hit], minlength=N_CELLS).numpy()

    def __add__(self, other: FineHistogram) -> FineHistogram:
        """Return what both have counted."""
        made = FineHistogram(0)
        made.count, made.hits = self.count + other.count, self.hits + other.hits
        return made

    def __getstate__(self) -> tuple[tuple[int, ...], Integers, Integers, Integers]:
        """Return the cells that are not empty: a volume fills few of them."""
        filled = np.flatnonzero(self.count)
        return self.count.shape, filled, self.count.flat[filled], self.hits.flat[filled]

    def __setstate__(self, state: tuple[tuple[int, ...], Integers, Integers, Integers]) -> None:
        shape, filled, count, hits = state
        self.count, self.hits = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        self.count.flat[filled], self.hits.flat[filled] = count, hits


def isotonic_curve(count: Integers, hits: Integers, x: Floats) -> tuple[Floats, Floats]:
    """Find the rising curve that is closest to the shares of hits.

    It minimises squared errors weighted by counts, by pooling adjacent violators (Barlow et al.,
    1972). Its knots are the ends of each level, as in scikit-learn; it is linear between them.

    Args:
        count: Voxels in each cell.
        hits: Hits among them.
        x: Probability of each cell, rising.

    Returns:
        The knots, probabilities and their calibrated values, both rising.
    """
    filled = count.nonzero()[0]
    tops: list[int] = []
    weights: list[int] = []
    first: list[int] = []
    for place, cell in enumerate(filled):
        top, weight, start = int(hits[cell]), int(count[cell]), place
        # Shares are compared as products of integers, which are exact.
        while tops and tops[-1] * weight >= top * weights[-1]:
            top, weight, start = top + tops.pop(), weight + weights.pop(), first.pop()
        tops.append(top)
        weights.append(weight)
        first.append(start)
    knots: list[float] = []
    levels: list[float] = []
    ends = [*first[1:], len(filled)]
    for top, weight, start, end in zip(tops, weights, first, ends, strict=True):
        for place in dict.fromkeys((start, end - 1)):
            knots.append(float(x[filled[place]]))
            levels.append(top / weight)
    return np.array(knots), np.array(levels)
