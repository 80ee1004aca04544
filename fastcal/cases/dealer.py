"""Cases dealt to workers, one at a time to each: who does what, and what is tried again.

It knows no engine: a `Crew` starts a case on a worker and says what came of it. A worker that ends
in the middle of a case takes nothing with it but that case.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from fastcal.cases.journal import Journal
from fastcal.cases.loop import CaseRun, Failure, Progress

MOST_TRIES = 2
"""How often a case may be begun whose worker ends in the middle of it."""

_POLL = 0.5
"""Seconds between two looks at which workers are there."""
_MOST_FORGOTTEN = 5
"""How often the answer of a case may be lost on its way while its worker lives."""

Ticket = TypeVar("Ticket")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back of a case."""

    value: Any = None
    error: str | None = None
    """One line that says why the case could not be done; None if it was."""
    seconds: float = 0.0
    """How long it took, by the clock of the worker."""
    passing: bool = False
    """The error may pass: a file system did not answer. The case is tried once more."""
    unfit: BaseException | None = None
    """The worker is at fault, not the case: its disk is full, or it lacks the files. It gets no
    more cases."""
    told: tuple[Warning, ...] = ()
    """Warnings about files."""


class Crew(Protocol[Ticket]):
    """Workers of one engine, each of which does one case at a time."""

    def workers(self) -> Mapping[str, str]:
        """Return the name of each worker that is there now, by its address.

        Raises:
            OSError: The engine cannot be reached for the moment.
        """

    def begin(self, case: str, worker: str) -> Ticket:
        """Start a case on a worker that has none."""

    def answers(
        self, tickets: Collection[Ticket], seconds: float
    ) -> Mapping[Ticket, Answer | None]:
        """Wait until the first of the cases is answered, at most so long, and return all that are.

        None stands for an answer that was lost on its way.
        """

    def forget(self, ticket: Ticket) -> None:
        """Expect no answer any more."""


class LostCrewError(ValueError):
    """There has been no worker, or no engine, for too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What the dealer asks and tells of its cases."""

    journal: Journal
    taken: Callable[[str, Any], None] | None = None
    """Takes the value of a case that is done."""
    finished: Callable[[str], bool] | None = None
    """Whether the files of a case whose worker ended are all there."""
    report: Callable[[Progress], None] | None = None
    patience: float = 60.0
    """Seconds to wait for a worker where there is none."""
    clock: Callable[[], float] = time.monotonic


def deal(cases: Sequence[str], crew: Crew[Ticket], hands: Hands) -> CaseRun:
    """Do all cases on the workers of a crew.

    A case that fails is recorded, and the others go on. One whose worker ends in the middle of it
    is begun once more, after all others; where that ends a worker too, it is set aside as failed.
    A worker whose own disk is full, or that does not see the files, gets no more cases.

    Args:
        cases: The cases to do, by name.
        crew: The workers.
        hands: Who is told what.

    Returns:
        The cases that were done and those that failed, in the order of ``cases``.

    Raises:
        LostCrewError: There has been no worker for too long.
        OSError: No worker has room on its disk, or the disk of the journal is full.
        ValueError: No worker can do the cases; the message says why.

    Example:
        >>> run = deal(["a", "b"], crew, hands)  # doctest: +SKIP
        >>> run.done  # doctest: +SKIP
        ('a', 'b')
    """
    return _Table(cases, crew, hands).play()


@dataclass(slots=True)
class _Begun:
    case: str
    worker: str
    name: str


