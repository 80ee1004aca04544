"""The passes of a fit on workers: a case is a task, and its sums come back to be added in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcal.cases.dealer import Hands, deal
from fastcal.cases.journal import Journal, journal_beside
from fastcal.cases.loop import Progress
from fastcal.cases.workers import Workers
from fastcal.core.heartbeat import alone
from fastcal.recalibrate.case_volumes import CaseVolumes, Volume
from fastcal.recalibrate.pool import raise_named

if TYPE_CHECKING:
    from fastcal.cases.dask_crew import DaskCrew


@contextmanager
def read_by(
    workers: Workers | None, streams: Sequence[CaseVolumes], out: Path
) -> Iterator[Path | None]:
    """Let workers read the volumes of a fit within the block.

    What became of each case in each pass is in ``NAME.journal.jsonl`` beside the file of the fit.

    Args:
        workers: The workers; None for this process.
        streams: The volumes of each calibrator.
        out: The file of the fit.

    Yields:
        The journal; None without workers.

    Raises:
        DataError: Another fit writes the same file.
        ValueError: No scheduler answers.
        OSError: The journal cannot be written.
    """
    if workers is None:
        yield None
        return
    path = journal_beside(out)
    with ExitStack() as held:
        heart = held.enter_context(alone(out.absolute().parent, name=f".{out.name}.heartbeat"))
        # Workers take long to start: what may be wrong with the journal is told before.
        hands = Hands(journal=held.enter_context(Journal(path)), patience=workers.patience)
        crew = held.enter_context(workers.crew(VolumeTask(tuple(streams), out.absolute().parent)))
        for number, stream in enumerate(streams):
            stream.read_elsewhere(_Dealt(number, crew, hands, heart.check))
        try:
            yield path
        finally:
            for stream in streams:
                stream.read_elsewhere(None)


@dataclass(frozen=True, slots=True)
class VolumeTask:
    """Reads the volumes of a fit, see `fastcal.cases.desk.Task`."""

    streams: tuple[CaseVolumes, ...]
    folder: Path
    """Where the fit goes."""

    def prepare(self) -> None:
        """Nothing needs to be made ready."""

    def __call__(self, case: str, hint: Any) -> Any:
        """Read a case and make of it what is asked for."""
        stream, number, read = hint
        volumes = self.streams[stream]
        try:
            return read(number, volumes.volume(case))
        except ValueError as error:
            raise_named(error, volumes.current)


@dataclass(frozen=True, slots=True)
class _Dealt:
    """`fastcal.recalibrate.case_volumes.Elsewhere` of one stream."""

    stream: int
    crew: DaskCrew
    hands: Hands
    check: Callable[[], None]

    def __call__(
        self,
        cases: Sequence[str],
        read: Callable[[int, Volume], Any],
        take: Callable[[Any], None],
        report: Callable[[Progress], None],
    ) -> None:
        numbers = {case: number for number, case in enumerate(cases)}
        early: dict[int, Any] = {}
        due = 0

        def taken(case: str, value: Any) -> None:
            """Hold what comes early until all before it is taken."""
            nonlocal due
            self.check()
            early[numbers[case]] = value
            while due in early:
                take(early.pop(due))
                due += 1

        self.crew.send(partial(_hint, self.stream, numbers, read))
        run = deal(cases, self.crew, replace(self.hands, taken=taken, report=report))
        if run.failed:
            first, others = run.failed[0], len(run.failed) - 1
            more = f" (and {others} more cases failed)" if others else ""
            raise ValueError(f"{first.reason}{more}")


def _hint(
    stream: int, numbers: dict[str, int], read: Callable[[int, Volume], Any], case: str
) -> tuple[int, int, Callable[[int, Volume], Any]]:
    return stream, numbers[case], read
