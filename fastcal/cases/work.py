"""The work on one case of a prediction folder, in this process or in a worker's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fastcal.cases.combine import Combined, combine
from fastcal.cases.files import CaseFiles
from fastcal.cases.ledger import Ledger
from fastcal.cases.pipeline import Stages, run_stages
from fastcal.cases.reference import LabelMap, LabelMaps, check_extents
from fastcal.cases.settings import Counted
from fastcal.cases.source import Source
from fastcal.data import images
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

    @property
    def stages(self) -> Stages[Any, Combined]:
        """The three steps of a case, for `fastcal.cases.pipeline.run_stages`."""
        return Stages(self._read, self._compute, self._write)

    def _read(self, case: str) -> Iterator[Any]:
        self.ledger.begin(case)
        yield None if self.references is None else _labels(self.source, self.references, case)
        yield from self.source.read(case)

    def _compute(self, case: str, pieces: Iterator[Any]) -> Combined:
        try:
            reference: LabelMap | None = next(pieces)
            return combine(
                self.source,
                case,
                self.source.members(case, pieces),
                counted=self.counted,
                written=self.files.written,
                reference=reference,
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(f"{case}: {self.source.advice}") from error

    def _write(self, case: str, combined: Combined) -> None:
        self.files.write(case, combined.statistics, self.source.reading, combined.like)
        self.ledger.end(case)


def _labels(source: Source, references: LabelMaps, case: str) -> LabelMap:
    """Read the labels of a case, once their extents are those of an image that is read too."""
    places = (path for path in source.inputs(case) if images.ending_of(path.name) is not None)
    image = next((path for path in places if path.is_file()), None)
    if image is not None:
        references.require([case])
        check_extents(references.paths[case], image)
    return references.read(case)


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
        run_stages([case], self.work.stages)
