"""The parts of a Brier score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from fastcal.calibration.rows import Rows
from fastcal.calibration.values import exact_sum


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
    """Twice the covariance: what the probabilities tell inside bins; higher is better."""


def brier_parts(rows: Rows) -> BrierParts:
    """Decompose one row's Brier score; each part is rounded once.

    Raises:
        ValueError: Classwise bins were not kept.
    """
    histograms = rows.classwise_cells().tolist()
    row, layout = rows.words, rows.settings.layout
    n = int(row[layout.N_VOXELS])
    if n == 0:
        return BrierParts(*(math.nan,) * 5)
    score = exact_sum(row[layout.BRIER], row[layout.BRIER + 1]) / n
    reliability = resolution = uncertainty = Fraction(0)
    for histogram in histograms:
        share = Fraction(sum(hits for _, hits, _, _ in histogram), n)
        uncertainty += share * (1 - share)
        for count, hits, whole, fraction in histogram:
            if count:
                seen = Fraction(hits, count)
                reliability += (exact_sum(whole, fraction) / count - seen) ** 2 * count / n
                resolution += (seen - share) ** 2 * count / n
    rest = score - reliability + resolution - uncertainty
    parts = map(float, (score, reliability, resolution, uncertainty, rest))
    within = _within_bins(rows, n) if layout.extras.moments else ()
    return BrierParts(*parts, *within)


def _within_bins(rows: Rows, n: int) -> tuple[float, float]:
    """Variance, and twice the covariance, inside classwise bins; each is rounded once."""
    variance = covariance = Fraction(0)
    found = rows.classwise_cells().reshape(-1, 4).tolist()
    moments = rows.words[rows.settings.layout.moments].reshape(-1, 4).tolist()
    for (count, hits, *of_p), (*of_squares, _, _), (_, _, *of_hits) in zip(
        found, moments, moments, strict=True
    ):
        if count:
            total = exact_sum(*of_p)
            variance += (exact_sum(*of_squares) - total * total / count) / n
            covariance += 2 * (exact_sum(*of_hits) - total * hits / count) / n
    return float(variance), float(covariance)
