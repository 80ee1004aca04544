"""Intervals and tests over cases: what another set of patients could have given.

Voxels of one case are not independent, but cases are: cases are drawn, never voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from fastcal.calibration import values
from fastcal.calibration.metrics import Measure, Reduction, as_measure, measured
from fastcal.calibration.reader import MetricReader
from fastcal.calibration.resampling import (
    Resampling,
    percentiles,
    sorted_cases,
    weighted_mean,
    weighted_sum,
)
from fastcal.calibration.rows import Rows
from fastcal.calibration.values import Floats, Integers
from fastcal.core.shown import Rows as ShownRows
from fastcal.core.shown import as_html, as_text, counted

Method = Literal["percentile", "bca"]
Alternative = Literal["two-sided", "less", "greater"]

_WORDS = 1 << 25
"""Words of pooled rows held at a time."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A bootstrap confidence interval over cases."""

    estimate: float
    """From the cases as they are, each of them once."""
    low: float
    high: float
    level: float
    """Confidence level, 0.95 for 95 %."""
    n_cases: int
    distribution: Floats
    """``[n_resamples]``, the measure of each resample."""

    def __repr__(self) -> str:
        return as_text(self._heading, self._rows)

    def _repr_html_(self) -> str:
        return as_html(self._heading, self._rows)

    @property
    def _heading(self) -> str:
        return f"Interval {self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}]"

    @property
    def _rows(self) -> ShownRows:
        return [
            ("level", f"{100 * self.level:g} %"),
            ("cases", f"{self.n_cases:,}"),
            ("drawn", counted(len(self.distribution), "resample")),
        ]


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
    statistics: MetricReader,
    measure: Measure | str = "ece",
    *,
    reduction: Reduction | None = None,
    method: Method = "percentile",
    level: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Return a confidence interval of a measure, by resampling cases.

    Args:
        statistics: Counted with a ``case_id`` for every voxel.
        measure: A name of `METRICS`, or a `Measure` with its options.
        reduction: ``"pooled"``: the measure of all voxels of the cases drawn. ``"case"``: the mean
            over the cases drawn; cases without a value (Dice of an absent class) are left out.
            None is ``"case"`` for Dice and ``"pooled"`` for all others.
        method: ``"percentile"``, or ``"bca"``, which corrects bias and skewness (Efron, JASA
            1987). Prefer it for errors near 0, whose distribution is skewed.
        level: Confidence level, between 0 and 1.
        n_resamples: Sets of cases drawn with replacement.
        seed: Of the draws. The interval depends on the seed and the cases only, not on their order.

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
    _check(reduction, method)
    resampling = Resampling(level, n_resamples, seed)
    sample = _Sample(statistics, as_measure(measure), reduction)
    distribution = sample.distribution(resampling)
    found = _Found(sample.estimate, distribution, distribution - sample.of_all, sample.without_each)
    return found.interval(method, resampling)


