"""What is known of the cases: cases.csv, splits.json, splits by centre, and dataset.json."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from fastcal.convert.case import ENDING
from fastcal.convert.found import FoundCase, FoundSet
from fastcal.core.atomic import write_json, write_text
from fastcal.data import description
from fastcal.data.description import Description

_FIFTH = 5
_Split = dict[str, list[str]]


def write_listing(found: FoundSet, cases: Sequence[FoundCase], out: Path) -> None:
    """Write everything that describes the cases of a dataset, ``dataset.json`` last.

    Args:
        found: The dataset.
        cases: Those of its cases that were converted.
        out: The folder of the converted dataset.

    Raises:
        OSError: The disk reports an error.
    """
    cases = sorted(cases, key=lambda case: case.name)
    write_text(out / "cases.csv", _table(cases))
    training = [case for case in cases if case.trains]
    split = own_split(training, found.balanced or found.group)
    if split["train"] and split["val"]:
        write_json(out / "splits.json", split)
    if found.group is not None:
        held_out = splits_by(training, found.group, found.balanced)
        if len(held_out) > 1:
            write_json(out / f"splits_by_{found.group}.json", held_out)
    described = Description(
        name=found.title,
        channel_names=found.channel_names,
        labels=dict(found.labels),
        ignore_label=None,
        label_groups=None,
        regions_class_order=None,
        file_ending=ENDING,
    )
    write_json(out / "dataset.json", description.to_json(described, num_training=len(training)))


def own_split(cases: Sequence[FoundCase], balanced: str | None) -> _Split:
    """Split the training cases as the dataset does; else a fifth of the patients validates.

    Args:
        cases: Cases that go to imagesTr.
        balanced: The column whose values the fifth represents.
    """
    held = {case.patient for case in cases if case.part == "val"} or _fifth(cases, balanced)
    return {
        "train": [case.name for case in cases if case.patient not in held],
        "val": [case.name for case in cases if case.patient in held],
    }


def splits_by(cases: Sequence[FoundCase], group: str, balanced: str | None) -> list[_Split]:
    """Hold out each value of a column in turn; a fifth of the other patients validates.

    Args:
        cases: Cases that go to imagesTr.
        group: The column.
        balanced: The column whose values the fifth represents; None for ``group``.
    """
    folds = []
    for value in sorted({_value(case, group) for case in cases} - {""}):
        others = [case for case in cases if _value(case, group) not in ("", value)]
        held = _fifth(others, balanced or group)
        fold = {
            "train": [case.name for case in others if case.patient not in held],
            "val": [case.name for case in others if case.patient in held],
            "test": [case.name for case in cases if _value(case, group) == value],
        }
        if fold["train"] and fold["val"]:
            folds.append(fold)
    return folds


def _fifth(cases: Sequence[FoundCase], balanced: str | None) -> set[str]:
    """Every fifth patient in the order of a column; one of two to four."""
    order = {case.patient: (_value(case, balanced), case.patient) for case in cases}
    patients = sorted(order, key=lambda patient: order[patient])
    if len(patients) < _FIFTH:
        return set(patients[-1:]) if len(patients) > 1 else set()
    return set(patients[_FIFTH - 1 :: _FIFTH])


def _value(case: FoundCase, column: str | None) -> str:
    return case.columns.get(column, "") if column is not None else ""


def _table(cases: Sequence[FoundCase]) -> str:
    known = list(dict.fromkeys(column for case in cases for column in case.columns))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "folder", "labelled", "part", "patient", *known])
    for case in cases:
        folder = "imagesTr" if case.trains else "imagesTs"
        labelled = "no" if case.label is None else "yes"
        own = [case.columns.get(column, "") for column in known]
        writer.writerow([case.name, folder, labelled, case.part, case.patient, *own])
    return text.getvalue()
