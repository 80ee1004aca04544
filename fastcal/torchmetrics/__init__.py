"""The counts of `CalibrationStatistics` as torchmetrics metrics.

They are real `torchmetrics.Metric` objects: ``update``, ``compute``, ``reset``, ``forward``,
``plot``, collections, clones, checkpoints, and processes whose states are summed. The state is a
few hundred int64 words for any number of voxels, where torchmetrics keeps every confidence. Sums of
integers are the same for any chunking and any number of processes.

The numbers are those of `CalibrationStatistics`. Bins are (lo, hi], and 1.0 belongs to the last
one, not to a bin of its own (torchmetrics#3510; ``convention="torchmetrics"`` has its bins).
``preds`` are probabilities unless ``from_logits=True``; this is never guessed. Counts do not stop
at 2^24 voxels per bin.
"""

from __future__ import annotations

from fastcal.torchmetrics.base import CalibrationMetric
from fastcal.torchmetrics.brier_score import (
    BinaryBrierScore,
    BrierScore,
    MulticlassBrierScore,
    MultilabelBrierScore,
)
from fastcal.torchmetrics.calibration_error import (
    BinaryCalibrationError,
    CalibrationError,
    ClasswiseCalibrationError,
    MulticlassCalibrationError,
    MultilabelCalibrationError,
)
from fastcal.torchmetrics.predictive_entropy import PredictiveEntropy

__all__ = [
    "BinaryBrierScore",
    "BinaryCalibrationError",
    "BrierScore",
    "CalibrationError",
    "CalibrationMetric",
    "ClasswiseCalibrationError",
    "MulticlassBrierScore",
    "MulticlassCalibrationError",
    "MultilabelBrierScore",
    "MultilabelCalibrationError",
    "PredictiveEntropy",
]
