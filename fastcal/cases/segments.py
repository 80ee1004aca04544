"""Scores of the segments of many cases: ``segments.json`` and ``segments.csv`` of a folder.

A run writes the scores of each case to ``OUT/segments/CASE.json``, so that nothing is lost when it
is killed, and those of all cases together when it ends.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastcal.core import atomic
from fastcal.core.doors import read_json
from fastcal.core.errors import DataError
from fastcal.segments import SCORES, SegmentSettings

if TYPE_CHECKING:
    from fastcal import SegmentScores
    from fastcal.cases.labels import LabelScheme

SEGMENTS = "segments"
"""Name of the files with scores, and of the folder with those of each case."""


Scores = dict[str, dict[str, float]]
"""Structure to the name of a score to its value."""


@dataclass(frozen=True, slots=True)
class SegmentTable:
    """The scores of the segments of cases.

    Structures have nnU-Net's keys, as in the ``summary.json`` of ``fastcal evaluate``: ``"1"``, or
    ``"(1, 2)"`` for a group of labels. The background is ``"0"``.
    """

    structures: tuple[str, ...]
    names: dict[str, str] = field(default_factory=dict)
    """Names of the structures that have one."""
    cases: dict[str, Scores] = field(default_factory=dict)
    """Case to its scores; NaN where a segment does not have what a score measures."""

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of the scores that every case has, in the order of `fastcal.segments.SCORES`."""
        held = [set(scores) for case in self.cases.values() for scores in case.values()]
        return tuple(name for name in SCORES if all(name in one for one in held))

    def values(self, score: str, structure: str) -> dict[str, float]:
        """Give a score of a structure, by case.

        Raises:
            ValueError: There is no such score or structure; the message lists those there are.

        Example:
            >>> table = SegmentTable(("0", "1"), cases={"a": {"0": {}, "1": {"volume": 7.0}}})
            >>> table.values("volume", "2")
            Traceback (most recent call last):
            ValueError: structure must be among 0, 1, got '2'
        """
        if structure not in self.structures:
            raise ValueError(
                f"structure must be among {', '.join(self.structures)}, got {structure!r}"
            )
        found = {}
        for case, structures in self.cases.items():
            held = structures.get(structure, {})
            if score not in held:
                known = ", ".join(held) or "none"
                raise ValueError(
                    f"score must be among those of case {case}: {known}, got {score!r}"
                )
            found[case] = held[score]
        return found

    def write(self, stem: Path) -> tuple[Path, Path]:
        """Write ``STEM.json`` and ``STEM.csv``, each whole or not at all; return both paths.

        Raises:
            OSError: The error of the disk.
        """
        # A stem may hold dots, which with_suffix would cut off.
        json_file, csv_file = (stem.with_name(f"{stem.name}.{end}") for end in ("json", "csv"))
        self.write_json(json_file)
        atomic.write_text(csv_file, self._csv())
        return json_file, csv_file

    def write_json(self, path: Path) -> None:
        """Write the JSON file alone.

        Raises:
            OSError: The error of the disk.
        """
        content = {
            "version": 1,
            "structures": self.structures,
            "names": self.names,
            "cases": {case: self.cases[case] for case in sorted(self.cases)},
        }
        atomic.write_json(path, content)

    def _csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        scores = [name for name in SCORES if name in self._any_score()]
        writer.writerow(["case", "structure", "name", *scores])
        for case in sorted(self.cases):
            for structure in self.structures:
                held = self.cases[case].get(structure, {})
                values = [_cell(held.get(name, math.nan)) for name in scores]
                writer.writerow([case, structure, self.names.get(structure, ""), *values])
        return text.getvalue()

    def _any_score(self) -> set[str]:
        return {name for case in self.cases.values() for held in case.values() for name in held}


@dataclass(frozen=True, slots=True)
class _File:
    """The content of ``segments.json``."""

    version: Literal[1]
    structures: tuple[str, ...]
    cases: dict[str, dict[str, dict[str, float | None]]]
    names: dict[str, str] = field(default_factory=dict)


