"""Score tables from prediction folders, and the Dice of their structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from fastcal.cases import segments
from fastcal.cases.case_record import as_written
from fastcal.cases.labels import LabelScheme
from fastcal.cases.loop import ProgressOption
from fastcal.cases.overlap import overlap
from fastcal.cases.pipeline import read_ahead
from fastcal.cases.reference import LabelMap, LabelMaps, find_label_maps
from fastcal.cases.told import told
from fastcal.core.doors import parse_json, read_text, validated
from fastcal.core.errors import DataError
from fastcal.data import description, images
from fastcal.scores.names import BACKGROUND
from fastcal.scores.table import ScoreTable

SEGMENTS = "segments.json"
"""Name of the file of scores in a prediction folder."""


class ScoredCase(BaseModel):
    """A case of the ``summary.json`` of an evaluation."""

    case: str | None = None
    prediction_file: str | None = None
    metrics: dict[str, dict[str, Any]]


class SummaryContent(BaseModel):
    """What is read of the ``summary.json`` of ``fastcal evaluate`` or of nnU-Net."""

    metric_per_case: list[ScoredCase]
    labels: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Structures:
    """The structures of a file: nnU-Net's keys, and their names where there are any."""

    keys: tuple[str, ...]
    names: Mapping[str, str]

    def shown(self, key: str) -> str:
        """Return the name of a structure, or else its key."""
        return self.names.get(key, key)

    def match(self, other: Structures) -> dict[str, str]:
        """Return how these structures are shown, by the keys of the same ones of another file.

        Structures are the same by their names where both files have names, since two datasets use
        one number for different structures; else by their keys.
        """
        if self.names and other.names:
            mine = {self.shown(key) for key in self.keys}
            return {key: other.shown(key) for key in other.keys if other.shown(key) in mine}
        return {key: self.shown(key) for key in other.keys if key in self.keys}


Found = tuple[Structures, dict[tuple[str, str], float]]
"""Structures of references, and their Dice by case and key."""


def read_table(folder: str | Path) -> ScoreTable:
    """Read the scores of every case and structure of a prediction folder, without the background.

    Args:
        folder: What ``fastcal predict`` or ``fastcal ensemble`` wrote, or its ``segments.json``.

    Raises:
        DataError: The file is missing or damaged, or it has no structures or no cases.

    Example:
        >>> read_table("predicted").names  # doctest: +SKIP
        ('binary_entropy', 'entropy', 'mutual_information', 'confidence', 'volume')
    """
    return _read(folder)[1]


def _read(folder: str | Path) -> tuple[Structures, ScoreTable]:
    file = Path(folder)
    if file.suffix != ".json":
        if not file.is_dir():
            raise DataError(file, "no such folder")
        file = file / SEGMENTS
    content = segments.read(file)
    keys = tuple(key for key in content.structures if key not in BACKGROUND)
    structures = _structures(file, keys, content.names)
    if not structures.keys:
        raise DataError(file, "there are no structures beside the background")
    if not content.cases:
        raise DataError(file, "there are no cases")
    rows = [
        (case, structures.shown(key), by_structure.get(key, {}))
        for case, by_structure in sorted(content.cases.items())
        for key in structures.keys
    ]
    names = list(dict.fromkeys(name for _, _, found in rows for name in found))
    columns = {
        name: np.array([found.get(name, np.nan) for _, _, found in rows], np.float64)
        for name in names
    }
    for name, column in columns.items():
        if np.isinf(column).any():
            raise DataError(file, f"{name} must be finite, got infinity")
    table = ScoreTable(
        tuple(case for case, _, _ in rows), tuple(name for _, name, _ in rows), columns
    )
    return structures, table


def read_scored(
    folder: str | Path,
    *,
    labels: str | Path | None = None,
    summary: str | Path | None = None,
    dataset_json: str | Path | None = None,
    progress: ProgressOption = False,
) -> ScoreTable:
    """Read the scores of a prediction folder with the Dice of its structures.

    Args:
        folder: The prediction folder; see `read_table`.
        labels: Folder of reference label maps, which the predicted ones are compared with.
        summary: The ``summary.json`` of ``fastcal evaluate``, in place of ``labels``.
        dataset_json: nnU-Net's ``dataset.json`` for ``labels``; by default the one in or above
            ``folder``, then ``labels``. Without any, the structures are labels 1, 2, ... in order.
        progress: True prints one line per case of ``labels`` to stderr; a function is called with a
            `Progress`.

    Returns:
        The rows whose case and structure have a reference.

    Raises:
        DataError: A file is missing or damaged, or has no case or no structure of the folder.
        ValueError: Both or neither of ``labels`` and ``summary`` are given.
    """
    if (labels is None) == (summary is None):
        given = "neither" if labels is None else "both"
        raise ValueError(f"labels must be given or else summary, got {given}")
    structures, table = _read(folder)
    if summary is not None:
        source = Path(summary)
        references, dice = _dice_of_summary(source)
    else:
        source = Path(str(labels))
        references, dice = _dice_of_labels(
            Path(folder), source, dataset_json, structures, table.cases_present, progress
        )
    if not {case for case, _ in dice} & set(table.cases):
        raise DataError(source, f"has none of the {len(table.cases_present)} cases of {folder}")
    shown = structures.match(references)
    if not shown:
        raise DataError(
            source,
            f"structures must be among {', '.join(table.structures_present)} of {folder}, "
            f"got {', '.join(map(references.shown, references.keys)) or 'none'}",
        )
    return table.with_dice(
        {(case, shown[key]): value for (case, key), value in dice.items() if key in shown}
    )


