"""Ensemble uncertainty maps and exact calibration statistics for medical segmentation."""

from importlib.metadata import PackageNotFoundError as _NotFound
from importlib.metadata import version as _version

from fastcal.accumulator import EnsembleAccumulator
from fastcal.backends import backend
from fastcal.calibration import CalibrationStatistics
from fastcal.ensemble import (
    EnsembleStatistics,
    ensemble_entropy,
    ensemble_mean,
    ensemble_statistics,
)

try:
    __version__ = _version("fastcal")
except _NotFound:  # a source tree on the path, not installed
    __version__ = "0+unknown"

__all__ = [
    "CalibrationStatistics",
    "EnsembleAccumulator",
    "EnsembleStatistics",
    "__version__",
    "backend",
    "ensemble_entropy",
    "ensemble_mean",
    "ensemble_statistics",
]
