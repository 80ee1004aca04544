"""Reading the files of quality predictors, by fitting them again."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np

from fastcal.core.doors import one_error, read_json
from fastcal.core.errors import DataError
from fastcal.quality.predictor import QualityPredictor
from fastcal.quality.stored import FORMAT, StoredPredictor

TOLERANCE = 1e-6
"""Most that predictions of the training structures may differ after the second fit."""


def load(path: str | Path) -> QualityPredictor:
    """Read a predictor that `QualityPredictor.save` wrote, by fitting it again.

    Raises:
        DataError: The file is missing or damaged, holds something else, or was written with a
            version of scikit-learn whose fit differs.

    Example:
        >>> load("predictor.json").predict(table)  # doctest: +SKIP
    """
    content: StoredPredictor = read_json(path, StoredPredictor)
    # What scikit-learn and SciPy raise of numbers that no predictor holds is nowhere listed.
    with one_error(path, f"a {FORMAT}"):
        predictor = QualityPredictor(**content.parameters)
        width = len(predictor.scores)
        training = content.training.observed(width)
        calibration = content.calibration
        predictor.refit(training, None if calibration is None else calibration.observed(width))
        found = predictor.predict(training.scores, training.structures)
    stored = np.array(content.predicted)
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


def predictor_files(predictor: QualityPredictor | str | Path | None) -> list[Path]:
    """Return the file of a predictor, where a path is given."""
    return [Path(predictor)] if isinstance(predictor, str | Path) else []
