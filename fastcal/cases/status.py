"""What the records of a prediction folder say of it, without doing anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcal.cases.case_record import CaseRecord
from fastcal.cases.journal import Entry, WorkerTally, last_entries, read_journals, tallies
from fastcal.cases.loop import Failure
from fastcal.cases.parts import check_inputs
from fastcal.cases.record import FILE, FolderRecord
from fastcal.core.errors import DataError


@dataclass(frozen=True, slots=True)
class FolderStatus:
    """Result of `folder_status`."""

    folder: Path
    settings: dict[str, Any]
    """What the folder was made with: the command and every setting that changes a number."""
    versions: dict[str, str]
    finished: tuple[str, ...]
    """Cases whose outputs are what was written, from inputs that have not changed."""
    unfit: tuple[Failure, ...]
    """The other cases that have a record or stand in a journal, with the reasons."""
    workers: tuple[WorkerTally, ...] = ()
    """What each worker did, where workers did the cases."""


def folder_status(folder: str | Path) -> FolderStatus:
    """Compare a prediction folder with its records: its outputs, and the inputs that are there.

    Args:
        folder: A folder that `fastcal.predict.predict_cases`, `fastcal.predict.ensemble_folders` or
            `fastcal.recalibrate.apply_folders` wrote.

    Returns:
        Which cases are finished. Inputs that are gone cannot be compared, and are no fault.

    Raises:
        DataError: The folder has no record, or one or its journal cannot be read.

    Example:
        >>> folder_status("predictions").finished  # doctest: +SKIP
        ('case_001', 'case_002')
    """
    place = Path(folder)
    record = FolderRecord.read(place)
    if record is None:
        raise DataError(place, f"has no {FILE}; it must be a folder of predictions")
    reasons = {case: _fault(place, case, record.key) for case in CaseRecord.cases(place)}
    entries = read_journals(place)
    for case, entry in last_entries(entries).items():
        reasons.setdefault(case, _unfinished(entry))
    return FolderStatus(
        place,
        record.settings,
        record.versions,
        tuple(case for case, reason in reasons.items() if reason is None),
        tuple(Failure(case, reason) for case, reason in reasons.items() if reason is not None),
        tuple(tallies(entries)),
    )


def _unfinished(entry: Entry) -> str:
    """Say what became of a case that has no record."""
    if entry.state == "begun":
        return f"begun by {entry.worker} at {entry.at}, and not finished"
    if entry.state == "done":
        return f"done by {entry.worker} at {entry.at}, but its record is missing"
    return entry.error or f"{entry.state} by {entry.worker} at {entry.at}"


def _fault(folder: Path, case: str, key: str) -> str | None:
    """Say why a case does not count as finished; None if it does."""
    known = CaseRecord.read(folder, case)
    if known is None:
        return f"{CaseRecord.path(folder, case)}: cannot be read"
    if known.key != key:
        return f"{CaseRecord.path(folder, case)}: was made with other settings than the folder"
    for name in known.outputs:
        if not known.holds(folder, [folder / name]):
            return f"{folder / name}: is not what was written"
    try:
        check_inputs(known, case, folder)
    except DataError as error:
        return str(error)
    return None
