"""Metrics from rows of exact integers. Rows may have any leading axes; the words are the last.

Sums are kept in two words, so a ratio is formed from whole numbers and rounded once.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fastcal.problem import FRACTION_BITS, StatisticsLayout

Norm = Literal["l1", "l2", "max"]
NORMS = ("l1", "l2", "max")

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_LOW = (1 << FRACTION_BITS) - 1


def carried(rows: Integers, layout: StatisticsLayout) -> Integers:
    """``rows`` with every fractional word back in [0, 2^40)."""
    rows = rows.copy()
    low = np.asarray(layout.low_words)
    rows[..., low - 1] += rows[..., low] >> FRACTION_BITS
    rows[..., low] &= _LOW
    return rows


def ratio(numerator: Integers, denominator: Integers) -> Floats:
    """Quotient of integers, NaN where the denominator is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator == 0, np.nan, numerator / denominator)


def mean_of_sum(whole: Integers, fraction: Integers, count: Integers) -> Floats:
    """``(whole + fraction 2^-40) / count``, rounded once; NaN where ``count`` is 0."""
    whole, fraction, count = np.broadcast_arrays(whole, fraction, count)
    means = [
        ((w << FRACTION_BITS) + f) / (n << FRACTION_BITS) if n else np.nan
        for w, f, n in zip(
            whole.ravel().tolist(), fraction.ravel().tolist(), count.ravel().tolist(), strict=True
        )
    ]
    return np.array(means, dtype=np.float64).reshape(count.shape)


def top_label_bins(rows: Integers, layout: StatisticsLayout) -> Integers:
    """``[..., n_cells, 4]``: count, hits, whole and fraction of the summed confidence."""
    return rows[..., layout.top_label].reshape(*rows.shape[:-1], -1, 4)


def classwise_bins(rows: Integers, layout: StatisticsLayout) -> Integers:
    """``[..., C, n_cells, 4]``: as `top_label_bins`, for the probability of each class."""
    shape = (*rows.shape[:-1], layout.num_classes, -1, 4)
    return rows[..., layout.classwise].reshape(shape)


def calibration_error(bins: Integers, norm: str) -> Floats:
    """Calibration error of histograms ``[..., n_cells, 4]``, one a histogram; NaN if empty.

    With D samples a bin, N in all: ``l1`` is ``sum_b D_b / N |acc - conf|``, ``l2`` the root of
    the mean of the squared gaps with the same weights, ``max`` the largest gap.
    """
    count, hits, whole, fraction = np.moveaxis(bins, -1, 0)
    total = count.sum(-1)
    # A bin's hits less its summed confidence: ahead - fraction 2^-40.
    ahead = hits - whole
    if norm == "l1":
        negative = (ahead < 0) | ((ahead == 0) & (fraction > 0))
        sign = np.where(negative, -1, 1)
        return mean_of_sum((sign * ahead).sum(-1), (-sign * fraction).sum(-1), total)
    gap = np.abs(ahead - fraction * 2.0**-FRACTION_BITS)
    filled = np.maximum(count, 1)
    if norm == "l2":
        squares = (gap * gap / filled).sum(-1)
        error = np.sqrt(squares / np.maximum(total, 1))
    else:
        error = (gap / filled).max(-1)
    return np.where(total == 0, np.nan, error)


def brier(rows: Integers, layout: StatisticsLayout) -> Floats:
    return mean_of_sum(
        rows[..., layout.BRIER], rows[..., layout.BRIER + 1], rows[..., layout.N_VOXELS]
    )


def nll(rows: Integers, layout: StatisticsLayout) -> Floats:
    return mean_of_sum(rows[..., layout.NLL], rows[..., layout.NLL + 1], rows[..., layout.N_VOXELS])


def accuracy(rows: Integers, layout: StatisticsLayout, decisions: int) -> Floats:
    """Share of correct decisions, of which every voxel holds ``decisions``."""
    return ratio(rows[..., layout.N_CORRECT], rows[..., layout.N_VOXELS] * decisions)


def dice(rows: Integers, layout: StatisticsLayout) -> Floats:
    """``2 TP / (predicted + reference)`` a class, ``[..., C]``; NaN where both are empty."""
    sizes = rows[..., layout.predicted] + rows[..., layout.reference]
    return ratio(2 * rows[..., layout.true_positive], sizes)


def mean_over_cases(values: Floats) -> Floats:
    """Mean over the first axis of what is not NaN, whatever its order; NaN if nothing is left."""
    columns = values.reshape(values.shape[0], -1).T
    means = []
    for column in columns:
        defined = column[~np.isnan(column)]
        means.append(math.fsum(defined) / defined.size if defined.size else np.nan)
    return np.array(means).reshape(values.shape[1:])
