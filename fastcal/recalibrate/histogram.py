"""A fine histogram of probabilities, mergeable, and the isotonic curve through it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_MANTISSA = 9
_SHIFT = 23 - _MANTISSA
_HALF = 0x3F000000 >> _SHIFT
"""Cells below one half."""
N_CELLS = 2 * _HALF
"""129,024 cells: 512 for each power of two of p below one half, and of 1 - p above it."""


def cells(p: Tensor) -> Tensor:
    """The cell of each probability, int64 in [0, `N_CELLS`), rising with p.

    Cells are spaced by the float32 bits of p below one half and of 1 - p above, so that a
    saturated network's voxels do not share one: all values of a cell lie within 2^-9 of each
    other, relative to p or to 1 - p.
    """
    p = p.double().clamp(0, 1)
    upper = p >= 0.5
    near = torch.where(upper, 1 - p, p).float()
    # 1 - p of exactly one half belongs to the topmost of the lower cells, mirrored.
    cell = (near.view(torch.int32) >> _SHIFT).long().clamp(max=_HALF - 1)
    return torch.where(upper, N_CELLS - 1 - cell, cell)


def cell_values() -> Floats:
    """A probability in the middle of each cell, float64 [`N_CELLS`]; 0 and 1 at the ends."""
    bits = (np.arange(_HALF, dtype=np.uint32) << _SHIFT) + (1 << (_SHIFT - 1))
    lower = bits.view(np.float32).astype(np.float64)
    lower[0] = 0.0
    return np.concatenate([lower, 1 - lower[::-1]])


class FineHistogram:
    """How many voxels, and how many hits, each class has in each cell; integers that add up.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int) -> None:
        self.count: Integers = np.zeros((num_classes, N_CELLS), dtype=np.int64)
        """[C, `N_CELLS`]"""
        self.hits: Integers = np.zeros((num_classes, N_CELLS), dtype=np.int64)
        """[C, `N_CELLS`], voxels of them whose target is the class."""

    def add(self, p: Tensor, present: Tensor) -> None:
        """Count probabilities [C, n] of voxels whose classes are ``present``, bool [C, n]."""
        for k, (cell, hit) in enumerate(zip(cells(p).cpu(), present.cpu(), strict=True)):
            self.count[k] += torch.bincount(cell, minlength=N_CELLS).numpy()
            self.hits[k] += torch.bincount(cell[hit], minlength=N_CELLS).numpy()

    def merge(self, other: FineHistogram) -> None:
        """Add what ``other`` has counted."""
        self.count += other.count
        self.hits += other.hits


def isotonic_curve(count: Integers, hits: Integers, x: Floats) -> tuple[Floats, Floats]:
    """The rising step function closest to the shares of hits, as knots between which it is linear.

    Least squares weighted by counts, by pooling adjacent violators (Barlow et al., 1972); the
    knots are the ends of each level, as in scikit-learn.

    Args:
        count: Voxels in each cell.
        hits: Hits among them.
        x: Probability of each cell, rising.

    Returns:
        Knots: probabilities and their calibrated values, both rising.
    """
    filled = count.nonzero()[0]
    tops: list[int] = []
    weights: list[int] = []
    first: list[int] = []
    for place, cell in enumerate(filled):
        top, weight, start = int(hits[cell]), int(count[cell]), place
        # Shares compared as products of integers: exact.
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