def scored_files(
    folder: str | Path,
    *,
    labels: str | Path | None = None,
    summary: str | Path | None = None,
    dataset_json: str | Path | None = None,
) -> list[Path]:
    """Return every file that `read_scored` may read, for the check that none is overwritten."""
    place = Path(folder)
    found = [place if place.suffix == ".json" else place / SEGMENTS]
    found += [Path(one) for one in (summary, dataset_json) if one is not None]
    searched = [place] if labels is None else [place, Path(labels)]
    for one in searched:
        described = description.find(one)
        found += [] if described is None else [described]
        if one.is_dir():
            found += [path for path in one.iterdir() if path.name.endswith(images.ENDINGS)]
    return found


def _dice_of_summary(path: Path) -> Found:
    try:
        # nnU-Net's readers do arithmetic on NaN, which is therefore written as such.
        raw = parse_json(read_text(path), finite=False)
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"not JSON ({error})") from error
    content: SummaryContent = validated(path, raw, SummaryContent)
    found: dict[tuple[str, str], float] = {}
    for number, one in enumerate(content.metric_per_case):
        case = one.case or _case_of(one.prediction_file)
        if case is None:
            raise DataError(path, f"metric_per_case.{number} has no case and no prediction_file")
        for key, metrics in one.metrics.items():
            if (case, key) in found:
                raise DataError(
                    path, f"metric_per_case must hold every case once, got {case} twice"
                )
            value = metrics.get("Dice")
            if isinstance(value, bool) or not isinstance(value, int | float | None):
                raise DataError(path, f"Dice of {case} must be a number, got {value!r}")
            dice = _number(value)
            if not (np.isnan(dice) or 0 <= dice <= 1):
                raise DataError(path, f"Dice of {case} must lie between 0 and 1, got {dice:g}")
            found[case, key] = dice
    keys = tuple(dict.fromkeys(key for _, key in found))
    return _structures(path, keys, content.labels), found


def _structures(path: Path, keys: tuple[str, ...], names: Mapping[str, str]) -> Structures:
    """Return structures that no two are called alike of: their rows would be mixed.

    Raises:
        DataError: Two are.
    """
    made = Structures(keys, names)
    shown = [made.shown(key) for key in keys]
    for number, name in enumerate(shown):
        if name in shown[:number]:
            raise DataError(
                path, f"must call its structures by different names, got {name!r} twice"
            )
    return made


def _case_of(prediction_file: str | None) -> str | None:
    if prediction_file is None:
        return None
    name = Path(prediction_file).name
    return name.removesuffix(images.ending_of(name) or Path(name).suffix)


def _dice_of_labels(
    folder: Path,
    labels: Path,
    dataset_json: str | Path | None,
    structures: Structures,
    cases: Sequence[str],
    progress: ProgressOption,
) -> Found:
    folder = folder if folder.suffix != ".json" else folder.parent
    described = Path(dataset_json) if dataset_json else description.find(folder, labels)
    if described is None:
        scheme = LabelScheme.of_classes(1 + len(structures.keys))
    else:
        scheme = LabelScheme.read(described)
    references = LabelMaps(labels, find_label_maps(labels), scheme)
    predictions = LabelMaps(folder, find_label_maps(folder), scheme)

    def read(case: str) -> tuple[LabelMap, LabelMap]:
        path = predictions.paths.get(case)
        if path is not None and not as_written(folder, case, path):
            raise DataError(
                path, f"is not the label map that {folder / SEGMENTS} has the scores of"
            )
        reference = references.read(case)
        return reference, predictions.read(case, reference.grid, reference.path)

    found = {}
    known = [case for case in cases if case in references.paths]
    ahead = read_ahead(known, read)
    for _, (case, (reference, prediction)) in zip(told(known, progress), ahead, strict=True):
        for key, group in scheme.foreground.items():
            masks = np.isin(reference.labels, group), np.isin(prediction.labels, group)
            found[case, key] = overlap(*masks, kept=reference.kept)["Dice"]
    return Structures(tuple(scheme.foreground), scheme.names), found


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)
