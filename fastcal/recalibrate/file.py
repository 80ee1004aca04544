"""Files of calibrators: JSON of any kind of calibrator or ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastcal.recalibrate.binning import HistogramBinning, IsotonicRegression
from fastcal.recalibrate.calibrator import Calibrator, build
from fastcal.recalibrate.ensemble import EnsembleCalibration, from_dict
from fastcal.recalibrate.matrix import DirichletCalibration, VectorScaling
from fastcal.recalibrate.temperature import TemperatureScaling

KINDS: dict[str, type[Calibrator]] = {
    one.kind: one
    for one in (
        TemperatureScaling,
        VectorScaling,
        DirichletCalibration,
        HistogramBinning,
        IsotonicRegression,
    )
}


def load(path: str | Path) -> Calibrator | EnsembleCalibration:
    """Read the calibrator or the ensemble that a ``save`` wrote.

    Raises:
        DataError: The file is missing or damaged, or holds something else.

    Example:
        >>> load("calibrator.json").transform(logits)  # doctest: +SKIP
    """
    return build(Path(path), _make)


def _make(content: Mapping[str, Any]) -> Calibrator | EnsembleCalibration:
    if content["kind"] == EnsembleCalibration.kind:
        return from_dict(content, [_calibrator(one) for one in content["calibrators"]])
    return _calibrator(content)


def _calibrator(content: Mapping[str, Any]) -> Calibrator:
    if content["kind"] not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {content['kind']!r}")
    return KINDS[content["kind"]].from_dict(content)
