"""Exact arithmetic on rows of integers, and the calibration error of a histogram.

Rows may have any leading axes; the words are the last. Sums are kept in two words, so a ratio is
formed from whole numbers and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fastcal.core.problem import FRACTION_BITS, StatisticsLayout

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

LOW_BITS = (1 << FRACTION_BITS) - 1
"""Mask of a fractional word."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Bins of the probability, any number of histograms at once."""

    cells: Integers
    """``[..., n_bins, 4]``: count, hits, whole part and fraction of the summed confidence."""
    total: Integers
    """``[...]``, all samples: more than the bins hold where some samples fall into no bin."""


def carried(rows: Integers, layout: StatisticsLayout) -> Integers:
    """Return ``rows`` with every fractional word back in [0, 2^40)."""
    rows = rows.copy()
    low = np.asarray(layout.low_words)
    rows[..., low - 1] += rows[..., low] >> FRACTION_BITS
    rows[..., low] &= LOW_BITS
    return rows


def ratio(numerator: Integers | Floats, denominator: Integers) -> Floats:
    """Return the quotient, NaN where the denominator is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator == 0, np.nan, numerator / denominator)


def mean_of_sum(whole: Integers, fraction: Integers, count: Integers) -> Floats:
    """Return ``(whole + fraction 2^-40) / count``, rounded once; NaN where ``count`` is 0."""
    whole, fraction, count = np.broadcast_arrays(whole, fraction, count)
    means = [
        ((w << FRACTION_BITS) + f) / (n << FRACTION_BITS) if n else np.nan
        for w, f, n in zip(
            whole.ravel().tolist(), fraction.ravel().tolist(), count.ravel().tolist(), strict=True
        )
    ]
    return np.array(means, dtype=np.float64).reshape(count.shape)


def exact_sum(whole: int | np.int64, fraction: int | np.int64) -> Fraction:
    """Return the real number that two words hold."""
    return Fraction((int(whole) << FRACTION_BITS) + int(fraction), 1 << FRACTION_BITS)


def calibration_error(
    histogram: Histogram,
    norm: Literal["l1", "l2", "max", "mean"],
    *,
    debias: bool = False,
    min_count: int = 0,
    scale: int = 1,
) -> Floats:
    """Return the calibration error of each histogram, ``[...]``; NaN where it is empty.

    With D_b samples in bin b and N samples in all, ``l1`` is ``sum_b D_b / N |acc - conf|``,
    ``l2`` the root of the mean of the squared gaps with the same weights, ``max`` the largest gap,
    and ``mean`` the unweighted mean of the gaps of the bins that are not empty.

    Args:
        histogram: The bins, and N.
        norm: See above.
        debias: Subtract ``acc (1 - acc) / (D - 1)`` from each squared gap of ``l2``, the variance
            of its accuracy (Kumar et al., NeurIPS 2019). Bins of one sample then add nothing.
        min_count: Bins with this many samples or fewer are left out, but still count in N.
        scale: The result is multiplied by it: 100 for per cent.
    """
    bins, total = histogram.cells, histogram.total
    if min_count:
        bins = np.where(bins[..., :1] > min_count, bins, 0)
    count, hits, whole, fraction = np.moveaxis(bins, -1, 0)
    # The hits of a bin less its summed confidence are: ahead - fraction 2^-40.
    ahead = hits - whole
    if norm == "l1":
        negative = (ahead < 0) | ((ahead == 0) & (fraction > 0))
        sign = np.where(negative, -scale, scale)
        return mean_of_sum((sign * ahead).sum(-1), (-sign * fraction).sum(-1), total)
    surplus = np.abs(ahead - fraction * 2.0**-FRACTION_BITS)
    size = np.maximum(count, 1)
    if norm == "l2":
        squares = surplus * surplus / size
        if debias:
            noise = hits / size * (count - hits) / np.maximum(count - 1, 1)
            squares = np.where(count > 1, squares - noise, 0.0)
        mean = squares.sum(-1) / np.maximum(total, 1)
        return np.where(total == 0, np.nan, scale * np.sqrt(np.maximum(mean, 0.0)))
    gap = surplus / size
    n_filled = (count > 0).sum(-1)
    error = gap.max(-1) if norm == "max" else gap.sum(-1) / np.maximum(n_filled, 1)
    return np.where(n_filled == 0, np.nan, scale * error)


def mean_over_cases(values: Floats) -> Floats:
    """Return the mean over the first axis without NaN, whatever its order; NaN if all are NaN."""
    columns = values.reshape(values.shape[0], -1).T
    means = []
    for column in columns:
        defined = column[~np.isnan(column)]
        means.append(math.fsum(defined) / defined.size if defined.size else np.nan)
    return np.array(means).reshape(values.shape[1:])


def mean_over_classes(values: Floats) -> Floats:
    """Return the mean over the last axis without NaN; NaN if all are NaN."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(-1), defined.sum(-1))


def mean_of_defined(values: Iterable[float]) -> float:
    """Return the mean of the numbers that are not NaN; NaN if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