def paired_bootstrap(
    first: MetricReader,
    second: MetricReader,
    measure: Measure | str = "ece",
    *,
    reduction: Reduction | None = None,
    method: Method = "percentile",
    level: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Return a confidence interval of the difference of a measure, ``first`` less ``second``.

    Both methods are evaluated on the same cases drawn, so that what makes a case hard cancels. An
    interval without 0 is a difference that other patients would show too.

    ``first`` and ``second`` hold the same cases by two methods, with a ``case_id`` for every voxel.
    The other arguments are those of `bootstrap`.

    Raises:
        TypeError, ValueError: See `bootstrap`; or the cases are not the same.

    Example:
        >>> import torch
        >>> from fastcal import CalibrationStatistics
        >>> p, target = torch.tensor([[[0.4], [0.6]], [[0.2], [0.8]]]), torch.tensor([[1], [1]])
        >>> one, two = CalibrationStatistics(num_classes=2), CalibrationStatistics(num_classes=2)
        >>> one.update(p, target, case_id=["a", "b"])
        >>> two.update(p.flip(0), target, case_id=["a", "b"])
        >>> paired_bootstrap(one, two, "brier").estimate
        0.0
    """
    _check(reduction, method)
    _check_same_cases(first, second)
    resampling, measure = Resampling(level, n_resamples, seed), as_measure(measure)
    one, two = (_Sample(side, measure, reduction) for side in (first, second))
    distribution = one.distribution(resampling) - two.distribution(resampling)
    found = _Found(
        one.estimate - two.estimate,
        distribution,
        distribution - (one.of_all - two.of_all),
        one.without_each - two.without_each,
    )
    return found.interval(method, resampling)


def wilcoxon(
    first: MetricReader,
    second: MetricReader,
    measure: Measure | str = "ece",
    *,
    alternative: Alternative = "two-sided",
) -> SignedRank:
    """Return Wilcoxon's signed-rank test of a measure of each case (Biometrics Bulletin, 1945).

    Args:
        first: Counted with a ``case_id`` for every voxel.
        second: The same cases by another method.
        measure: A name of `METRICS`, or a `Measure` with its options.
        alternative: ``"two-sided"``, or the first is ``"less"`` or ``"greater"`` than the second.

    Returns:
        SciPy's statistic and p-value: NaN where no case has a value in both, and a p-value of 1
        where no case differs.

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
        self, statistics: MetricReader, measure: Measure, reduction: Reduction | None
    ) -> None:
        words, kind = measure.metric.words, measure.kind
        self._cases = sorted_cases(statistics, at_least=2).narrowed(words, kind)
        self._measure = measure
        self._by_case = measured(self._cases, measure)
        self._pooled = (reduction or measure.metric.reduction) == "pooled"
        self.n_cases = len(self._by_case)
        counts = slice(0, self._cases.settings.layout.true_positive.stop)
        self._columns = np.r_[counts, self._cases.columns(words, kind)]

    @property
    def estimate(self) -> float:
        """Of every case once, bit-identical to the method of the statistics."""
        if self._pooled:
            return self.of_all
        return float(values.mean_over_cases(self._by_case))

    @property
    def of_all(self) -> float:
        """Of every case once, bit-identical to a resample that holds every case once."""
        return float(self.resampled(np.ones((1, self.n_cases)))[0])

    @property
    def without_each(self) -> Floats:
        """``[n_cases]``, the measure with one case left out."""
        if self._pooled:
            words = self._cases.words
            return self._of_pooled(words.sum(0) - words)
        return weighted_mean(1.0 - np.eye(self.n_cases), self._by_case)

    def distribution(self, resampling: Resampling) -> Floats:
        """The measure of each resample, ``[n_resamples]``."""
        return np.concatenate([self.resampled(counts) for counts in resampling.draws(self.n_cases)])

    def resampled(self, counts: Floats) -> Floats:
        """``[R]`` of how often each case was drawn, ``[R, n_cases]``."""
        if not self._pooled:
            return weighted_mean(counts, self._by_case)
        step = max(1, _WORDS // self._cases.words.shape[1])
        parts = range(0, len(counts), step)
        return np.concatenate([self._of_sums(counts[k : k + step]) for k in parts])

    def _of_sums(self, counts: Floats) -> Floats:
        words = self._cases.words
        summed = np.zeros((len(counts), words.shape[1]), np.int64)
        summed[:, self._columns] = weighted_sum(counts, words[:, self._columns])
        return self._of_pooled(summed)

    def _of_pooled(self, words: Integers) -> Floats:
        settings = self._cases.settings
        return measured(Rows(values.carried(words, settings.layout), settings), self._measure)


@dataclass(frozen=True, slots=True)
class _Found:
    """What an interval is made of."""

    estimate: float
    distribution: Floats
    """``[n_resamples]``"""
    shift: Floats
    """The distribution less the estimate, both computed the same way."""
    without_each: Floats
    """``[n_cases]``, the estimate with one case left out."""

    def interval(self, method: Method, resampling: Resampling) -> Interval:
        shares = resampling.tails
        low = high = np.nan
        if not np.isnan(self.estimate):
            if method == "bca":
                shares = _corrected(shares, self.shift[~np.isnan(self.shift)], self.without_each)
            low, high = percentiles(self.distribution, shares)
        n_cases = len(self.without_each)
        return Interval(self.estimate, low, high, resampling.level, n_cases, self.distribution)


def _corrected(shares: Floats, shift: Floats, without_each: Floats) -> Floats:
    """Efron's BCa quantiles; NaN where all resamples lie on one side of the estimate."""
    if shift.size == 0:
        return np.full(2, np.nan)
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


def _check(reduction: str | None, method: str) -> None:
    if reduction not in (None, "pooled", "case"):
        raise ValueError(f"reduction must be 'pooled' or 'case', got {reduction!r}")
    if method not in ("percentile", "bca"):
        raise ValueError(f"method must be 'percentile' or 'bca', got {method!r}")


def _check_same_cases(first: MetricReader, second: MetricReader) -> None:
    only = sorted(set(first.case_ids) ^ set(second.case_ids))
    if only:
        raise ValueError(
            f"first and second must hold the same cases, got {only[0]!r} in only one of them"
        )
