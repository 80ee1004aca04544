"""What every function counts, and how its numbers are given back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fastcal.calibration import CalibrationKind, CalibrationStatistics
from fastcal.core.arguments import flag
from fastcal.core.arrays import Array, to_tensor

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
        # Named as the caller named it, before the statistics look at it.
        to_tensor(self.preds, "preds")
        from_logits = flag(self.from_logits, "from_logits")
        count = statistics.update_from_logits if from_logits else statistics.update
        count(
            self.preds,
            self.target,
            mask=self.mask,
            ignore_index=self.ignore_index,
            nan_policy="raise" if flag(self.validate_args, "validate_args") else "omit",
        )
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
