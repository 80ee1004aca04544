"""Measures of order, from cells ``[..., n, 2]`` of samples and their hits, in ascending order.

Count and hits of a cell are exact. Within a cell, hits are taken to be spread evenly over its
samples, and a sample's probability is the middle of its cell. Each function says what that costs.
With one cell for every value that occurs (`fastcal.scores.cells`), it costs nothing: the samples of
a cell are ties, and the measure is its mean over the orders that ties could have.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from fastcal.calibration.values import Floats, Integers, ratio
from fastcal.core import bins

_TABLE = 64
"""Harmonic numbers up to here are looked up, larger ones by their asymptotic series."""


def auroc(cells: Integers | Floats) -> Floats:
    """Return the probability that a hit lies above a miss; NaN without one of each.

    Ties count half, and so do pairs within a cell: it is off by at most
    ``sum_c hits_c misses_c / (2 hits misses)``.
    """
    hits = cells[..., 1].astype(np.float64)
    misses = cells[..., 0] - hits
    below = misses.cumsum(-1) - misses
    won = (hits * (below + misses / 2)).sum(-1)
    pairs = hits.sum(-1) * misses.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs == 0, np.nan, won / pairs)


def aurc(cells: Integers | Floats, *, excess: bool = False) -> Floats:
    """Return the error rate of the k most confident samples, mean over k; NaN without samples.

    Off by at most ``1/N sum_c e (n - e) / n (H(K + n) - H(K))`` over cells of n samples, e of them
    wrong, K more confident ones; H are harmonic numbers.

    Args:
        cells: Fine cells of the confidence.
        excess: Subtract the smallest value that these errors could have, with every error behind
            every right sample (Geifman et al., ICLR 2019).
    """
    size = cells[..., ::-1, 0].astype(np.float64)
    wrong = size - cells[..., ::-1, 1]
    kept, errors = size.cumsum(-1) - size, wrong.cumsum(-1) - wrong
    # sum over j = 1 ... n of (E + e j / n) / (K + j)
    share = wrong / np.maximum(size, 1)
    areas = (wrong + (errors - share * kept) * _harmonic(kept, size)).sum(-1)
    total, n_wrong = size.sum(-1), wrong.sum(-1)
    if excess:
        right = total - n_wrong
        areas = np.maximum(areas - (n_wrong - right * _harmonic(right, n_wrong)), 0.0)
    return ratio(areas, total)


def augrc(cells: Integers | Floats) -> Floats:
    """Return the joint rate of being among the k most confident and wrong, mean over k.

    The area under the generalised risk-coverage curve: the chance that of two samples drawn, the
    less confident one is let through and the other is wrong. For right and wrong samples it is
    ``(1 - AUROC) acc (1 - acc) + (1 - acc)^2 / 2``. Ties are let through together, and the area is
    that of trapezoids. NaN without samples.

    Source: Traub et al., NeurIPS 2024, and their FD-Shifts.
    """
    size = cells[..., ::-1, 0].astype(np.float64)
    wrong = size - cells[..., ::-1, 1]
    errors = wrong.cumsum(-1) - wrong
    total = size.sum(-1)
    return ratio((size * (errors + wrong / 2)).sum(-1), total * total)


def average_precision(cells: Integers | Floats) -> Floats:
    """Return the area under precision by recall, in steps, as scikit-learn has it.

    Hits are to be found, and lie in the upper cells. NaN without a hit.
    """
    size, hits = (cells[..., ::-1, k].astype(np.float64) for k in (0, 1))
    precision = hits.cumsum(-1) / np.maximum(size.cumsum(-1), 1)
    return ratio((hits * precision).sum(-1), hits.sum(-1))


def false_positive_rate(cells: Integers | Floats, recall: float) -> Floats:
    """Return the share of misses above the highest cell that lets this share of hits through.

    Hits are to be found, and lie in the upper cells; a cell is let through whole. FPR95 has a
    ``recall`` of 0.95. NaN without one of each.
    """
    hits = cells[..., ::-1, 1].astype(np.float64)
    misses = cells[..., ::-1, 0] - hits
    total = hits.sum(-1, keepdims=True)
    # Counts are whole numbers: a share of 95 % of 20 must not be missed by rounding.
    enough = hits.cumsum(-1) >= recall * total - 1e-9
    first = np.argmax(enough, axis=-1)[..., None]
    let_through = np.take_along_axis(misses.cumsum(-1), first, -1)[..., 0]
    found = ratio(let_through, misses.sum(-1))
    return np.where(total[..., 0] == 0, np.nan, found)


def adaptive_error(
    cells: Integers,
    n_bins: int,
    norm: Literal["l1", "l2", "max"],
    *,
    threshold: float = 0.0,
    scale: int = 1,
) -> Floats:
    """Return the calibration error over bins of equal numbers of samples; NaN without samples.

    The sorted samples are cut in ``n_bins`` parts whose sizes differ by at most one, larger parts
    first. ``l1`` is off by at most ``8 / fine_bins`` (half of the widest cell) plus
    ``n_c / (2 N)`` for every cut through a cell of n_c of N samples.

    Args:
        cells: Fine cells.
        n_bins: Number of parts.
        norm: See `fastcal.calibration.values.calibration_error`.
        threshold: Samples below it are left out; of a cell its middle is compared.
        scale: The result is multiplied by it: 100 for per cent.
    """
    n_cells = cells.shape[-2]
    centres = bins.fine_centres(n_cells)
    kept = (centres >= threshold)[:, None]
    rows = cells.reshape(-1, n_cells, 2)
    found = [_adaptive_error(np.where(kept, row, 0), n_bins, norm, centres) for row in rows]
    return scale * np.array(found, dtype=np.float64).reshape(cells.shape[:-2])


def _adaptive_error(cells: Integers, n_bins: int, norm: str, centres: Floats) -> float:
    size, hits = cells.T
    running = size.cumsum()
    total = int(running[-1])
    if total == 0:
        return float("nan")
    k = np.arange(n_bins + 1)
    cuts = k * (total // n_bins) + np.minimum(k, total % n_bins)
    cell = np.searchsorted(running, cuts)
    inside = cuts - (running[cell] - size[cell])
    part = inside / np.maximum(size[cell], 1)
    hits_below = (hits.cumsum() - hits)[cell] + part * hits[cell]
    sums = size * centres
    sum_below = (sums.cumsum() - sums)[cell] + inside * centres[cell]
    filled = np.diff(cuts)
    surplus = np.abs(np.diff(hits_below) - np.diff(sum_below))[filled > 0]
    filled = filled[filled > 0]
    if norm == "max":
        return float((surplus / filled).max())
    if norm == "l2":
        return float(np.sqrt((surplus * surplus / filled).sum() / total))
    return float(surplus.sum() / total)


def _harmonic(start: Floats, count: Floats) -> Floats:
    """The sum ``1 / (start + 1) + ... + 1 / (start + count)``."""
    table = np.concatenate([[0.0], (1.0 / np.arange(1, _TABLE + 1)).cumsum()])
    end = start + count
    small = [table[np.minimum(k, _TABLE).astype(np.int64)] for k in (start, end)]
    low, high = np.maximum(start, _TABLE), np.maximum(end, _TABLE)

    def tail(k: Floats) -> Floats:
        square = 1 / (k * k)
        return 0.5 / k - square * (1 / 12 - square * (1 / 120 - square / 252))

    below: Floats = small[1] - small[0]
    return below + np.log1p((high - low) / low) + (tail(high) - tail(low))
