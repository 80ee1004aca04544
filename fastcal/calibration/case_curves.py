"""The reliability curve of every case, and what resampling the cases makes of their pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fastcal.calibration import CalibrationStatistics

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CaseCurves:
    """Reliability curves, one a case; NaN for the means of an empty bin."""

    edges: Floats
    """``[n_bins + 1]``"""
    count: Integers
    """``[n_cases, n_bins]``"""
    mean_confidence: Floats
    """``[n_cases, n_bins]``"""
    accuracy: Floats
    """``[n_cases, n_bins]``"""

    def interval(self, level: float, n_resamples: int, seed: int) -> tuple[Floats, Floats]:
        """Lower and upper end of the pooled accuracy of each bin, ``[n_bins]`` each.

        Percentiles over sets of as many cases drawn with replacement; NaN for empty bins. Sets
        without a voxel in a bin say nothing of that bin.

        Raises:
            ValueError: `level` is not between 0 and 1, no resamples, or fewer than two cases.
        """
        n_cases = len(self.count)
        if not 0 < level < 1:
            raise ValueError(f"interval: got {level}, expected a level between 0 and 1")
        if n_resamples < 1:
            raise ValueError(f"n_resamples: got {n_resamples}, expected 1 or more")
        if n_cases < 2:
            raise ValueError(f"interval: got {n_cases} cases, expected two or more")
        hits = np.rint(np.nan_to_num(self.accuracy) * self.count)
        draws = np.random.default_rng(seed).multinomial(
            n_cases, np.full(n_cases, 1 / n_cases), size=n_resamples
        )
        counts, correct = draws @ self.count.astype(np.float64), draws @ hits
        low, high = (np.full(self.count.shape[1], np.nan) for _ in range(2))
        tails = [50 * (1 - level), 50 * (1 + level)]
        for j in np.flatnonzero(counts.any(0)):
            drawn = counts[:, j] > 0
            low[j], high[j] = np.percentile(correct[drawn, j] / counts[drawn, j], tails)
        return low, high


def case_curves(stats: CalibrationStatistics, class_index: int | None = None) -> CaseCurves:
    """The reliability curve of every case of `stats`.

    Args:
        stats: Counted with case ids.
        class_index: One class against the rest instead of the top label.

    Raises:
        ValueError: There are no cases, or `stats` did not count the mode asked for.
    """
    if not stats.case_ids:
        raise ValueError("stats: got no cases, expected a case_id with every update")
    curves = [stats.case(case).reliability(class_index) for case in stats.case_ids]
    return CaseCurves(
        curves[0].edges,
        np.stack([curve.count for curve in curves]),
        np.stack([curve.mean_confidence for curve in curves]),
        np.stack([curve.accuracy for curve in curves]),
    )
