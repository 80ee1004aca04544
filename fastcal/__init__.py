"""Ensemble uncertainty maps and exact calibration statistics for medical segmentation.

Names are loaded when they are asked for, so that the command line answers before torch is there.
`import fastcal.ops` registers the operators of `torch.ops.fastcal` at once, as a program that
`torch.export` saved needs them.
"""

import sys as _sys
from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from fastcal.accumulator import EnsembleAccumulator
    from fastcal.backends import backend
    from fastcal.calibration import CalibrationStatistics
    from fastcal.ensemble import ensemble_entropy, ensemble_mean, ensemble_statistics
    from fastcal.models.ensemble import load_ensemble
    from fastcal.results import EnsembleStatistics
    from fastcal.segments import SegmentScores, SegmentSettings, segment_scores
    from fastcal.viewer import view

    __version__: str

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
    "view",
]

_HOMES = {
    "CalibrationStatistics": "calibration",
    "EnsembleAccumulator": "accumulator",
    "EnsembleStatistics": "results",
    "SegmentScores": "segments",
    "SegmentSettings": "segments",
    "backend": "backends",
    "ensemble_entropy": "ensemble",
    "ensemble_mean": "ensemble",
    "ensemble_statistics": "ensemble",
    "load_ensemble": "models.ensemble",
    "segment_scores": "segments",
    "view": "viewer",
}

_ROOMS = frozenset(
    {
        "backends",
        "calibration",
        "convert",
        "data",
        "evaluate",
        "functional",
        "losses",
        "models",
        "monai",
        "ood",
        "predict",
        "quality",
        "recalibrate",
        "regions",
        "report",
        "scores",
        "segments",
        "study",
        "torchmetrics",
        "train",
        "viewer",
    }
)
"""Packages that `fastcal.NAME` opens without an import of their own."""


def __getattr__(name: str) -> _Any:
    if name in _ROOMS:
        return _import_module(f"fastcal.{name}")
    if name == "__version__":
        found: _Any = _installed_version()
    elif name in _HOMES:
        found = getattr(_import_module(f"fastcal.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'fastcal' has no attribute {name!r}")
    globals()[name] = found
    return found


def _installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fastcal")
    except PackageNotFoundError:  # a source tree on the path that is not installed
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS})


# Whoever has torch already wants its operators, too: programs that were exported name them.
if "torch" in _sys.modules:
    _import_module("fastcal.ops")
