"""Ensemble uncertainty maps and exact calibration statistics for medical segmentation."""

from importlib import import_module as _import_module
from importlib.metadata import PackageNotFoundError as _NotFound
from importlib.metadata import version as _version
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from fastcal.accumulator import EnsembleAccumulator
from fastcal.backends import backend
from fastcal.calibration import CalibrationStatistics
from fastcal.ensemble import (
    EnsembleStatistics,
    ensemble_entropy,
    ensemble_mean,
    ensemble_statistics,
)
from fastcal.segments import SegmentScores, SegmentSettings, segment_scores

if _TYPE_CHECKING:
    from fastcal.models.ensemble import load_ensemble as load_ensemble

try:
    __version__ = _version("fastcal")
except _NotFound:  # a source tree on the path that is not installed
    __version__ = "0+unknown"

__all__ = [
    "CalibrationStatistics",
    "EnsembleAccumulator",
    "EnsembleStatistics",
    "SegmentScores",
    "SegmentSettings",
    "__version__",
    "backend",
    "ensemble_entropy",
    "ensemble_mean",
    "ensemble_statistics",
    "load_ensemble",
    "segment_scores",
]


def __getattr__(name: str) -> _Any:
    """Load networks when they are asked for, so that `import fastcal` stays light."""
    if name == "load_ensemble":
        return _import_module("fastcal.models.ensemble").load_ensemble
    raise AttributeError(f"module 'fastcal' has no attribute {name!r}")
