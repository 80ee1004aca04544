"""The records of a prediction folder during a run: what may be kept, and what is done anew."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fastcal.cases.case_record import CaseRecord
from fastcal.cases.files import STATISTICS, state_file, state_places
from fastcal.cases.journal import forget, journal_file, journals
from fastcal.cases.record import FILE, FolderRecord
from fastcal.cases.segments import SEGMENTS
from fastcal.core.errors import DataError
from fastcal.core.places import check_out_folder, check_outputs, check_own

if TYPE_CHECKING:
    from fastcal.cases.files import CaseFiles
    from fastcal.cases.reference import LabelMaps
    from fastcal.cases.settings import Counted, Part
    from fastcal.cases.source import Source

_SUMMARIES = (
    *(f"{STATISTICS}*.npz", f"{STATISTICS}/{STATISTICS}*.npz", f"{STATISTICS}*.json"),
    *("segments*.json", "segments*.csv"),
)
"""Files of the folder that are sums over its cases."""


class Ledger:
    """The record of a folder and those of its cases, compared with what a run is asked for.

    Args:
        source: Gives the cases and their members.
        counted: What is counted.
        files: Where the outputs go.
        references: The labels, or None.
    """

    def __init__(
        self, source: Source, counted: Counted, files: CaseFiles, references: LabelMaps | None
    ) -> None:
        self._source, self._files, self._references = source, files, references
        self._origin = source.origin
        self._wanted = FolderRecord.of(self._origin, files.written, counted)
        self._changed: dict[str, DataError] = {}
        self._begun: dict[str, CaseRecord] = {}

    def of_source(self, source: Source) -> Ledger:
        """Return the same records for a source that was moved to another process."""
        made = copy.copy(self)
        made._source = source
        return made

    def check_places(self, cases: Sequence[str]) -> None:
        """Refuse outputs in a wrong place, before anything is written, the lock included.

        Args:
            cases: The cases to do.

        Raises:
            DataError: An output would take the place of an input, or the folder holds what fastcal
                did not write.
        """
        files, folder = self._files, self._files.folder
        read = list(self._origin.folders)
        inputs = [path for case in self._source.cases for path in self._source.inputs(case)]
        inputs += self._origin.shared
        if self._references is not None:
            read.append(self._references.folder)
            inputs += self._references.paths.values()
        outputs = [path for case in cases for path in files.of(case)]
        for place in dict.fromkeys([folder, *(path.parent for path in files.of("any"))]):
            check_out_folder(place, read)
        check_outputs([*outputs, *self._summaries()], inputs)
        if (folder / FILE).exists():
            return
        if not CaseRecord.cases(folder):
            try:
                check_own(folder, outputs)
            except DataError:
                # Another part may have begun the folder at this moment.
                if not (folder / FILE).exists():
                    raise
        elif not files.written.overwrite:
            raise _lost(folder)

    def open(self, cases: Sequence[str], part: Part) -> None:
        """Check the folder against the run, make it, and record the run in it.

        Nothing is written before everything is checked. `check_places` comes before.

        Args:
            cases: The cases to do.
            part: Which share of all cases they are.

        Raises:
            DataError: The folder was made from something else, or the inputs of a finished case
                have changed (with ``keep_going`` that case fails instead).
            OSError: The error of the disk.
        """
        written = self._files.written
        if written.overwrite:
            record = self._overwritten(cases, part)
        else:
            record = self._continued()
            for case in cases:
                self._compare(case)
            if self._changed and not part.keep_going:
                raise next(iter(self._changed.values()))
        self._files.make_folders()
        record.write()

    def finished(self, case: str) -> bool:
        """Whether a case has every file that is asked for, as it was written."""
        if case in self._changed:
            return False
        known = self._known(case)
        return known is not None and known.holds(self._files.folder, self._files.of(case))

    def begin(self, case: str) -> None:
        """Take the digests of the inputs of a case, before they are read.

        Raises:
            DataError: An input cannot be read, or has changed since the case was done.
        """
        if case in self._changed:
            raise self._changed[case]
        known = CaseRecord.read(self._files.folder, case)
        now = self._now(case, known)
        if (
            known is not None
            and known.key == self._wanted.key
            and not self._files.written.overwrite
        ):
            # Its other maps stay what they are.
            now = replace(now, outputs=known.outputs)
        self._begun[case] = now

    def end(self, case: str) -> None:
        """Read the files of a case back, and record it as finished.

        Raises:
            DataError: A file cannot be read.
            OSError: The error of the disk.
        """
        self._begun.pop(case).write(self._files.folder, case, self._files.of(case))

    def _summaries(self) -> Iterable[Path]:
        folder, described = self._files.folder, self._source.dataset_json
        yield from (folder / FILE, state_file(folder), folder / f"{STATISTICS}.json")
        for pattern in _SUMMARIES:
            yield from folder.glob(pattern)
        yield from journals(folder)
        if described is not None:
            yield folder / "dataset.json"

    def _continued(self) -> FolderRecord:
        """The record of a folder to go on with, new or one that agrees."""
        known = FolderRecord.read(self._files.folder)
        if known is None:
            return self._wanted
        known.check_same(self._wanted)
        return known.counting(self._wanted)

    def _compare(self, case: str) -> None:
        """Note a case whose inputs have changed since it was done."""
        known = self._known(case)
        if known is None:
            return
        try:
            known.check_inputs(self._now(case, known), case, self._files.folder)
        except DataError as error:
            self._changed[case] = error

    def _known(self, case: str) -> CaseRecord | None:
        """The record of a case that was done with the settings of this run."""
        known = CaseRecord.read(self._files.folder, case)
        return known if known is not None and known.key == self._wanted.key else None

    def _now(self, case: str, known: CaseRecord | None) -> CaseRecord:
        reference = [] if self._references is None else [self._references.paths.get(case)]
        return CaseRecord.of(
            self._wanted.key,
            self._source.inputs(case),
            [path for path in reference if path is not None],
            self._files.folder,
            known,
        )

    def _overwritten(self, cases: Sequence[str], part: Part) -> FolderRecord:
        """The record of a folder where cases are done again; it starts anew if it must."""
        folder = self._files.folder
        different: DataError | None = None
        try:
            known = FolderRecord.read(folder)
            if known is None and CaseRecord.cases(folder):
                raise _lost(folder)
            if known is not None:
                known.check_same(self._wanted)
        except DataError as error:
            known, different = None, error
        if different is None:
            self._files.forget(cases)
            self._forget_lines(cases, part)
            self._forget_sums(part)
            return self._wanted if known is None else known.counting(self._wanted)
        there = CaseRecord.cases(folder)
        others = sorted(set(there) - set(cases))
        if others or part.num_parts > 1:
            what = f"case {others[0]}" if others else "the other parts"
            raise DataError(
                different.path,
                f"{different.problem.partition(';')[0]}; overwrite must start the folder anew, "
                f"with all its cases, and would keep {what}",
            )
        for case in there:
            self._files.remove(case)
        self._files.forget(cases)
        for pattern in _SUMMARIES:
            for path in folder.glob(pattern):
                path.unlink()
        for path in journals(folder):
            path.unlink()
        return self._wanted

    def _forget_lines(self, cases: Sequence[str], part: Part) -> None:
        """Forget what journals say of cases that are done anew."""
        own = journal_file(self._files.folder, part_id=part.part_id, num_parts=part.num_parts)
        # Parts of the same number may be at work, and have other cases.
        beside = {
            journal_file(self._files.folder, part_id=other, num_parts=part.num_parts)
            for other in range(part.num_parts)
        }
        for path in journals(self._files.folder):
            if path == own or path not in beside:
                forget(path, set(cases))

    def _forget_sums(self, part: Part) -> None:
        """Remove what this run sums up at its end: a kill must not leave it beside other cases."""
        folder, name = self._files.folder, f".{part.name}" if part.name else ""
        sums = []
        if self._files.statistics:
            state = state_file(folder, part_id=part.part_id, num_parts=part.num_parts)
            sums += [place / state.name for place in state_places(folder)]
            sums.append(folder / f"{STATISTICS}{name}.json")
        if self._files.written.segments:
            sums += [folder / f"{SEGMENTS}{name}{ending}" for ending in (".json", ".csv")]
        for path in sums:
            path.unlink(missing_ok=True)


def _lost(folder: Path) -> DataError:
    return DataError(
        folder / FILE,
        "is missing, though there are cases that it is of; choose another folder, or overwrite",
    )
