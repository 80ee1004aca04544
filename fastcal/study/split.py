"""Which cases of a dataset a study trains on, validates on and tests on."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fastcal.core.doors import MissingFileError, one_error, read_text
from fastcal.core.errors import DataError

if TYPE_CHECKING:
    from fastcal.data.dataset import Dataset
    from fastcal.study.design import Design

COLUMNS = "cases.csv"
"""What ``fastcal convert`` writes of each case: grade, institution, phase and the like."""


def chosen_split(dataset: Dataset, design: Design, *, given: bool) -> dict[str, list[str]]:
    """Return the names of the cases of ``train``, ``val`` and ``test``.

    The ``splits.json`` of the dataset goes first if it has a test part. Otherwise the cases that
    suit the design, by the columns of `COLUMNS`, are taken in the order of their names; without
    such a file, all cases suit.

    Args:
        dataset: The dataset.
        design: Its counts, and the columns of its cases.
        given: Whether the counts were asked for, so that ``splits.json`` does not count.

    Raises:
        DataError: A file is damaged, or `COLUMNS` lacks a column of the design.
        ValueError: There are fewer cases than the design has.
    """
    from fastcal.models.run import SPLITS
    from fastcal.train.splits import resolve_split

    own = dataset.folder / SPLITS
    if own.exists() and not given:
        names = resolve_split(dataset, own).names()
        if names["test"]:
            return names
    columns = _columns(dataset.folder / COLUMNS)
    file = dataset.folder / COLUMNS
    suiting = [
        case.name for case in dataset.cases if _suits(file, columns, case.name, design.cases)
    ]
    n_train, n_val, n_test = design.split
    seen = [name for name in suiting if _suits(file, columns, name, design.training_cases)]
    train, val = seen[:n_train], seen[n_train : n_train + n_val]
    used = {*train, *val}
    held_out = [
        name
        for name in suiting
        if name not in used and _suits(file, columns, name, design.test_cases)
    ]
    test = held_out[:n_test]
    counts = (len(train), len(val), len(test))
    if counts != tuple(design.split):
        raise ValueError(
            f"split must hold at most as many cases as suit the study: {counts} of "
            f"{dataset.folder}, got {tuple(design.split)}"
        )
    names = {"train": train, "val": val, "test": test}
    return resolve_split(dataset, names).names()


def _columns(file: Path) -> dict[str, dict[str, str]] | None:
    """Return the columns of each case; None where there is no such file."""
    try:
        text = read_text(file)
    except MissingFileError:
        return None
    with one_error(file, "a CSV file"):
        rows = list(csv.DictReader(io.StringIO(text)))
    if not rows or "case" not in rows[0]:
        raise DataError(file, "must have a column named case")
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["case"] in found:
            raise DataError(file, f"must have one row per case, got two of {row['case']}")
        found[row["case"]] = {name: value or "" for name, value in row.items() if name}
    return found


def _suits(
    file: Path,
    columns: Mapping[str, Mapping[str, str]] | None,
    case: str,
    wanted: Mapping[str, str],
) -> bool:
    if columns is None:
        return True
    row = columns.get(case, {})
    for name, value in wanted.items():
        if row and name not in row:
            raise DataError(file, f"must have a column named {name}")
        if row.get(name) != value:
            return False
    return True
