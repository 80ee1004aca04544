"""Cases on disk as the volumes of a fit: read again at every pass, one ahead of the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from torch import Tensor

from fastcal.cases.loop import Progress, ProgressOption, reporter
from fastcal.cases.pipeline import ReadAhead
from fastcal.cases.plausible import check_read
from fastcal.cases.reference import LabelMap, LabelMaps
from fastcal.cases.source import Member
from fastcal.cases.told import told
from fastcal.data.predictions import PredictionFolder, Probabilities
from fastcal.recalibrate.pool import Pool
from fastcal.recalibrate.volumes import PredictionReading

Volume: TypeAlias = tuple[Tensor, Tensor, Tensor | None]
Elsewhere: TypeAlias = Callable[
    [
        Sequence[str],
        Callable[[int, Volume], Any],
        Callable[[Any], None],
        Callable[[Progress], None],
    ],
    None,
]
"""Folds cases: their names, what is made of a volume and its number, what takes it in their order,
and what is told when a case is done."""

T = TypeVar("T")


class CaseVolumes:
    """``(preds, target, mask)`` of cases on disk, iterable as often as wanted.

    ``current`` is the file that was read last, for the error message of whoever reads.

    Args:
        cases: Case names.
        read: Reads the probabilities of one of them.
        references: Their labels.
        reading: What the numbers are: those of every file must be of this kind.
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
        reading: PredictionReading,
        progress: ProgressOption = False,
        part: str = "",
    ) -> None:
        references.require(cases)
        self.cases = list(cases)
        self.current: Path | None = None
        self._read, self._references, self._reading = read, references, reading
        self._progress, self._part = progress, part
        self._passes = 0
        self._elsewhere: Elsewhere | None = None

    @classmethod
    def of_folders(
        cls,
        places: Mapping[str, PredictionFolder],
        references: LabelMaps,
        reading: PredictionReading,
        progress: ProgressOption = False,
    ) -> CaseVolumes:
        """Return the volumes of cases that lie in one folder each."""
        return cls(list(places), _Placed(places), references, reading, progress)

    @classmethod
    def of_pool(
        cls,
        cases: Sequence[str],
        pool: Pool,
        references: LabelMaps,
        progress: ProgressOption = False,
    ) -> CaseVolumes:
        """Return the volumes of the means of an ensemble's members."""
        reading = replace(pool.ensemble.calibrator.reading, from_logits=False)
        return cls(cases, pool.mean, references, reading, progress)

    def subset(self, cases: Sequence[str], part: str) -> CaseVolumes:
        """Return the volumes of some of the cases, reported as a part of the work."""
        about = self._references, self._reading
        made = CaseVolumes(cases, self._read, *about, self._progress, part)
        made._elsewhere = self._elsewhere
        return made

    def read_elsewhere(self, elsewhere: Elsewhere | None) -> None:
        """Let others read the volumes in `fold`, such as the workers of a cluster."""
        self._elsewhere = elsewhere

    def fold(self, read: Callable[[int, Volume], T], take: Callable[[T], None]) -> None:
        """Read every volume once, and take what is made of each, in the order of the cases.

        Args:
            read: Makes something of a volume and its number among the cases. It can be pickled.
            take: Takes what it made.
        """
        if self._elsewhere is None:
            for number, item in enumerate(self):
                take(read(number, item))
            return
        say, step = reporter(self._progress), self._next_step()
        self._elsewhere(self.cases, read, take, lambda state: say(replace(state, step=step)))

    def _next_step(self) -> str:
        self._passes += 1
        return ", ".join(filter(None, (self._part, f"pass {self._passes}")))

    def __getstate__(self) -> tuple[Any, ...]:
        return self.cases, self._read, self._references, self._reading

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.cases, self._read, self._references, self._reading = state
        self.current = self._elsewhere = None
        self._progress, self._part, self._passes = False, "", 0

    def __iter__(self) -> Iterator[Volume]:
        step = self._next_step()
        with ReadAhead(self.cases, self._pieces) as ahead:
            for case in told(self.cases, self._progress, step=step):
                # No local name: the case must be gone when the next one is taken.
                yield self._volume(*next(ahead.of(case)))

    def volume(self, case: str) -> Volume:
        """Read one case.

        Raises:
            DataError: A file cannot be read, or does not fit.
        """
        return self._volume(*self._whole(case))

    def _pieces(self, case: str) -> Iterator[tuple[Probabilities, LabelMap]]:
        yield self._whole(case)

    def _whole(self, case: str) -> tuple[Probabilities, LabelMap]:
        found = self._read(case)
        like = found.like or self._references.geometry(case, found.data.shape[1:], found.source)
        return found, self._references.read(case, like, found.source)

    def _volume(self, found: Probabilities, reference: LabelMap) -> Volume:
        self.current = found.source
        self._references.scheme.check_channels(found.data.shape[0], found.source)
        reading = self._reading
        check_read(
            found,
            from_logits=reading.from_logits,
            activation=reading.activation,
            multilabel=reading.multilabel,
        )
        return Member.of(found).values, reference.target(), reference.mask()


@dataclass(frozen=True, slots=True)
class _Placed:
    """Reads cases that lie in one folder each."""

    places: Mapping[str, PredictionFolder]

    def __call__(self, case: str) -> Probabilities:
        return self.places[case].probabilities(case)
