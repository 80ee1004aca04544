"""Scores of scores: how well each score, or a fitted predictor, tells the quality of structures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastcal.cases.loop import ProgressOption
from fastcal.core.arrays import Floats
from fastcal.core.atomic import write_json
from fastcal.core.errors import DataError
from fastcal.core.places import check_results
from fastcal.quality.file import opened, predictor_files
from fastcal.quality.filtered_folder import filtered_curves, map_folder
from fastcal.quality.folders import mean_width, save_picture
from fastcal.quality.predictor import QualityPredictor
from fastcal.scores import (
    Draws,
    Estimate,
    ScoreTable,
    mean_absolute_error,
    read_scored,
    score_measures,
    unsure_end,
)
from fastcal.scores.estimates import as_json, mean_of_rows
from fastcal.scores.files import scored_files
from fastcal.scores.outputs import write_csv

_NAMES = ("quality_scores.json", "quality_scores.csv", "quality.png")
"""Files that `evaluate_quality` writes."""
RANDOM, ORACLE, PREDICTED = "random order", "oracle order", "predicted Dice"


@dataclass(frozen=True)
class QualityEvaluation:
    """Measures of scores over structures that have a reference."""

    measures: dict[str, dict[str, Estimate]]
    """By score, then by measure; all structures together."""
    by_structure: dict[str, dict[str, dict[str, Estimate]]]
    """The same for each structure on its own."""
    predictor: dict[str, Any]
    """Error, coverage and width of a predictor's intervals; empty without one."""
    filtered: dict[str, Any]
    """QU-BraTS curves by structure; empty without maps."""
    n_cases: int
    n_structures: int
    n_absent: int
    """Structures that were not predicted. They have no scores, and no measure counts them."""

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "version": 1,
            "n_cases": self.n_cases,
            "n_structures": self.n_structures,
            "n_absent": self.n_absent,
            "measures": {name: as_json(found) for name, found in self.measures.items()},
            "structures": {
                structure: {name: as_json(found) for name, found in each.items()}
                for structure, each in self.by_structure.items()
            },
            "predictor": self.predictor,
            "filtered_dice": self.filtered,
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each structure, score and measure, for a CSV file."""
        groups = {"all": self.measures, **self.by_structure}
        return [
            {
                "structure": structure,
                "score": score,
                "measure": measure,
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "n": found.to_json()["n"],
                "reason": found.reason,
            }
            for structure, scores in groups.items()
            for score, measures in scores.items()
            for measure, found in measures.items()
        ]


def evaluate_quality(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    labels: str | Path | None = None,
    summary: str | Path | None = None,
    dataset_json: str | Path | None = None,
    predictor: QualityPredictor | str | Path | None = None,
    failure_dice: float = 0.7,
    maps: Sequence[str] = (),
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
    progress: ProgressOption = False,
) -> QualityEvaluation:
    """Measure how well the scores of a prediction folder tell the Dice of its structures.

    Beside the scores, three rows tell what to compare with: a random order (its expectation), the
    order by the Dice itself (oracle), and the Dice that a predictor predicts.

    Args:
        folder: A folder that ``fastcal predict`` or ``fastcal ensemble`` wrote.
        out: A folder for ``quality_scores.json``, ``quality_scores.csv`` and, with a predictor, its
            picture with these structures; None writes nothing.
        labels: Folder of reference label maps.
        summary: The ``summary.json`` of ``fastcal evaluate``, in place of ``labels``.
        dataset_json: nnU-Net's ``dataset.json``; by default the one in or above ``folder``.
        predictor: A fitted predictor, or its file. It must have been fitted to other cases.
        failure_dice: A Dice below it is a failure.
        maps: Uncertainty maps whose filtered Dice (QU-BraTS) is computed; needs ``labels``.
        level: Confidence level of the intervals over cases.
        n_resamples: Sets of cases drawn with replacement.
        seed: Of the draws.
        progress: True prints one line per case that is read to stderr; a function is called with a
            `Progress`.

    Raises:
        DataError: A file is missing or damaged, or has other structures; ``out`` would overwrite an
            input, or holds other data.
        TypeError, ValueError: A setting is out of range.

    Example:
        >>> found = evaluate_quality("predicted", labels="labelsTs")  # doctest: +SKIP
        >>> print(found.measures["binary_entropy"]["augrc"])  # doctest: +SKIP
        0.041 [0.035, 0.048]
    """
    draws = Draws(level, n_resamples, seed)
    measure = partial(
        score_measures,
        failure_dice=failure_dice,
        level=level,
        n_resamples=n_resamples,
        seed=seed,
    )
    measure([], [])  # refuses a wrong setting before any file is read
    if maps and labels is None:
        raise ValueError(f"maps must be empty without labels, got {', '.join(maps)}")
    if out is not None:
        read = scored_files(folder, labels=labels, summary=summary, dataset_json=dataset_json)
        check_results(Path(out), _NAMES, [*predictor_files(predictor), *read])
    chosen = None if predictor is None else opened(predictor)
    for name in maps:
        map_folder(folder, name)  # refuses a missing one before any case is read
    table = read_scored(
        folder, labels=labels, summary=summary, dataset_json=dataset_json, progress=progress
    )
    columns = _columns(table, chosen, folder)
    present = table.rows(~table.absent)
    there = ~table.absent
    kept = {name: (values[there], unsure) for name, (values, unsure) in columns.items()}
    found = QualityEvaluation(
        _measured(present, kept, measure),
        {
            name: _measured(
                present.of(name),
                {
                    key: (values[_of(present, name)], unsure)
                    for key, (values, unsure) in kept.items()
                },
                measure,
            )
            for name in present.structures_present
        },
        {} if chosen is None else _of_predictor(chosen, table, draws),
        {
            name: {
                one.structure: one.mean(draws)
                for one in filtered_curves(
                    folder, str(labels), maps=name, dataset_json=dataset_json, progress=progress
                )
            }
            for name in maps
        },
        len(table.cases_present),
        len(table),
        int(table.absent.sum()),
    )
    if out is not None:
        place = Path(out)
        place.mkdir(parents=True, exist_ok=True)
        write_json(place / "quality_scores.json", found.to_json() | {"failure_dice": failure_dice})
        write_csv(place / "quality_scores.csv", found.rows())
        if chosen is not None:
            save_picture(place / "quality.png", chosen, table)
    return found


Column = tuple[Floats, str]


def _columns(
    table: ScoreTable, predictor: QualityPredictor | None, source: str | Path
) -> dict[str, Column]:
    assert table.dice is not None
    found: dict[str, Column] = {}
    for name, values in table.scores.items():
        end = unsure_end(name)
        if end is not None and not np.isnan(values).all():
            found[name] = values, end
    if predictor is not None:
        try:
            found[PREDICTED] = predictor.predict(table), "low"
        except ValueError as error:
            raise DataError(source, str(error)) from error
    found[RANDOM] = np.zeros(len(table)), "high"
    found[ORACLE] = table.dice, "low"
    return found


def _measured(
    table: ScoreTable,
    columns: dict[str, Column],
    measure: Callable[..., dict[str, Estimate]],
) -> dict[str, dict[str, Estimate]]:
    return {
        name: measure(values, table.dice, unsure=unsure, cases=table.cases)
        for name, (values, unsure) in columns.items()
    }


def _of(table: ScoreTable, structure: str) -> Any:
    return np.array([one == structure for one in table.structures], bool)


def _of_predictor(predictor: QualityPredictor, table: ScoreTable, draws: Draws) -> dict[str, Any]:
    """Error of the predicted Dice, and how many Dice their intervals hold."""
    assert table.dice is not None
    predicted, bounds = predictor.predict(table), predictor.predict_interval(table)
    inside = ((bounds[:, 0] <= table.dice) & (table.dice <= bounds[:, 1])).astype(np.float64)
    inside[np.isnan(table.dice)] = np.nan
    groups = {"all": np.full(len(table), True)}
    groups |= {name: _of(table, name) for name in table.structures_present}
    found: dict[str, Any] = {"model": predictor.model, "level": predictor.level, "structures": {}}
    for name, rows in groups.items():
        cases = tuple(np.array(table.cases, dtype=object)[rows])
        found["structures"][name] = {
            "mae": mean_absolute_error(predicted[rows], table.dice[rows], cases, draws).to_json(),
            "coverage": mean_of_rows(inside[rows], cases, draws).to_json(),
            "mean_width": mean_width(bounds[rows & ~table.absent]),
        }
    return found