class _Table:
    """The state of a deal."""

    def __init__(self, cases: Sequence[str], crew: Crew[Any], hands: Hands) -> None:
        self._cases, self._crew, self._hands = cases, crew, hands
        self._waiting = deque(cases)
        self._running: dict[Any, _Begun] = {}
        self._tries: dict[str, int] = {}
        self._passing: set[str] = set()
        self._forgotten: dict[str, int] = {}
        self._workers: Mapping[str, str] = {}
        self._unfit: dict[str, BaseException] = {}
        self._done: set[str] = set()
        self._failed: dict[str, Failure] = {}
        self._start = self._seen = hands.clock()
        self._polled: float | None = None

    def play(self) -> CaseRun:
        try:
            while self._waiting or self._running:
                self._look()
                self._give()
                self._collect()
        finally:
            for ticket in self._running:
                self._crew.forget(ticket)
        return CaseRun(
            tuple(case for case in self._cases if case in self._done),
            (),
            tuple(self._failed[case] for case in self._cases if case in self._failed),
        )

    def _look(self) -> None:
        """See which workers are there, and take back the cases of those that are gone."""
        now = self._hands.clock()
        if self._polled is not None and now - self._polled < _POLL:
            return
        self._polled = now
        try:
            self._workers = self._crew.workers()
        except OSError as error:
            self._workers = {}
            self._be_patient(now, f"no answer ({error})")
            return
        for ticket, begun in list(self._running.items()):
            if begun.worker not in self._workers:
                self._take_back(ticket, begun)
        if any(worker not in self._unfit for worker in self._workers):
            self._seen = now
        elif self._workers and not self._running:
            raise next(reversed(self._unfit.values()))
        elif not self._running:
            self._be_patient(now, "none")

    def _be_patient(self, now: float, found: str) -> None:
        if now - self._seen > self._hands.patience:
            done = f"{len(self._done)} of {len(self._cases)} cases are done"
            raise LostCrewError(
                f"workers must be there for the cases, got {found} for "
                f"{self._hands.patience:.0f} seconds; {done}, and the same command resumes from "
                "here"
            )

    def _take_back(self, ticket: Any, begun: _Begun) -> None:
        del self._running[ticket]
        self._crew.forget(ticket)
        case = begun.case
        if self._hands.finished is not None and self._hands.finished(
            case
        ):  # it ended after the last file, before the answer
            self._finish(begun, Answer())
            return
        self._tries[case] = self._tries.get(case, 0) + 1
        if self._tries[case] < MOST_TRIES:
            self._hands.journal.note(case, "lost", begun.name, error="the worker ended")
            self._waiting.append(case)
            return
        reason = f"its worker ended in the middle of it {MOST_TRIES} times, so it is set aside"
        self._hands.journal.note(case, "aside", begun.name, error=reason)
        self._fail(case, reason)

    def _give(self) -> None:
        busy = {begun.worker for begun in self._running.values()}
        for worker, name in self._workers.items():
            if not self._waiting:
                return
            if worker in busy or worker in self._unfit:
                continue
            case = self._waiting.popleft()
            self._hands.journal.note(case, "begun", name)
            self._running[self._crew.begin(case, worker)] = _Begun(case, worker, name)

    def _collect(self) -> None:
        for ticket, answer in self._crew.answers(list(self._running), _POLL).items():
            begun = self._running.pop(ticket)
            for warning in () if answer is None else answer.told:
                warnings.warn(warning, stacklevel=2)
            if answer is None:
                self._again(begun)
            elif answer.unfit is not None:
                self._unfit[begun.worker] = answer.unfit
                self._hands.journal.note(begun.case, "lost", begun.name, error=answer.error)
                self._waiting.appendleft(begun.case)
            elif answer.error is None:
                if self._hands.taken is not None:
                    self._hands.taken(begun.case, answer.value)
                self._finish(begun, answer)
            elif answer.passing and begun.case not in self._passing:
                self._passing.add(begun.case)
                self._hands.journal.note(begun.case, "lost", begun.name, error=answer.error)
                self._waiting.append(begun.case)
            else:
                self._hands.journal.note(
                    begun.case, "failed", begun.name, seconds=answer.seconds, error=answer.error
                )
                self._fail(begun.case, answer.error)

    def _again(self, begun: _Begun) -> None:
        """Repeat a case whose answer was lost though its worker lives."""
        case = begun.case
        self._forgotten[case] = self._forgotten.get(case, 0) + 1
        self._polled = None  # its worker may be gone in truth
        if self._forgotten[case] > _MOST_FORGOTTEN:
            reason = f"its answer was lost {_MOST_FORGOTTEN + 1} times"
            self._hands.journal.note(case, "failed", begun.name, error=reason)
            self._fail(case, reason)
        else:
            self._hands.journal.note(case, "lost", begun.name, error="its answer was lost")
            self._waiting.appendleft(case)

    def _finish(self, begun: _Begun, answer: Answer) -> None:
        self._hands.journal.note(begun.case, "done", begun.name, seconds=answer.seconds)
        self._done.add(begun.case)
        self._tell(begun.case)

    def _fail(self, case: str, reason: str) -> None:
        self._failed[case] = Failure(case, reason)
        self._tell(case)

    def _tell(self, case: str) -> None:
        position = len(self._done) + len(self._failed)
        mean = (self._hands.clock() - self._start) / position
        left = mean * (len(self._cases) - position)
        if self._hands.report is not None:
            self._hands.report(Progress(case, position, len(self._cases), left))
