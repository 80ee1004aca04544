"""Sets of cases drawn with replacement, and exact sums over them.

A resample is a vector of how often each case was drawn. Its pooled row is that vector times the
integer rows of the cases, without rounding, so that what is read from it depends on the seed and
the cases only: not on their order, the number of threads, or the linear algebra underneath.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastcal.calibration import values
from fastcal.calibration.reader import MetricReader
from fastcal.calibration.rows import Rows
from fastcal.calibration.values import Floats, Integers
from fastcal.core.arguments import real_number
from fastcal.core.doors import bounded

_EXACT = 2.0**53
"""Whole numbers below it are added and multiplied exactly in float64."""
_CHUNK = 1 << 20
"""Draws held at a time."""
MOST_RESAMPLES = 10**7
"""An interval of more would not be told from it by three digits, and takes hours."""


@dataclass(frozen=True, slots=True)
class Resampling:
    """How cases are drawn, and what an interval holds of it.

    Raises:
        TypeError, ValueError: A number is out of range.
    """

    level: float
    """Confidence level, between 0 and 1."""
    n_resamples: int
    """Sets of cases drawn with replacement."""
    seed: int
    """Of the draws; one seed gives the same draws everywhere."""

    def __post_init__(self) -> None:
        """Check every number."""
        if not 0 < real_number(self.level, "level") < 1:
            raise ValueError(f"level must lie between 0 and 1, got {self.level:g}")
        bounded(self.n_resamples, "n_resamples", MOST_RESAMPLES)
        bounded(self.seed, "seed", 2**63 - 1, least=0)

    @property
    def tails(self) -> Floats:
        """Shares of the resamples below the two ends of an interval."""
        return np.array([(1 - self.level) / 2, (1 + self.level) / 2])

    def draws(self, n_cases: int) -> Iterator[Floats]:
        """Yield how often each case was drawn, in chunks ``[R, n_cases]``."""
        random = np.random.default_rng(self.seed)
        kind = np.uint16 if n_cases <= 1 << 16 else np.uint32
        step = max(1, _CHUNK // n_cases)
        for start in range(0, self.n_resamples, step):
            size = min(step, self.n_resamples - start)
            cases = random.integers(n_cases, size=(size, n_cases), dtype=kind).astype(np.int64)
            cases += np.arange(size)[:, None] * n_cases
            counts = np.bincount(cases.ravel(), minlength=size * n_cases)
            yield counts.reshape(size, n_cases).astype(np.float64)


def sorted_cases(statistics: MetricReader, *, at_least: int = 1) -> Rows:
    """Return the rows of the cases ``[n_cases, W]`` in ascending order of their ids.

    Raises:
        ValueError: There are no cases or fewer than ``at_least``, or some voxels came without id.
    """
    rows = statistics.rows("case")
    if len(rows.words) < at_least:
        raise ValueError(f"statistics must hold at least {at_least} cases, got {len(rows.words)}")
    return Rows(rows.words[np.argsort(np.array(statistics.case_ids))], rows.settings)


def percentiles(distribution: Floats, shares: Floats) -> tuple[float, float]:
    """Return two quantiles of the resamples that are not NaN; NaN if none is left."""
    defined = distribution[~np.isnan(distribution)]
    if defined.size == 0 or np.isnan(shares).any():
        return np.nan, np.nan
    low, high = np.quantile(defined, shares)
    return float(low), float(high)


def weighted_sum(counts: Floats, rows: Integers) -> Integers:
    """Return ``counts @ rows`` without rounding: numbers ``[R, n]`` times integers ``[n, W]``.

    It uses the fast matrix product of float64, whose order of additions does not matter here: every
    partial sum is a whole number below 2^53. Words too large for that are cut in two.
    """
    heaviest = float(counts.sum(1).max())
    if heaviest * float(np.abs(rows).max(initial=0)) < _EXACT:
        return (counts @ rows.astype(np.float64)).astype(np.int64)
    if heaviest * 2.0**37 >= _EXACT:
        return counts.astype(np.int64) @ rows
    high = (counts @ (rows >> 26).astype(np.float64)).astype(np.int64)
    low = (counts @ (rows & (2**26 - 1)).astype(np.float64)).astype(np.int64)
    return (high << 26) + low


def weighted_mean(counts: Floats, found: Floats) -> Floats:
    """Return the mean of ``found [n]`` with weights ``counts [R, n]``, NaN left out.

    The result does not depend on how the matrix product adds, because it adds whole numbers
    (multiples of 2^-80 of the largest).
    """
    defined = ~np.isnan(found)
    weights, kept = (counts, found) if defined.all() else (counts[:, defined], found[defined])
    total = weights.sum(1)
    heaviest = float(total.max(initial=1.0))
    largest = float(np.abs(kept).max(initial=0.0))
    if largest == 0.0:
        return values.ratio(np.zeros(len(counts)), total)
    unit = 2.0 ** (np.frexp(largest * heaviest)[1] - 52)
    fine = unit * 2.0 ** (np.frexp(heaviest)[1] - 52)
    high = np.rint(kept / unit)
    low = np.rint((kept - high * unit) / fine)
    return values.ratio((weights @ high) * unit + (weights @ low) * fine, total)
