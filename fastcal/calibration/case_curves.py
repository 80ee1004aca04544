"""The reliability curve of every case, and what resampling the cases makes of their pool."""

from __future__ import annotations

import numpy as np

from fastcal.calibration import curves, values
from fastcal.calibration.curves import Reliability
from fastcal.calibration.reader import MetricReader
from fastcal.calibration.resampling import Resampling, percentiles, sorted_cases, weighted_sum
from fastcal.calibration.values import Floats


def case_curves(statistics: MetricReader, class_index: int | None = None) -> Reliability:
    """Return the reliability curve of every case, ``[n_cases, n_bins]``, in order of the case ids.

    Args:
        statistics: Counted with a ``case_id`` for every voxel.
        class_index: One class against the rest instead of the top label.

    Raises:
        TypeError, ValueError: There are no cases, voxels came without case ids, there is no such
            class, or the bins needed were not kept.
    """
    return curves.reliability(sorted_cases(statistics), class_index)


def reliability_band(
    statistics: MetricReader,
    class_index: int | None = None,
    *,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """Return an interval of the pooled accuracy of each bin, its lower and upper ends ``[n_bins]``.

    Percentiles over sets of cases drawn with replacement: the sets, and the exact sums over them,
    are those of `fastcal.calibration.bootstrap`. Sets without a voxel in a bin say nothing about
    that bin; bins that are empty have NaN.

    Args:
        statistics: Counted with a ``case_id`` for every voxel.
        class_index: One class against the rest instead of the top label.
        level: Confidence level, between 0 and 1.
        n_resamples: Sets of cases drawn.
        seed: Of the draws.

    Raises:
        TypeError, ValueError: See `case_curves`; also for a level or a number out of range, and for
            fewer than two cases.

    Example:
        >>> import torch
        >>> from fastcal import CalibrationStatistics
        >>> statistics = CalibrationStatistics(num_classes=2, n_bins=2)
        >>> p = torch.tensor([0.6, 0.7, 0.8, 0.9])[:, None]
        >>> probs, target = torch.stack([1 - p, p], dim=1), torch.tensor([[1], [1], [0], [1]])
        >>> statistics.update(probs, target, case_id=["a", "b", "c", "d"])
        >>> low, high = reliability_band(statistics)
        >>> low[1], high[1]
        (np.float64(0.25), np.float64(1.0))
    """
    resampling = Resampling(level, n_resamples, seed)
    rows = sorted_cases(statistics, at_least=2)
    count, hits, *_ = np.moveaxis(curves.histogram_of(rows, class_index).cells, -1, 0)
    accuracy = np.concatenate(
        [
            values.ratio(weighted_sum(counts, hits), weighted_sum(counts, count))
            for counts in resampling.draws(len(count))
        ]
    )
    low, high = zip(*(percentiles(of_bin, resampling.tails) for of_bin in accuracy.T), strict=True)
    return np.array(low), np.array(high)
