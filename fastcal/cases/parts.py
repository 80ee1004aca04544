"""Whether the statistics that are to be added belong together, by the records of their folders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from fastcal import CalibrationStatistics
from fastcal.cases import segments
from fastcal.cases.case_record import CaseRecord
from fastcal.cases.files import STATISTICS, state_file
from fastcal.cases.record import FILE, FolderRecord, digests, first_change, located
from fastcal.cases.segments import SEGMENTS
from fastcal.core.errors import DataError
from fastcal.core.places import check_outputs, check_own

_SUMMARY = f"{STATISTICS}.json"
_SUMS = (f"{STATISTICS}.npz", _SUMMARY, f"{SEGMENTS}.json", f"{SEGMENTS}.csv")
"""All that is put together, one after another, in the folder of the sum."""


def check_parts(files: Sequence[Path], out: Path) -> None:
    """Compare states with what their folders say that they were made from.

    A state that lies in no prediction folder is taken as it is.

    Args:
        files: The states to add.
        out: The folder that receives the sum.

    Raises:
        DataError: Two folders were made from different things, the inputs of a case have changed
            since, or a part is not the sum of its cases; ``out`` holds other predictions, or files
            that are not predictions.
    """
    folders = {file: _folder_of(file) for file in files}
    records = check_folders([one for one in folders.values() if one is not None], out)
    for file, folder in folders.items():
        if folder is not None and folder in records:
            _check_cases(file, folder, records[folder])
    _check_out(files, out, (state_file(out), out / _SUMMARY), known=bool(records))


def check_tables(files: Sequence[Path], out: Path) -> None:
    """Compare the scores of parts with what their folders say that they were made from.

    Args:
        files: The files of scores to put together, in their prediction folders.
        out: The folder that receives them.

    Raises:
        DataError: See `check_parts`.
    """
    records = check_folders(sorted({file.parent for file in files}), out)
    for file in files:
        if file.parent in records:
            _check_scores(file, records[file.parent])
    written = [out / f"{SEGMENTS}{ending}" for ending in (".json", ".csv")]
    _check_out(files, out, written, known=bool(records))


def _check_out(files: Sequence[Path], out: Path, written: Sequence[Path], *, known: bool) -> None:
    """Refuse a folder for the sum that holds other predictions, or files that are none."""
    check_outputs(written, _but_the_sum(files, written[0].parent))
    if not (out / FILE).exists():
        own = (file.name for file in files if file.parent == out)
        check_own(out, but=(*_SUMS, *own))
    elif not known:
        raise DataError(out, "holds predictions, of which the parts say nothing; choose another")


def check_folders(folders: Iterable[Path], out: Path) -> dict[Path, FolderRecord]:
    """Compare the records of prediction folders whose cases are to be put together.

    Args:
        folders: The folders.
        out: The folder that receives the sum, which may be one of them.

    Returns:
        The record of each folder that has one.

    Raises:
        DataError: Two folders were made from different things, or an input of a case has changed
            since; the message names it.
    """
    records: dict[Path, FolderRecord] = {}
    for folder in folders:
        if folder in records or (record := FolderRecord.read(folder)) is None:
            continue
        for other in records.values():
            other.check_same(record)
        records[folder] = record
        for case in CaseRecord.cases(folder):
            known = CaseRecord.read(folder, case)
            if known is not None and known.key == record.key:
                check_inputs(known, case, folder)
    if records and (there := FolderRecord.read(out)) is not None:
        for record in records.values():
            there.check_same(record)
    return records


def _check_cases(file: Path, folder: Path, record: FolderRecord) -> None:
    """Check that a state is what the cases of its folder add up to."""
    state = CalibrationStatistics.load(file)
    total: CalibrationStatistics | None = None
    for case in state.case_ids:
        own = folder / STATISTICS / f"{case}.npz"
        _check_finished(file, case, own, record)
        one = CalibrationStatistics.load(own)
        if total is None:
            total = one
        else:
            total.merge(one)
    if total is not None and total != state:
        raise _old(file)


def _check_scores(file: Path, record: FolderRecord) -> None:
    """Check that a table is what the cases of its folder have."""
    for case, scores in segments.read(file).cases.items():
        own = file.parent / SEGMENTS / f"{case}.json"
        _check_finished(file, case, own, record)
        # As texts: a NaN equals a NaN.
        if repr(segments.read(own).cases.get(case)) != repr(scores):
            raise _old(file)


def _check_finished(file: Path, case: str, own: Path, record: FolderRecord) -> None:
    """Check that a case of a part is finished, and its file what was written."""
    known = CaseRecord.read(record.folder, case)
    if known is None or known.key != record.key:
        raise DataError(file, f"holds case {case}, which {record.folder} has no finished record of")
    if not known.holds(record.folder, [own]):
        raise DataError(own, f"is not what was counted when case {case} was done")


def _old(file: Path) -> DataError:
    return DataError(file, f"is older than its cases in {file.parent}; run this part again")


def check_inputs(known: CaseRecord, case: str, folder: Path) -> None:
    """Refuse inputs that have changed since; those that are gone cannot have."""
    for inputs in (known.members, known.reference):
        now = digests([located(name, folder) for name in inputs], folder, inputs)
        changed = first_change({name: inputs[name] for name in now if name in inputs}, now)
        if changed is not None:
            raise DataError(
                located(changed, folder), f"has changed since case {case} was done in {folder}"
            )


def _folder_of(file: Path) -> Path | None:
    """The prediction folder that a state lies in."""
    folders = [file.parent]
    if file.parent.name == STATISTICS:
        folders.append(file.parent.parent)
    return next((folder for folder in folders if (folder / FILE).exists()), None)


def _but_the_sum(files: Sequence[Path], place: Path) -> list[Path]:
    """The states that the sum must not take the place of: all but an earlier sum of its own."""
    return [file for file in files if len(files) > 1 or file.parent != place]
