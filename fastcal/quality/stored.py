"""What a file of a quality predictor holds: JSON of settings and training scores.

Nothing but numbers and names of structures is stored: a file runs no code and names no case. It
does not depend on how scikit-learn keeps a forest, because the predictor is fitted again. The
predictions of the training structures are stored too, to tell a version whose fit differs.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from fastcal.core.arrays import Floats
from fastcal.core.atomic import write_json
from fastcal.quality.observed import Observed

FORMAT = "fastcal quality predictor"
VERSION = 1


class StoredRows(BaseModel):
    """Structures with their scores and Dice."""

    model_config = ConfigDict(strict=True, extra="forbid")

    structures: list[str]
    scores: list[list[float | None]]
    dice: list[float]

    def observed(self, width: int) -> Observed:
        """Return the rows, of ``width`` scores.

        Raises:
            TypeError, ValueError: They do not fit together.
        """
        scores = np.array([[np.nan if v is None else v for v in row] for row in self.scores])
        names = [f"score {k}" for k in range(width)]
        return Observed.of(scores, names, self.structures, np.array(self.dice))


class StoredPredictor(BaseModel):
    """The whole file."""

    model_config = ConfigDict(strict=True, extra="forbid")

    format: Literal["fastcal quality predictor"]
    version: Literal[1]
    parameters: dict[str, Any]
    fitted_by: dict[str, str]
    training: StoredRows
    calibration: StoredRows | None
    predicted: list[float]


def store(
    path: str | Path,
    parameters: dict[str, Any],
    training: Observed,
    calibration: Observed | None,
    predicted: Floats,
) -> None:
    """Write a predictor, whole or not at all.

    Args:
        path: The file.
        parameters: Arguments that make the predictor.
        training: Rows that it was fitted to.
        calibration: Rows that its intervals were calibrated with.
        predicted: Dice that it predicts for the training rows.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "parameters": parameters,
        "fitted_by": {"scikit-learn": version("scikit-learn")},
        "training": _rows(training),
        "calibration": None if calibration is None else _rows(calibration),
        "predicted": predicted,
    }
    write_json(path, content)


def _rows(rows: Observed) -> dict[str, Any]:
    return {"structures": rows.structures, "scores": rows.scores, "dice": rows.dice}
