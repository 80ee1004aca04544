"""Where a calibration error comes from: the signed part of each bin, with intervals over cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastcal.calibration import CalibrationStatistics
from fastcal.calibration.curves import Reliability, histogram_of, reliability
from fastcal.calibration.resampling import sorted_cases
from fastcal.core.arrays import Floats
from fastcal.core.problem import FRACTION_BITS
from fastcal.report.measured import draws_of_cases, interval_of


@dataclass(frozen=True)
class Gaps:
    """The bins of a reliability diagram, and what each adds to the calibration error."""

    curve: Reliability
    parts: Floats
    """``[n_bins]``: mean confidence less accuracy, times the bin's share of the voxels. Above 0 is
    overconfident; the sum of the absolute values is the calibration error."""
    low: Floats
    high: Floats
    """``[n_bins]``, the 95 % interval over cases; NaN with fewer than two cases."""
    net: float
    """The sum of the parts: confidence less accuracy over all voxels."""
    net_interval: tuple[float, float]

    @property
    def error(self) -> float:
        """The calibration error."""
        return float(np.abs(self.parts).sum())

    @property
    def main(self) -> int:
        """The bin that adds most."""
        return int(np.argmax(np.abs(self.parts)))

    def range(self, place: int) -> str:
        """Return the confidences of a bin as a text."""
        low, high = self.curve.edges[place : place + 2]
        return f"{low:.2f} to {high:.2f}"


def gaps_of(statistics: CalibrationStatistics, class_index: int | None = None) -> Gaps:
    """Return the bins of a state that was counted with case ids.

    Args:
        statistics: What was counted.
        class_index: One class against the rest, instead of the top label.

    Raises:
        ValueError: Nothing was counted, or without case ids.

    Example:
        >>> import torch
        >>> statistics = CalibrationStatistics(num_classes=2, n_bins=2)
        >>> probs = torch.tensor([[[0.25], [0.75]], [[0.25], [0.75]]])
        >>> statistics.update(probs, torch.tensor([[1], [0]]), case_id=["a", "b"])
        >>> gaps_of(statistics).parts
        array([0.  , 0.25])
    """
    rows = sorted_cases(statistics)
    histogram = histogram_of(rows, class_index)
    _, hits, whole, fraction = np.moveaxis(histogram.cells, -1, 0)
    excess = (whole - hits) + fraction * 2.0**-FRACTION_BITS
    total = np.asarray(histogram.total, np.float64)
    parts = excess.sum(0) / total.sum()
    low = high = np.full(parts.shape, np.nan)
    net_interval = (np.nan, np.nan)
    if len(total) > 1:
        draws = draws_of_cases(len(total))
        drawn = (draws @ excess) / (draws @ total)[:, None]
        low, high = np.array([interval_of(one) for one in drawn.T]).T
        net_interval = interval_of(drawn.sum(1))
    return Gaps(
        reliability(statistics.rows(), class_index),
        parts,
        low,
        high,
        float(parts.sum()),
        net_interval,
    )
