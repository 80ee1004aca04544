"""Cases that an evaluation has scored already, so that a killed one goes on where it was."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from fastcal import CalibrationStatistics
from fastcal.cases.case_record import FOLDER as RECORDS
from fastcal.cases.case_record import CaseRecord
from fastcal.cases.files import STATISTICS
from fastcal.cases.record import first_change
from fastcal.core import atomic
from fastcal.core.doors import read_json
from fastcal.core.doors.writing import remove_leftovers
from fastcal.core.heartbeat import Heart
from fastcal.core.lock import sole_use

PARTIAL = ".partial"
"""Ends the name of the folder beside the file of results."""
_SCORES = "scores"


@dataclass(frozen=True, slots=True)
class Scored:
    """What is computed of one case."""

    metrics: dict[str, dict[str, int | float]]
    """Of each structure, by name; NaN where one is undefined."""
    statistics: CalibrationStatistics | None
    """Of its probabilities, where there are any."""
    contradicting: int
    """Voxels whose most probable class differs from the label map."""
    source: str
    """The file of the probabilities; empty where there are none."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """The JSON form of a `Scored`; null stands for NaN."""

    metrics: dict[str, dict[str, int | float | None]]
    contradicting: int
    source: str
    counted: bool
    """Whether there are statistics."""


@dataclass(frozen=True, slots=True)
class Begun:
    """The folder of scored cases beside a file of results, which is there until that is written.

    ``scores/CASE.json`` holds the metrics of a case, ``calibration/CASE.npz`` its statistics, and
    ``record/CASE.json`` what they were made from. A case is kept while its inputs are those that
    are recorded, and all settings are the same.
    """

    folder: Path
    """``OUT.partial``."""
    key: str
    """`fastcal.cases.record.FolderRecord.key` of everything but the files of a case."""

    @contextmanager
    def held(self, *, machines: bool = False) -> Iterator[Heart | None]:
        """Hold the folder, and remove it when the block succeeds.

        Args:
            machines: See `fastcal.core.lock.sole_use`.

        Yields:
            What tells whether the folder is still held.

        Raises:
            DataError: Another evaluation writes the same file of results.
        """
        with sole_use(self.folder, "evaluation", machines=machines) as heart:
            yield heart
            for name in (_SCORES, STATISTICS, RECORDS):
                _remove(self.folder / name)
        with suppress(OSError):
            self.folder.rmdir()

    def knows(self, case: str) -> bool:
        """Whether there is a record of a case, which may be out of date."""
        return CaseRecord.path(self.folder, case).exists()

    def holds(self, case: str, now: CaseRecord) -> bool:
        """Whether a case was scored with these settings, from the inputs that are there now."""
        known = CaseRecord.read(self.folder, case)
        return (
            known is not None
            and known.key == now.key
            and first_change(known.members, now.members) is None
            and first_change(known.reference, now.reference) is None
            and known.holds(self.folder, [self.folder / name for name in known.outputs])
        )

    def write(self, case: str, scored: Scored, record: CaseRecord) -> None:
        """Keep a case; its record is written last.

        Raises:
            OSError: The error of the disk.
        """
        scores, counted = self._scores_of(case), self._statistics_of(case)
        for path in (scores, counted, CaseRecord.path(self.folder, case)):
            path.parent.mkdir(parents=True, exist_ok=True)
        kept = _Kept(
            {key: _with_none(one) for key, one in scored.metrics.items()},
            scored.contradicting,
            scored.source,
            scored.statistics is not None,
        )
        outputs = [scores]
        if scored.statistics is not None:
            scored.statistics.save(counted)
            outputs.append(counted)
        atomic.write_json(scores, asdict(kept))
        record.write(self.folder, case, outputs)

    def read(self, case: str) -> Scored:
        """Read a case that is kept.

        Raises:
            DataError: A file of it cannot be read.
        """
        kept: _Kept = read_json(self._scores_of(case), _Kept)
        return Scored(
            {key: _with_nan(one) for key, one in kept.metrics.items()},
            CalibrationStatistics.load(self._statistics_of(case)) if kept.counted else None,
            kept.contradicting,
            kept.source,
        )

    def _scores_of(self, case: str) -> Path:
        return self.folder / _SCORES / f"{case}.json"

    def _statistics_of(self, case: str) -> Path:
        return self.folder / STATISTICS / f"{case}.npz"


def _with_none(metrics: Mapping[str, float]) -> dict[str, int | float | None]:
    return {name: None if math.isnan(value) else value for name, value in metrics.items()}


def _with_nan(metrics: Mapping[str, float | None]) -> dict[str, int | float]:
    return {name: math.nan if value is None else value for name, value in metrics.items()}


def _remove(folder: Path) -> None:
    """Remove one of the folder's own folders; what else may lie there stays."""
    remove_leftovers(folder)
    for path in folder.glob("*"):
        if path.suffix in (".json", ".npz"):
            path.unlink()
    with suppress(OSError):
        folder.rmdir()
