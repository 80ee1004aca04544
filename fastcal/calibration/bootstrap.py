"""Intervals and tests over cases: what another set of patients could have given.

Voxels of one case are not independent, cases are: cases are drawn, never voxels. A resample is a
vector of how often each case was drawn; its pooled row is that vector times the integer rows,
exact, so that an interval depends on the seed and the cases alone: not on their order, the number
of threads, or the linear algebra underneath.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from fastcal.calibration import values
from fastcal.calibration.measures import Measure, MeasureName, Reduction
from fastcal.calibration.metrics import as_measure
from fastcal.calibration.statistics import CalibrationStatistics
from fastcal.calibration.values import Floats, Integers
from fastcal.core.arguments import real_number, whole_number

Method = Literal["percentile", "bca"]
Alternative = Literal["two-sided", "less", "greater"]

_EXACT = 2.0**53
"""Whole numbers below it are added and multiplied exactly in float64."""
_CHUNK = 1 << 20
"""Draws held at a time."""
_WORDS = 1 << 25
"""Words of pooled rows held at a time."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A bootstrap confidence interval over cases."""

    estimate: float
    """From the cases as they are."""
    low: float
    high: float
    level: float
    """Confidence level, 0.95 for 95 %."""
    n_cases: int
    distribution: Floats
    """``[n_resamples]``, the measure of each resample."""


@dataclass(frozen=True, slots=True)
class SignedRank:
    """Wilcoxon's signed-rank test of the differences between two methods, case by case."""

    statistic: float
    p_value: float
    median_difference: float
    """Of the first method less the second."""
    n_cases: int
    """Cases for which both have a value."""


