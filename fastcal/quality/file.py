"""Files of quality predictors: JSON of settings and training scores, from which `load` fits again.

Nothing but numbers and names of structures is stored: a file runs no code and names no case. It
does not depend on how scikit-learn keeps a forest. The predictions of the training structures are
stored too, and a version of scikit-learn that gives other ones is refused.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from fastcal.core.atomic import write_json
from fastcal.core.doors import read_json
from fastcal.core.errors import DataError
from fastcal.quality.observed import Observed

if TYPE_CHECKING:
    from fastcal.core.arrays import Floats
    from fastcal.quality.predictor import QualityPredictor

FORMAT = "fastcal quality predictor"
VERSION = 1
TOLERANCE = 1e-6
"""Most that predictions of the training structures may differ after the second fit."""


class StoredRows(BaseModel):
    """Structures with their scores and Dice."""

    model_config = ConfigDict(strict=True, extra="forbid")

    structures: list[str]
    scores: list[list[float | None]]
    dice: list[float]


class StoredPredictor(BaseModel):
    """What a file of a predictor holds."""

    model_config = ConfigDict(strict=True, extra="forbid")

    format: Literal["fastcal quality predictor"]
    version: Literal[1]
    parameters: dict[str, Any]
    fitted_by: dict[str, str]
    training: StoredRows
    calibration: StoredRows | None
    predicted: list[float]


def save(predictor: QualityPredictor, path: str | Path) -> None:
    """Write a fitted predictor, whole or not at all; see `QualityPredictor.save`."""
    training, calibration = predictor.training_, predictor.calibration_
    parameters = predictor.get_params()
    parameters["scores"] = list(parameters["scores"])
    content = {
        "format": FORMAT,
        "version": VERSION,
        "parameters": parameters,
        "fitted_by": {"scikit-learn": version("scikit-learn")},
        "training": _stored(training),
        "calibration": None if calibration is None else _stored(calibration),
        "predicted": _predicted(predictor, training),
    }
    write_json(path, content)


def load(path: str | Path) -> QualityPredictor:
    """Read a predictor that `QualityPredictor.save` wrote, by fitting it again.

    Raises:
        DataError: The file is missing or damaged, holds something else, or was written with a
            version of scikit-learn whose fit differs.

    Example:
        >>> load("predictor.json").predict(table)  # doctest: +SKIP
    """
    from fastcal.quality.predictor import QualityPredictor

    content: StoredPredictor = read_json(path, StoredPredictor)
    try:
        predictor = QualityPredictor(**content.parameters)
        width = len(predictor.scores)
        training = _rows(content.training, width)
        calibration = None if content.calibration is None else _rows(content.calibration, width)
        predictor.refit(training, calibration)
    except (TypeError, ValueError) as error:
        raise DataError(path, f"cannot be read as {FORMAT} ({error})") from error
    stored, found = np.array(content.predicted), _predicted(predictor, training)
    if len(stored) != len(found) or np.abs(stored - found).max(initial=0.0) > TOLERANCE:
        raise DataError(
            path,
            f"was fitted by scikit-learn {content.fitted_by.get('scikit-learn')}, and "
            f"{version('scikit-learn')} gives other predictions: fit again",
        )
    return predictor


def opened(predictor: QualityPredictor | str | Path) -> QualityPredictor:
    """Return a predictor, read from its file where a path is given."""
    return load(predictor) if isinstance(predictor, str | Path) else predictor


def _predicted(predictor: QualityPredictor, rows: Observed) -> Floats:
    return predictor.predict(rows.scores, rows.structures)


def _stored(rows: Observed) -> dict[str, Any]:
    return {
        "structures": rows.structures,
        "scores": rows.scores,
        "dice": rows.dice,
    }


def _rows(stored: StoredRows, width: int) -> Observed:
    scores = np.array([[np.nan if v is None else v for v in row] for row in stored.scores])
    names = [f"score {k}" for k in range(width)]
    return Observed.of(scores, names, stored.structures, np.array(stored.dice))
