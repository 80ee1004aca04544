"""The work on one case of a prediction folder, in this process or in a worker's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fastcal.cases.combine import combine
from fastcal.cases.files import CaseFiles
from fastcal.cases.ledger import Ledger
from fastcal.cases.reference import LabelMaps
from fastcal.cases.settings import Counted
from fastcal.cases.source import Source
from fastcal.models.device import choose_device
from fastcal.models.memory import OutOfMemoryError, is_out_of_memory


@dataclass(slots=True)
class CaseWork:
    """Combines the members of a case, counts it, writes its files, and records it."""

    source: Source
    counted: Counted
    files: CaseFiles
    references: LabelMaps | None
    ledger: Ledger

    def __call__(self, case: str) -> None:
        """Do a case.

        Raises:
            DataError: A file cannot be read or does not fit.
            OutOfMemoryError: A ValueError that says what to lower.
            OSError: The error of the disk.
        """
        self.ledger.begin(case)
        try:
            results, like = combine(
                self.source,
                case,
                counted=self.counted,
                written=self.files.written,
                references=self.references,
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(f"{case}: {self.source.advice}") from error
        self.files.write(case, results, self.source.reading, like)
        self.ledger.end(case)


@dataclass(slots=True)
class DealtWork:
    """`CaseWork` as a task of workers, see `fastcal.cases.desk.Task`."""

    work: CaseWork
    device: str | None
    """Where the workers compute; None for a GPU if they have one."""

    @property
    def folder(self) -> Path:
        """The prediction folder."""
        return self.work.files.folder

    def __getstate__(self) -> tuple[CaseWork, str | None]:
        # The networks that this process has loaded stay here.
        bare = self.work.source.moved(torch.device("cpu"))
        return replace(self.work, source=bare), self.device

    def __setstate__(self, state: tuple[CaseWork, str | None]) -> None:
        self.work, self.device = state

    def prepare(self) -> None:
        """Choose the device of this process."""
        moved = self.work.source.moved(choose_device(self.device))
        self.work = replace(self.work, source=moved)

    def __call__(self, case: str, hint: Any = None) -> None:
        """Do a case; its results are its files."""
        del hint
        self.work(case)