def bootstrap(
    statistics: CalibrationStatistics,
    measure: Measure | MeasureName = "ece",
    *,
    reduction: Reduction = "pooled",
    method: Method = "percentile",
    level: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Confidence interval of a measure, by resampling cases.

    Args:
        statistics: Counted with a ``case_id`` for every voxel.
        measure: A metric's name, or a `Measure` with its options.
        reduction: ``"pooled"``: the measure of all voxels of the cases drawn. ``"case"``: the mean
            over the cases drawn; cases without a value (Dice of an absent class) are left out.
        method: ``"percentile"``, or ``"bca"``, which corrects bias and skewness (Efron, JASA
            1987); prefer it for errors near 0, whose distribution is skewed.
        level: Confidence level, between 0 and 1.
        n_resamples: Sets of cases drawn with replacement.
        seed: Of the draws; one seed gives one interval.

    Returns:
        The interval, in the units of the measure; NaN bounds where the measure is NaN.

    Raises:
        TypeError, ValueError: An argument does not fit, voxels came without case ids, or there
            are fewer than two cases.

    Example:
        >>> import torch
        >>> from fastcal import CalibrationStatistics
        >>> statistics = CalibrationStatistics(num_classes=2)
        >>> p = torch.tensor([0.6, 0.7, 0.8, 0.9])[:, None]
        >>> probs, target = torch.stack([1 - p, p], dim=1), torch.tensor([[1], [1], [0], [1]])
        >>> statistics.update(probs, target, case_id=["a", "b", "c", "d"])
        >>> found = bootstrap(statistics, "accuracy")
        >>> found.estimate, found.low, found.high
        (0.75, 0.25, 1.0)
    """
    _check(reduction, method, level, n_resamples)
    sample = _Sample(statistics, as_measure(measure), reduction)
    drawn = _draws(sample.n_cases, n_resamples, seed)
    distribution = np.concatenate([sample.resampled(counts) for counts in drawn])
    return _interval(
        sample.estimate,
        distribution,
        distribution - sample.of_all,
        sample.without_each,
        method,
        level,
    )


def paired_bootstrap(
    first: CalibrationStatistics,
    second: CalibrationStatistics,
    measure: Measure | MeasureName = "ece",
    *,
    reduction: Reduction = "pooled",
    method: Method = "percentile",
    level: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Confidence interval of the difference of a measure, ``first`` less ``second``.

    Both methods are evaluated on the same cases drawn, so that what makes a case hard cancels: an
    interval without 0 is a difference that other patients would show too.

    Args:
        first: Counted with a ``case_id`` for every voxel.
        second: The same cases by another method.
        measure: See `bootstrap`, as for the rest.

    Raises:
        TypeError, ValueError: As in `bootstrap`, or the cases are not the same.
    """
    _check(reduction, method, level, n_resamples)
    _check_same_cases(first, second)
    measure = as_measure(measure)
    one, two = (_Sample(side, measure, reduction) for side in (first, second))
    drawn = _draws(one.n_cases, n_resamples, seed)
    distribution = np.concatenate([one.resampled(c) - two.resampled(c) for c in drawn])
    return _interval(
        one.estimate - two.estimate,
        distribution,
        distribution - (one.of_all - two.of_all),
        one.without_each - two.without_each,
        method,
        level,
    )


def wilcoxon(
    first: CalibrationStatistics,
    second: CalibrationStatistics,
    measure: Measure | MeasureName = "ece",
    *,
    alternative: Alternative = "two-sided",
) -> SignedRank:
    """Wilcoxon's signed-rank test of a measure of each case (Biometrics Bulletin, 1945).

    Args:
        first: Counted with a ``case_id`` for every voxel.
        second: The same cases by another method.
        measure: A metric's name, or a `Measure` with its options.
        alternative: ``"two-sided"``, or the first is ``"less"`` or ``"greater"`` than the second.

    Returns:
        SciPy's statistic and p-value; NaN where no case has a value in both, a p-value of 1 where
        no case differs.

    Raises:
        ImportError: SciPy is not installed (the ``report`` extra has it).
        TypeError, ValueError: An argument does not fit, or the cases are not the same.
    """
    from scipy import stats

    if alternative not in ("two-sided", "less", "greater"):
        raise ValueError(
            f"alternative must be 'two-sided', 'less' or 'greater', got {alternative!r}"
        )
    _check_same_cases(first, second)
    mine, theirs = (side.per_case(measure) for side in (first, second))
    difference = np.array([mine[name] - theirs[name] for name in sorted(mine)])
    difference = difference[~np.isnan(difference)]
    if difference.size == 0:
        return SignedRank(np.nan, np.nan, np.nan, 0)
    if not difference.any():
        return SignedRank(0.0, 1.0, 0.0, int(difference.size))
    found = stats.wilcoxon(difference, alternative=alternative)
    return SignedRank(
        float(found.statistic),
        float(found.pvalue),
        float(np.median(difference)),
        int(difference.size),
    )


class _Sample:
    """A measure of the cases of one method, and of any resample of them."""

    def __init__(
        self, statistics: CalibrationStatistics, measure: Measure, reduction: Reduction
    ) -> None:
        rows = statistics._rows("case")
        ids = statistics.case_ids
        self._rows = rows[np.argsort(np.array(ids))]
        self._statistics, self._measure = statistics, measure
        self._by_case = statistics.measured(self._rows, measure)
        self._pooled = reduction == "pooled"
        self.n_cases = len(ids)
        if self.n_cases < 2:
            raise ValueError(f"statistics must hold two cases or more, got {self.n_cases}")
        layout = statistics._state.layout
        bins = statistics.words_of(measure)
        self._columns = np.r_[0 : layout.true_positive.stop, bins]

    @property
    def estimate(self) -> float:
        """Of every case once, to the bits of the statistics' own method."""
        if self._pooled:
            return self.of_all
        return float(values.mean_over_cases(self._by_case))

    @property
    def of_all(self) -> float:
        """Of every case once, to the bits of a resample that holds every case once."""
        return float(self.resampled(np.ones((1, self.n_cases)))[0])

    @property
    def without_each(self) -> Floats:
        """``[n_cases]``, the measure with one case left out."""
        if self._pooled:
            return self._of_pooled(self._rows.sum(0) - self._rows)
        return weighted_mean(1.0 - np.eye(self.n_cases), self._by_case)

    def resampled(self, counts: Floats) -> Floats:
        """``[R]`` of how often each case was drawn, ``[R, n_cases]``."""
        if not self._pooled:
            return weighted_mean(counts, self._by_case)
        step = max(1, _WORDS // self._rows.shape[1])
        parts = range(0, len(counts), step)
        return np.concatenate([self._of_sums(counts[k : k + step]) for k in parts])

    def _of_sums(self, counts: Floats) -> Floats:
        rows = np.zeros((len(counts), self._rows.shape[1]), np.int64)
        rows[:, self._columns] = weighted_sum(counts, self._rows[:, self._columns])
        return self._of_pooled(rows)

    def _of_pooled(self, rows: Integers) -> Floats:
        layout = self._statistics._state.layout
        return self._statistics.measured(values.carried(rows, layout), self._measure)


def weighted_sum(counts: Floats, rows: Integers) -> Integers:
    """``counts @ rows`` without rounding: ``[R, n]`` whole numbers times ``[n, W]`` integers.

    In float64, by the fast matrix product, whose order of additions then does not matter: every
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
    """Mean of ``found [n]`` with weights ``counts [R, n]``, NaN left out; the same bits however
    the matrix product adds, because it adds whole numbers (multiples of 2^-80 of the largest)."""
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


def _draws(n_cases: int, n_resamples: int, seed: int) -> Iterator[Floats]:
    """How often each case was drawn, in chunks ``[R, n_cases]``."""
    random = np.random.default_rng(whole_number(seed, "seed"))
    kind = np.uint16 if n_cases <= 1 << 16 else np.uint32
    step = max(1, _CHUNK // n_cases)
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        cases = random.integers(n_cases, size=(size, n_cases), dtype=kind).astype(np.int64)
        cases += np.arange(size)[:, None] * n_cases
        counts = np.bincount(cases.ravel(), minlength=size * n_cases)
        yield counts.reshape(size, n_cases).astype(np.float64)


def _interval(
    estimate: float,
    distribution: Floats,
    shift: Floats,
    without_each: Floats,
    method: Method,
    level: float,
) -> Interval:
    shares = np.array([(1 - level) / 2, (1 + level) / 2])
    defined = distribution[~np.isnan(distribution)]
    low = high = np.nan
    if defined.size and not np.isnan(estimate):
        if method == "bca":
            shares = _corrected(shares, shift[~np.isnan(shift)], without_each)
        if not np.isnan(shares).any():
            low, high = np.quantile(defined, shares)
    return Interval(estimate, float(low), float(high), level, len(without_each), distribution)


def _corrected(shares: Floats, shift: Floats, without_each: Floats) -> Floats:
    """Efron's BCa quantiles from the resamples' shift against the estimate; NaN where all lie on
    one side of it."""
    normal = NormalDist()
    below = (shift < 0).mean() / 2 + (shift <= 0).mean() / 2
    if not 0 < below < 1:
        return np.full(2, np.nan)
    bias = normal.inv_cdf(float(below))
    jackknife = without_each[~np.isnan(without_each)]
    spread = jackknife.mean() - jackknife
    squares = float((spread**2).sum())
    acceleration = float((spread**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0
    shifted = [bias + normal.inv_cdf(float(share)) for share in shares]
    return np.array([normal.cdf(bias + z / (1 - acceleration * z)) for z in shifted])


def _check(reduction: str, method: str, level: float, n_resamples: int) -> None:
    if reduction not in ("pooled", "case"):
        raise ValueError(f"reduction must be 'pooled' or 'case', got {reduction!r}")
    if method not in ("percentile", "bca"):
        raise ValueError(f"method must be 'percentile' or 'bca', got {method!r}")
    if not 0 < real_number(level, "level") < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level:g}")
    if whole_number(n_resamples, "n_resamples") < 1:
        raise ValueError(f"n_resamples must be positive, got {n_resamples}")


def _check_same_cases(first: CalibrationStatistics, second: CalibrationStatistics) -> None:
    mine, theirs = set(first.case_ids), set(second.case_ids)
    if mine != theirs:
        missing = sorted(mine ^ theirs)
        raise ValueError(
            f"first and second must hold the same cases: {missing[0]!r} is in one alone"
        )
