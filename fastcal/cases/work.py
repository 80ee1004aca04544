"""The work on one case of a prediction folder, in this process or in a worker's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from fastcal.cases.combine import Wanted, combine
from fastcal.cases.files import CaseContent, CaseFiles
from fastcal.cases.ledger import Ledger
from fastcal.cases.pipeline import Stages, run_stages
from fastcal.cases.reference import LabelMap, LabelMaps, check_extents
from fastcal.cases.slabs import Slabs
from fastcal.cases.source import Source
from fastcal.data import images
from fastcal.models.device import choose_device
from fastcal.models.memory import OutOfMemoryError, is_out_of_memory


@dataclass(slots=True)
class CaseWork:
    """Combines the members of a case, counts it, writes its files, and records it."""

    source: Source
    wanted: Wanted
    files: CaseFiles
    references: LabelMaps | None
    ledger: Ledger
    memory: int | None = None
    """Bytes that a process may take; None reads whole cases."""
    slabs: Slabs | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.memory is not None:
            self.slabs = Slabs(self.source, self.wanted, self.files, self.memory)

    @property
    def stages(self) -> Stages[Any, CaseContent]:
        """The three steps of a case, for `fastcal.cases.pipeline.run_stages`."""
        return Stages(self._read, self._compute, self._write)

    def _read(self, case: str) -> Iterator[Any]:
        self.ledger.begin(case)
        if self.slabs is not None:
            yield None  # the slabs are read as they are combined
            return
        yield None if self.references is None else _labels(self.source, self.references, case)
        yield from self.source.read(case)

    def _compute(self, case: str, pieces: Iterator[Any]) -> CaseContent:
        source = self.source
        try:
            reference: LabelMap | None = next(pieces)  # raises what the ledger refuses
            if self.slabs is not None:
                return self.slabs.combine(case, self.references)
            combined = combine(
                case,
                source.members(case, pieces),
                source.reading,
                self.wanted,
                reference=reference,
                again=lambda: source.members(case, source.read(case)),
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(f"{case}: {source.advice}") from error
        return CaseContent.of(combined.statistics, source.reading, combined.like)

    def _write(self, case: str, content: CaseContent) -> None:
        self.files.write(case, content)
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
        ledger = self.work.ledger.of_source(bare)
        return replace(self.work, source=bare, ledger=ledger), self.device

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
