"""Metrics from rows of exact integers. Rows may have any leading axes; the words are the last.

Sums are kept in two words, so a ratio is formed from whole numbers and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastcal.core.problem import FRACTION_BITS, StatisticsLayout

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


def first_difference(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """Name of a setting that differs; None where all agree."""
    names = (name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name))
    return next(names, None)


def ratio(numerator: Integers | Floats, denominator: Integers) -> Floats:
    """Quotient, NaN where the denominator is 0."""
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


def micro_bins(rows: Integers, layout: StatisticsLayout) -> Integers:
    """``[..., n_cells, 4]``: the histograms of all classes as one."""
    pooled: Integers = classwise_bins(rows, layout).sum(-3)
    pooled[..., 2] += pooled[..., 3] >> FRACTION_BITS
    pooled[..., 3] &= _LOW
    return pooled


def calibration_error(
    bins: Integers,
    norm: Literal["l1", "l2", "max", "mean"],
    *,
    total: Integers,
    debias: bool = False,
    min_count: int = 0,
    scale: int = 1,
) -> Floats:
    """Calibration error of histograms ``[..., n_bins, 4]``, one a histogram; NaN if empty.

    With D samples a bin, N in all: ``l1`` is ``sum_b D_b / N |acc - conf|``, ``l2`` the root of
    the mean of the squared gaps with the same weights, ``max`` the largest gap, ``mean`` the
    unweighted mean of the gaps of the bins that are not empty.

    Args:
        bins: Count, hits, whole and fraction of the summed confidence.
        norm: See above.
        total: N, ``[...]``; more than is in the bins where some samples fall into none.
        debias: Subtract ``acc (1 - acc) / (D - 1)`` from each squared gap of ``l2``, the variance
            of its accuracy (Kumar et al., NeurIPS 2019); bins of one sample add nothing then.
        min_count: Bins with this many samples or fewer are left out, but not of N.
        scale: Multiplies the result: 100 for %.
    """
    if min_count:
        bins = np.where(bins[..., :1] > min_count, bins, 0)
    count, hits, whole, fraction = np.moveaxis(bins, -1, 0)
    # A bin's hits less its summed confidence: ahead - fraction 2^-40.
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


def volume_bias(rows: Integers, layout: StatisticsLayout) -> Floats:
    """Summed probability less number of voxels of each class, ``[..., C]``; NaN if none."""
    _, hits, whole, fraction = np.moveaxis(classwise_bins(rows, layout).sum(-2), -1, 0)
    counted = np.broadcast_to(rows[..., layout.N_VOXELS, None] > 0, hits.shape)
    return mean_of_sum(whole - hits, fraction, counted.astype(np.int64))


@dataclass(frozen=True, slots=True)
class BrierParts:
    """A Brier score, ``reliability - resolution + uncertainty + within_bins``."""

    brier: float
    reliability: float
    """Mean squared gap between a bin's mean probability and its share of the class; lower is
    better."""
    resolution: float
    """Mean squared distance of the bins' shares from the class's share overall; higher is
    better."""
    uncertainty: float
    """``sum_k s_k (1 - s_k)`` of the classes' shares s: the score of predicting those shares."""
    within_bins: float
    """Variance of the probabilities inside bins less twice their covariance with the target,
    summed over classes."""
    within_variance: float | None = None
    """The variance: mean squared distance of a probability from its bin's mean. None without
    ``moments=True``."""
    within_covariance: float | None = None
    """Twice the covariance: what probabilities tell inside bins; higher is better."""


def brier_parts(row: Integers, layout: StatisticsLayout) -> BrierParts:
    """Decomposition of one row; each part is rounded once."""
    n = int(row[layout.N_VOXELS])
    if n == 0:
        return BrierParts(*(math.nan,) * 5)
    score = _exact(row[layout.BRIER], row[layout.BRIER + 1]) / n
    reliability = resolution = uncertainty = Fraction(0)
    for histogram in classwise_bins(row, layout).tolist():
        share = Fraction(sum(hits for _, hits, _, _ in histogram), n)
        uncertainty += share * (1 - share)
        for count, hits, whole, fraction in histogram:
            if count:
                seen = Fraction(hits, count)
                reliability += (_exact(whole, fraction) / count - seen) ** 2 * count / n
                resolution += (seen - share) ** 2 * count / n
    rest = score - reliability + resolution - uncertainty
    parts = map(float, (score, reliability, resolution, uncertainty, rest))
    within = _within_bins(row, layout, n) if layout.extras.moments else ()
    return BrierParts(*parts, *within)


def _within_bins(row: Integers, layout: StatisticsLayout, n: int) -> tuple[float, float]:
    """Variance, and twice the covariance, inside classwise bins; each is rounded once."""
    variance = covariance = Fraction(0)
    found = classwise_bins(row, layout).reshape(-1, 4).tolist()
    moments = row[layout.moments].reshape(-1, 4).tolist()
    for (count, hits, *of_p), (*of_squares, _, _), (_, _, *of_hits) in zip(
        found, moments, moments, strict=True
    ):
        if count:
            total = _exact(*of_p)
            variance += (_exact(*of_squares) - total * total / count) / n
            covariance += 2 * (_exact(*of_hits) - total * hits / count) / n
    return float(variance), float(covariance)


def _exact(whole: int | np.int64, fraction: int | np.int64) -> Fraction:
    return Fraction((int(whole) << FRACTION_BITS) + int(fraction), 1 << FRACTION_BITS)


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


def mean_over_classes(values: Floats) -> Floats:
    """Mean over the last axis of what is not NaN; NaN if nothing is left."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(-1), defined.sum(-1))
