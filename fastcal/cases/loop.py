"""The loop over cases: the share of a part, what is finished already, failures, time left."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from fastcal.core.arguments import whole_number

Case = TypeVar("Case")

HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""A full or read-only disk fails every later case too, so that ``keep_going`` does not go on."""


CASE_ERRORS = (ValueError, OSError, RuntimeError, MemoryError)
"""What a case fails with; everything else is a fault of the program, or an interrupt."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that could not be done, and one line that says why."""

    case: str
    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """State of a run after a case."""

    case: str
    done: int
    """Cases done, skipped or failed so far."""
    total: int
    seconds_left: float
    """Mean time of a case so far, times the number of cases that are left."""
    step: str = ""
    """What is done with the cases, where a command goes through them several times: the time left
    is that of the step."""

    def __str__(self) -> str:
        minutes, seconds = divmod(round(self.seconds_left), 60)
        text = f"{self.done}/{self.total} {self.case}, {minutes}:{seconds:02d} left"
        return f"{self.step}: {text} in this pass" if self.step else text


ProgressOption: TypeAlias = "bool | Callable[[Progress], None]"


@dataclass(frozen=True, slots=True)
class CaseRun:
    """What a loop did with its cases: their names, in the order of the loop."""

    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[Failure, ...]


def part_of(cases: Sequence[Case], *, num_parts: int = 1, part_id: int = 0) -> list[Case]:
    """Return the share of one part: every ``num_parts``-th case, starting at ``part_id``.

    Args:
        cases: All cases, in the same order for every part.
        num_parts: Number of parts.
        part_id: Which of the parts this is, from 0.

    Raises:
        TypeError: One of them is not an integer.
        ValueError: ``num_parts`` is below 1, or ``part_id`` is outside ``[0, num_parts)``.

    Example:
        >>> part_of(["a", "b", "c", "d", "e"], num_parts=2, part_id=1)
        ['b', 'd']
    """
    if whole_number(num_parts, "num_parts") < 1:
        raise ValueError(f"num_parts must be at least 1, got {num_parts}")
    if not 0 <= whole_number(part_id, "part_id") < num_parts:
        raise ValueError(
            f"part_id must be at least 0 and below num_parts ({num_parts}), got {part_id}"
        )
    return list(cases[part_id::num_parts])


def run_cases(
    cases: Sequence[str],
    work: Callable[[str], None],
    *,
    finished: Callable[[str], bool] | None = None,
    keep_going: bool = False,
    progress: ProgressOption = False,
) -> CaseRun:
    """Do every case that is not finished.

    Args:
        cases: Case names.
        work: Does one case, and leaves nothing half-written when it raises.
        finished: Says whether all files of a case exist already; None if that is true of no case.
        keep_going: Go on after a case that fails; the failures are returned. A full disk ends the
            loop anyway.
        progress: True prints one line per case to stderr; a function is called with a `Progress`
            instead.

    Raises:
        ValueError: Raised by ``work``, unless ``keep_going``; likewise the others.
        OSError: The disk is full or read-only, with ``keep_going`` too.
        RuntimeError: Such as an error of a GPU.
        MemoryError: Memory ran out.

    Example:
        >>> run = run_cases(["a", "b"], print, finished=lambda case: case == "a")
        b
        >>> run.done, run.skipped
        (('b',), ('a',))
    """
    tally = Tally(cases, finished, keep_going=keep_going, progress=progress)
    for case in tally.waiting:
        try:
            work(case)
        except CASE_ERRORS as error:
            tally.fail(case, error)
        else:
            tally.succeed(case)
    return tally.run()


class Tally:
    """The cases of a loop that are done, skipped and failed, and the reports about them.

    Args:
        cases: Case names.
        finished: Says whether all files of a case exist already; None if that is true of no case.
        keep_going: Take note of failures, unless a full disk is the reason, instead of raising.
        progress: See `run_cases`.
    """

    def __init__(
        self,
        cases: Sequence[str],
        finished: Callable[[str], bool] | None,
        *,
        keep_going: bool,
        progress: ProgressOption,
    ) -> None:
        self._report = reporter(progress)
        self._keep_going, self._total = keep_going, len(cases)
        self.skipped = [] if finished is None else [case for case in cases if finished(case)]
        skipped = set(self.skipped)
        self.waiting = [case for case in dict.fromkeys(cases) if case not in skipped]
        """The cases to do, each once, in order."""
        self.done: list[str] = []
        self.failed: list[Failure] = []
        self._start = time.monotonic()

    def succeed(self, case: str) -> None:
        """Note a case that is done, and report it."""
        self.done.append(case)
        self._tell(case)

    def fail(self, case: str, error: BaseException) -> None:
        """Note a case that failed and report it, or raise its error where the loop must end."""
        if not self._keep_going or getattr(error, "errno", None) in HOPELESS:
            raise error
        self.failed.append(Failure(case, one_line(error)))
        self._tell(case)

    def run(self) -> CaseRun:
        """Return what was done with the cases, in the order in which it was done."""
        return CaseRun(tuple(self.done), tuple(self.skipped), tuple(self.failed))

    def _tell(self, case: str) -> None:
        position = len(self.done) + len(self.failed)
        mean = (time.monotonic() - self._start) / position
        left = mean * (len(self.waiting) - position)
        self._report(Progress(case, len(self.skipped) + position, self._total, left))


def one_line(error: BaseException) -> str:
    """Return an error's message as one line, or its class name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def reporter(progress: ProgressOption) -> Callable[[Progress], None]:
    """Return the function that a `ProgressOption` stands for."""
    if callable(progress):
        return progress
    if progress:
        return lambda state: print(state, file=sys.stderr, flush=True)
    return _say_nothing


def _say_nothing(state: Progress) -> None:
    del state
