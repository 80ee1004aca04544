"""What every function counts, and how its numbers are given back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fastcal.calibration import CalibrationKind, CalibrationStatistics
from fastcal.core.arguments import flag
from fastcal.core.arrays import Array
from fastcal.core.targets import VALIDATING, GivenTarget

FINE_BINS = 65536
"""Fine cells of the measures of order."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Predictions and what they are counted against."""

    preds: Array
    target: Array
    ignore_index: int | None
    mask: Array | None
    from_logits: bool
    validate_args: bool = True
    """False leaves voxels without valid probabilities out instead of raising."""

    def counted(self, statistics: CalibrationStatistics) -> CalibrationStatistics:
        """Count the batch into ``statistics``, and return them.

        Raises:
            TypeError, ValueError: An argument does not fit.
        """
        policy = "raise" if flag(self.validate_args, "validate_args") else "omit"
        given = GivenTarget(self.target, self.mask, self.ignore_index, nan_policy=policy)
        from_logits = flag(self.from_logits, "from_logits")
        statistics.count(self.preds, given, VALIDATING, from_logits=from_logits)
        return statistics

    def ordered(
        self, num_classes: int, n_bins: int = 1, calibration: CalibrationKind = "top-label"
    ) -> CalibrationStatistics:
        """Count the batch into new statistics with fine cells.

        Raises:
            TypeError, ValueError: An argument does not fit.
        """
        return self.counted(
            CalibrationStatistics(num_classes, n_bins, calibration=calibration, fine_bins=FINE_BINS)
        )

    def result(self, found: Array) -> Array:
        """Return float64 numbers of the kind of ``preds``."""
        numbers = np.array(found, dtype=np.float64)
        return numbers[()] if isinstance(self.preds, np.ndarray) else torch.from_numpy(numbers)
