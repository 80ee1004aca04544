"""Statistics of many cases: the sum over the cases of a part, and the sum over the parts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcal import CalibrationStatistics
from fastcal.calibration.summary import calibration_summary, region_summaries
from fastcal.cases.files import STATISTICS, state_file, state_places
from fastcal.cases.parts import check_parts
from fastcal.core import atomic
from fastcal.core.errors import DataError
from fastcal.core.lock import sole_use

_PART = re.compile(rf"{STATISTICS}\.part-(\d+)-of-(\d+)\.npz")


@dataclass(frozen=True, slots=True)
class MergedStatistics:
    """Result of `merge_statistics`."""

    statistics: CalibrationStatistics
    state_file: Path
    """The integer state, ``OUT/calibration.npz``; see `fastcal.cases.files.state_file`."""
    summary_file: Path
    """The metrics, ``OUT/calibration.json``."""
    parts: tuple[Path, ...]


def merge_statistics(parts: str | Path | Sequence[str | Path], out: str | Path) -> MergedStatistics:
    """Add the calibration statistics of the parts of a sharded run.

    The sum is over integers. Whatever the number and the order of the parts, the state is
    bit-identical to that of one run over all cases.

    Args:
        parts: Prediction folders of the parts (often one folder for all), or state files
            ``OUT/calibration.part-K-of-N.npz``. State files that were copied out of their folder
            are added as they are; the others are compared with the records of their folders.
        out: Prediction folder that receives ``calibration.npz`` and ``calibration.json``.

    Raises:
        DataError: A folder has no parts, a part is missing or given twice, a case is counted in
            two parts, a file cannot be read, or the bins differ; parts were made from different
            things, the inputs of a case have changed since, or a part is older than its cases;
            ``out`` holds other predictions, or another command works in it.
        ValueError: There are no parts.

    Example:
        >>> merged = merge_statistics("predictions", "predictions")  # doctest: +SKIP
        >>> merged.statistics.ece()  # doctest: +SKIP
        0.0123
    """
    given = [parts] if isinstance(parts, str | Path) else list(parts)
    files = [file for path in given for file in _part_files(Path(path))]
    if not files:
        raise ValueError(f"parts must be at least one folder or state file, got {parts!r}")
    _check_complete(files)
    total = add_statistics(files)
    folder = Path(out)
    check_parts(files, folder)
    with sole_use(folder, "command"):
        written = write_statistics(total, folder)
    return MergedStatistics(total, *written, tuple(files))


def add_statistics(
    files: Iterable[Path], *, start: CalibrationStatistics | None = None
) -> CalibrationStatistics:
    """Add saved states that have no case in common.

    Args:
        files: The saved states.
        start: The state they are added to, if there is one.

    Raises:
        DataError: A file cannot be read, has other bins or classes, or holds a case that was
            counted before.
        ValueError: There is no state at all.
    """
    total = start
    counted: dict[str, Path] = {}
    for file in files:
        one = CalibrationStatistics.load(file)
        for case in one.case_ids:
            if case in counted:
                raise DataError(file, f"case {case} is also counted in {counted[case]}")
            counted[case] = file
        if total is None:
            total = one
            continue
        try:
            total.merge(one)
        except ValueError as error:
            raise DataError(file, f"{error}") from error
    if total is None:
        raise ValueError("files must be at least one state file, got none")
    return total


def write_statistics(
    statistics: CalibrationStatistics, folder: Path, *, part_id: int = 0, num_parts: int = 1
) -> tuple[Path, Path]:
    """Write a state and its summary into a prediction folder; return both paths."""
    path = state_file(folder, part_id=part_id, num_parts=num_parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    statistics.save(path)
    for place in state_places(folder):
        if place != path.parent:  # where it lay before the folder had probabilities
            (place / path.name).unlink(missing_ok=True)
    summary_file = folder / f"{path.stem}.json"
    atomic.write_json(summary_file, _summary(statistics))
    return path, summary_file


def _summary(statistics: CalibrationStatistics) -> dict[str, Any]:
    cases = sorted(statistics.case_ids)
    summary = {
        "pooled": calibration_summary(statistics),
        "case": calibration_summary(statistics, reduction="case") if cases else None,
        "cases": cases,
        "settings": statistics.settings.arguments(),
    }
    if statistics.regions:
        summary["regions"] = {
            "pooled": region_summaries(statistics),
            "case": region_summaries(statistics, reduction="case") if cases else None,
        }
    return summary


def holds_statistics(places: Iterable[str | Path]) -> bool:
    """Whether one of these paths is a file, or a folder with statistics."""
    return any(
        not path.is_dir()
        or any(any(place.glob(f"{STATISTICS}*.npz")) for place in state_places(path))
        for path in map(Path, places)
    )


def _part_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(path, "no such file or folder")
    files = [file for place in state_places(path) for file in place.glob("*.npz")]
    found = sorted(file for file in files if _PART.fullmatch(file.name))
    whole = [file for file in files if file.name == f"{STATISTICS}.npz" and file.is_file()]
    if not found and whole:
        return whole[:1]
    if not found:
        raise DataError(path, "no statistics (calibration.part-K-of-N.npz) in this folder")
    return found


def _check_complete(files: Sequence[Path]) -> None:
    """Raise a `DataError` if a part of an N-part run is missing or given twice."""
    seen: dict[tuple[int, int], Path] = {}
    for file in files:
        match = _PART.fullmatch(file.name)
        if match is None:
            continue
        key = int(match[2]), int(match[1])
        if key in seen:
            raise DataError(file, f"this is the same part as {seen[key]}")
        seen[key] = file
    for num_parts, part_id in list(seen):
        for other in range(num_parts):
            if (num_parts, other) not in seen:
                raise DataError(seen[num_parts, part_id], f"part {other} of {num_parts} is missing")
