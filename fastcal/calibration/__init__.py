"""Exact calibration statistics: integers that add up, and the metrics read from them."""

from fastcal.calibration.metrics import Kind, Mode, Reduction, Reliability
from fastcal.calibration.statistics import NOTHING_COUNTED, CalibrationStatistics, OpenCount

__all__ = [
    "NOTHING_COUNTED",
    "CalibrationStatistics",
    "Kind",
    "Mode",
    "OpenCount",
    "Reduction",
    "Reliability",
]
