"""Cases on disk as the volumes of a fit: read again at every pass, one ahead of the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from fastcal.cases.loop import ProgressOption
from fastcal.cases.pipeline import ReadAhead
from fastcal.cases.plausible import check_activation, check_probabilities
from fastcal.cases.reference import LabelMap, LabelMaps
from fastcal.cases.source import Member
from fastcal.cases.told import told
from fastcal.data.predictions import PredictionFolder, Probabilities
from fastcal.recalibrate.pool import Pool


class CaseVolumes:
    """``(preds, target, mask)`` of cases on disk, iterable as often as wanted.

    ``current`` is the file that was read last, for the error message of whoever reads.

    Args:
        cases: Case names.
        read: Reads the probabilities of one of them.
        references: Their labels.
        progress: Whether, or how, every case of every pass is reported.
        part: What the passes are a part of, for the reports.

    Raises:
        DataError: A case has no labels.
    """

    def __init__(
        self,
        cases: Sequence[str],
        read: Callable[[str], Probabilities],
        references: LabelMaps,
        progress: ProgressOption = False,
        part: str = "",
    ) -> None:
        references.require(cases)
        self.cases = list(cases)
        self.current: Path | None = None
        self._read, self._references = read, references
        self._progress, self._part = progress, part
        self._passes = 0

    @classmethod
    def of_folders(
        cls,
        places: Mapping[str, PredictionFolder],
        references: LabelMaps,
        progress: ProgressOption = False,
    ) -> CaseVolumes:
        """Return the volumes of cases that lie in one folder each."""
        return cls(
            list(places), lambda case: places[case].probabilities(case), references, progress
        )

    @classmethod
    def of_pool(
        cls,
        cases: Sequence[str],
        pool: Pool,
        references: LabelMaps,
        progress: ProgressOption = False,
    ) -> CaseVolumes:
        """Return the volumes of the means of an ensemble's members."""
        return cls(cases, pool.mean, references, progress)

    def subset(self, cases: Sequence[str], part: str) -> CaseVolumes:
        """Return the volumes of some of the cases, reported as a part of the work."""
        return CaseVolumes(cases, self._read, self._references, self._progress, part)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        self._passes += 1
        step = ", ".join(filter(None, (self._part, f"pass {self._passes}")))
        with ReadAhead(self.cases, self._pieces) as ahead:
            for case in told(self.cases, self._progress, step=step):
                # No local name: the case must be gone when the next one is taken.
                yield self._volume(*next(ahead.of(case)))

    def _pieces(self, case: str) -> Iterator[tuple[Probabilities, LabelMap]]:
        yield self._whole(case)

    def _whole(self, case: str) -> tuple[Probabilities, LabelMap]:
        found = self._read(case)
        like = found.like or self._references.geometry(case, found.data.shape[1:], found.source)
        return found, self._references.read(case, like, found.source)

    def _volume(
        self, found: Probabilities, reference: LabelMap
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        self.current = found.source
        self._references.scheme.check_channels(found.data.shape[0], found.source)
        check_activation(found)
        check_probabilities(found, self._references.scheme)
        return Member.of(found).values, reference.target(), reference.mask()