def settings() -> SegmentSettings:
    """Return what a run over cases measures: everything.

    Volumes are scaled to mm^3 later, when the grid of the case is known. Without the extra
    ``quality`` and without SciPy components are not counted.
    """
    counts = any(find_spec(package) for package in ("cc3d", "scipy"))
    return SegmentSettings(pairs=True, component_voxels=10 if counts else None)


def table_of(
    case: str, scores: SegmentScores, spacing: Sequence[float], scheme: LabelScheme
) -> SegmentTable:
    """Return the scores of one case as a table.

    Args:
        case: Its name.
        scores: Those of a batch of one, in voxels.
        spacing: Distance between voxels in mm.
        scheme: What the classes are.
    """
    structures = structures_of(scheme)
    (rows,) = scores.in_mm(spacing).rows(structures)
    return SegmentTable(tuple(structures), scheme.names, {case: rows})


def structures_of(scheme: LabelScheme) -> list[str]:
    """Return the key of every class of a scheme, the background's too."""
    return [*([] if scheme.multilabel else ["0"]), *scheme.foreground]


def read(path: str | Path) -> SegmentTable:
    """Read the scores of a folder of predictions.

    Args:
        path: A prediction folder, or a ``segments.json``.

    Raises:
        DataError: There is no such file, or it does not hold scores. The message names it.

    Example:
        >>> table = read("predictions")  # doctest: +SKIP
        >>> table.values("binary_entropy", "1")  # doctest: +SKIP
        {'case_001': 0.12, 'case_002': 0.31}
    """
    file = Path(path)
    file = file / f"{SEGMENTS}.json" if file.is_dir() else file
    found: _File = read_json(file, _File)
    if len(set(found.structures)) < len(found.structures):
        raise DataError(file, f"structures must be different ones, got {found.structures}")
    cases: dict[str, Scores] = {}
    for case, structures in found.cases.items():
        unknown = structures.keys() - set(found.structures)
        if unknown:
            raise DataError(file, f"case {case} has a structure that is not listed: {min(unknown)}")
        cases[case] = {
            structure: {
                name: math.nan if value is None else value for name, value in scores.items()
            }
            for structure, scores in structures.items()
        }
    return SegmentTable(found.structures, found.names, cases)


def add_tables(files: Iterable[Path], *, start: SegmentTable | None = None) -> SegmentTable:
    """Put the tables of files that have no case in common into one.

    Args:
        files: The files.
        start: The table they are put into, if there is one.

    Raises:
        DataError: A file cannot be read, has other structures, or holds a case that an earlier one
            holds too.
        ValueError: There is no table at all.
    """
    total = start
    held: dict[str, Path] = {}
    for file in files:
        one = read(file)
        if total is None:
            total = SegmentTable(one.structures, one.names)
        if one.structures != total.structures:
            raise DataError(
                file,
                f"scores must be of the structures {', '.join(total.structures)}, as those of the "
                f"other cases, got {', '.join(one.structures)}",
            )
        for case, scores in one.cases.items():
            if case in held:
                raise DataError(file, f"case {case} is also in {held[case]}")
            held[case] = file
            total.cases[case] = scores
    if total is None:
        raise ValueError("files must be at least one file of scores, got none")
    return total


def write_folder(
    files: Iterable[Path],
    folder: Path,
    scheme: LabelScheme,
    *,
    part_id: int = 0,
    num_parts: int = 1,
) -> Path:
    """Write the scores of all finished cases of a part, and return the JSON file.

    Raises:
        DataError: A file of a case cannot be read.
        OSError: The error of the disk.
    """
    stem = SEGMENTS if num_parts == 1 else f"{SEGMENTS}.part-{part_id}-of-{num_parts}"
    start = SegmentTable(tuple(structures_of(scheme)), scheme.names)
    written, _ = add_tables(files, start=start).write(folder / stem)
    return written


def _cell(value: float) -> str:
    return "" if math.isnan(value) else repr(value)
