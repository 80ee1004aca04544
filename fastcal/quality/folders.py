"""Quality prediction for folders: fit to cases with references, then list the cases to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcal.cases.loop import ProgressOption
from fastcal.core.atomic import atomic_path, write_json
from fastcal.core.errors import DataError
from fastcal.core.places import check_out_file, check_results
from fastcal.quality.file import opened, predictor_files
from fastcal.quality.observed import Observed
from fastcal.quality.pictures import fit_picture
from fastcal.quality.predictor import IntervalName, ModelName, QualityPredictor
from fastcal.quality.reasons import TrainingRange
from fastcal.scores import ScoreTable, read_scored, read_table
from fastcal.scores.files import scored_files
from fastcal.scores.outputs import write_csv

_NAMES = ("quality.csv", "quality.json", "quality.png")
"""Files that `predict_quality` writes."""


@dataclass(frozen=True, slots=True)
class QualityFit:
    """What `fit_quality` made."""

    predictor: QualityPredictor
    out: Path
    n_cases: int
    n_training: int
    """Structures that the fit rests on."""
    n_calibration: int
    """Structures that its conformal intervals were calibrated with."""
    n_absent: int
    """Structures that were not predicted, which the fit leaves out."""
    never: tuple[str, ...]
    """Names of structures that no case has, of which the fit knows nothing."""


@dataclass(frozen=True, slots=True)
class PredictedQuality:
    """The predicted Dice of a structure."""

    case: str
    structure: str
    dice: float
    low: float
    high: float
    reason: str
    """Which scores are unlike those of the training; empty where none is."""


def fit_quality(
    folder: str | Path,
    out: str | Path,
    *,
    labels: str | Path | None = None,
    summary: str | Path | None = None,
    dataset_json: str | Path | None = None,
    model: ModelName = "linear",
    scores: Sequence[str] = ("binary_entropy",),
    per_structure: bool = False,
    interval: IntervalName | None = None,
    level: float = 0.95,
    seed: int = 0,
    progress: ProgressOption = False,
) -> QualityFit:
    """Fit a `QualityPredictor` to the cases of a prediction folder, and save it as JSON.

    Args:
        folder: A folder that ``fastcal predict`` or ``fastcal ensemble`` wrote, of cases that the
            networks were not trained on.
        out: The JSON file to write, whole or not at all.
        labels: Folder of reference label maps.
        summary: The ``summary.json`` of ``fastcal evaluate``, in place of ``labels``.
        dataset_json: nnU-Net's ``dataset.json``; by default the one in or above ``folder``.
        model: See `QualityPredictor`, as for the arguments that follow.
        scores: Names of the scores.
        per_structure: Fit each structure on its own.
        interval: Kind of the intervals.
        level: Share of structures that an interval is to hold.
        seed: Of the forest and of the choice of cases for calibration.
        progress: True prints one line per case of ``labels`` to stderr; a function is called with a
            `Progress`.

    Raises:
        DataError: A file is missing or damaged, or has too few structures or other ones; ``out``
            is an input.
        TypeError, ValueError: A setting is out of range.

    Example:
        >>> found = fit_quality("validation", "quality.json", labels="labelsTr")  # doctest: +SKIP
        >>> found.predictor.line().slope  # doctest: +SKIP
        -6.4
    """
    predictor = QualityPredictor(
        model,
        scores=tuple(scores),
        per_structure=per_structure,
        interval=interval,
        level=level,
        seed=seed,
    )
    out = Path(out)
    read = scored_files(folder, labels=labels, summary=summary, dataset_json=dataset_json)
    check_out_file(out, read)
    known = read_table(folder)
    try:
        known.matrix(predictor.scores)  # refuses a wrong name before any case is read
    except ValueError as error:
        raise DataError(folder, str(error)) from error
    table = read_scored(
        folder, labels=labels, summary=summary, dataset_json=dataset_json, progress=progress
    )
    try:
        predictor.fit(table)
    except ValueError as error:
        # What the predictor calls X is this folder.
        raise DataError(folder, str(error).removeprefix("X ")) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    predictor.save(out)
    calibration = predictor.calibration_
    return QualityFit(
        predictor,
        out,
        len(table.cases_present),
        len(predictor.training_.cases),
        0 if calibration is None else len(calibration.cases),
        int(table.absent.sum()),
        tuple(name for name in table.structures_present if table.of(name).absent.all()),
    )


def predict_quality(
    predictor: QualityPredictor | str | Path, folder: str | Path, out: str | Path | None = None
) -> list[PredictedQuality]:
    """Predict the Dice of every structure of a prediction folder, the worst first.

    Args:
        predictor: A fitted predictor, or its file.
        folder: A folder that ``fastcal predict`` or ``fastcal ensemble`` wrote.
        out: A folder for ``quality.csv``, ``quality.json`` and, if matplotlib is installed,
            ``quality.png`` (the fit with the new structures); None writes nothing.

    Returns:
        The structures, by ascending predicted Dice.

    Raises:
        DataError: A file is missing or damaged, lacks a score, or has structures that the predictor
            was not fitted to; ``out`` would overwrite an input, or holds other data.

    Example:
        >>> for row in predict_quality("quality.json", "predicted")[:3]:  # doctest: +SKIP
        ...     print(row.case, row.structure, round(row.dice, 2), row.reason)
        case_17 anterior 0.61 binary_entropy 0.41 is above every one of the training (largest 0.38)
    """
    if out is not None:
        check_results(Path(out), _NAMES, [*predictor_files(predictor), *scored_files(folder)])
    chosen = opened(predictor)
    table = read_table(folder)
    rows = predicted_table(chosen, table, source=folder)
    if out is not None:
        _write(Path(out), chosen, table, rows)
    return rows


def predicted_table(
    predictor: QualityPredictor, table: ScoreTable, *, source: str | Path
) -> list[PredictedQuality]:
    """Return the predictions for a table, by ascending Dice; ``source`` is named by errors."""
    try:
        dice = predictor.predict(table)
        bounds = predictor.predict_interval(table)
        observed = Observed.of(table, predictor.scores)
    except ValueError as error:
        raise DataError(source, str(error)) from error
    known = predictor.training_.with_rows_of(predictor.calibration_)
    reasons = TrainingRange.of(predictor.scores, known).explain(observed)
    rows = [
        PredictedQuality(case, structure, float(d), float(low), float(high), reason)
        for case, structure, d, (low, high), reason in zip(
            table.cases, table.structures, dice, bounds, reasons, strict=True
        )
    ]
    return sorted(rows, key=lambda row: (row.dice, row.case, row.structure))


def _write(
    out: Path, predictor: QualityPredictor, table: ScoreTable, rows: list[PredictedQuality]
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    plain: list[dict[str, Any]] = [asdict(row) for row in rows]
    write_csv(out / "quality.csv", plain)
    content = {"version": 1, "level": predictor.level, "scores": list(predictor.scores)}
    write_json(out / "quality.json", content | {"structures": plain})
    save_picture(out / "quality.png", predictor, table)


def save_picture(
    path: Path, predictor: QualityPredictor, table: ScoreTable | None = None
) -> Path | None:
    """Draw a fit, with the structures of a table; None where matplotlib is not installed."""
    try:
        picture = fit_picture(predictor, table)
    except ImportError:
        return None
    with atomic_path(path) as temporary:
        temporary.write_bytes(picture)
    return path


def mean_width(bounds: Any) -> float:
    """Return the mean width of intervals ``[n, 2]``; NaN without any."""
    widths = np.diff(bounds, axis=1)
    return float(widths.mean()) if widths.size else float("nan")
