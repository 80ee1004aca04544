"""Numbers of models with intervals over cases, and differences between models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from fastcal.calibration.bootstrap import bootstrap
from fastcal.calibration.metrics import Measure
from fastcal.calibration.resampling import Resampling, percentiles, weighted_mean
from fastcal.core.arrays import Floats

if TYPE_CHECKING:
    from fastcal import CalibrationStatistics

LEVEL, N_RESAMPLES = 0.95, 2000
Direction = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class Measured:
    """A number of a model over cases."""

    estimate: float
    per_case: Floats
    """``[n]``, the cases sorted by name; NaN where a case has no value."""
    distribution: Floats
    """``[N_RESAMPLES]``: the number of other sets of cases, the same ones for every model."""

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval over cases."""
        return interval_of(self.distribution)


@dataclass(frozen=True, slots=True)
class Difference:
    """A number of one model less that of another, on the same cases."""

    estimate: float
    low: float
    high: float
    """The 95 % interval over cases."""
    p_value: float
    """Of Wilcoxon's signed-rank test over cases, two-sided; NaN where no case has both."""
    n_cases: int


def interval_of(distribution: Floats) -> tuple[float, float]:
    """Return the ends of the 95 % interval of resampled numbers, NaN left out."""
    return percentiles(distribution, _resampling(0).tails)


def calibration_of(
    models: Sequence[CalibrationStatistics], measure: Measure | str, *, seed: int = 0
) -> Measured:
    """Return a calibration measure, the mean over several models, each pooled over its cases.

    Args:
        models: Statistics of the same cases, with case ids.
        measure: A name of `fastcal.calibration.METRICS`, or a `Measure` with its options. One case
            has a number, and no distribution.
        seed: Of the cases drawn; models are compared with equal seeds.
    """
    cases = sorted(models[0].case_ids)
    by_case = [one.per_case(measure) for one in models]
    per_case = [[one[case] for case in cases] for one in by_case]
    if len(cases) < 2:
        value = float(np.mean([one.measure(measure) for one in models]))
        return Measured(value, np.mean(per_case, axis=0), np.full(N_RESAMPLES, np.nan))
    found = [bootstrap(one, measure, n_resamples=N_RESAMPLES, seed=seed) for one in models]
    return Measured(
        float(np.mean([one.estimate for one in found])),
        np.mean(per_case, axis=0),
        np.mean([one.distribution for one in found], axis=0),
    )


def mean_of_cases(values: Floats, *, seed: int = 0) -> Measured:
    """Return the mean over cases of a number per case ``[n]``, cases without a value left out."""
    estimate = float(weighted_mean(np.ones((1, len(values))), values)[0])
    if len(values) < 2:
        return Measured(estimate, values, np.full(N_RESAMPLES, np.nan))
    distribution = weighted_mean(draws_of_cases(len(values), seed=seed), values)
    return Measured(estimate, values, distribution)


def mean_of_known(values: Floats) -> Floats:
    """Return the mean over the axis of each case ``[n, ...]`` as ``[n]``, NaN left out.

    Example:
        >>> mean_of_known(np.array([[1.0, np.nan], [np.nan, np.nan]]))
        array([ 1., nan])
    """
    flat = values.reshape(len(values), -1)
    known = ~np.isnan(flat)
    counts = known.sum(1)
    sums = np.where(known, flat, 0.0).sum(1)
    found: Floats = np.divide(sums, counts, out=np.full(len(flat), np.nan), where=counts > 0)
    return found


def draws_of_cases(n_cases: int, *, seed: int = 0) -> Floats:
    """Return how often each case is drawn in every resample, ``[N_RESAMPLES, n]``."""
    return np.concatenate(list(_resampling(seed).draws(n_cases)))


def difference(first: Measured, second: Measured) -> Difference:
    """Return the paired difference of two models, ``first`` less ``second``.

    Raises:
        ImportError: SciPy is not installed (the ``report`` extra has it).
    """
    from scipy import stats

    low, high = interval_of(first.distribution - second.distribution)
    between = first.per_case - second.per_case
    between = between[~np.isnan(between)]
    p_value = float("nan")
    if between.size:
        p_value = float(stats.wilcoxon(between).pvalue) if between.any() else 1.0
    return Difference(first.estimate - second.estimate, low, high, p_value, int(between.size))


def _resampling(seed: int) -> Resampling:
    return Resampling(LEVEL, N_RESAMPLES, seed)
