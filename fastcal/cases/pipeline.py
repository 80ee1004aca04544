"""Cases one after another, while the next is read and the one before it is written."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Generic, TypeVar

from fastcal.cases.loop import CASE_ERRORS, CaseRun, ProgressOption, Tally

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def _write_nothing(case: str, result: object) -> None:
    del case, result


@dataclass(frozen=True, slots=True)
class Stages(Generic[Piece, Result]):
    """What is done with a case, in three steps of which each has a thread."""

    read: Callable[[str], Iterator[Piece]]
    """Gives what is read of a case, piece by piece. It must keep no name for what it has given."""
    compute: Callable[[str, Iterator[Piece]], Result]
    """Takes the pieces, in the thread of the caller."""
    write: Callable[[str, Result], None] = _write_nothing
    """Writes a case, and leaves nothing half-written when it raises."""


def run_stages(
    cases: Sequence[str],
    stages: Stages[Piece, Result],
    *,
    finished: Callable[[str], bool] | None = None,
    keep_going: bool = False,
    progress: ProgressOption = False,
) -> CaseRun:
    """Do every case that is not finished, and read and write while others are computed.

    At any time one piece is read ahead, and one case is being written. What fails, fails as in
    `fastcal.cases.loop.run_cases`: a case is counted as done, and reported, once it is written, and
    cases before one that fails are finished. Interrupts wait for the case that is being written.

    Args:
        cases: Case names.
        stages: What is done with each.
        finished: Says whether all files of a case exist already; None if that is true of no case.
        keep_going: Go on after a case that fails; see `fastcal.cases.loop.run_cases`.
        progress: True prints one line per case to stderr; a function is called with a `Progress`,
            from the thread that writes.

    Raises:
        ValueError: Raised by a stage, unless ``keep_going``; likewise the others.
        OSError: The disk is full or read-only, with ``keep_going`` too.
        RuntimeError: Such as an error of a GPU.
        MemoryError: Memory ran out.

    Example:
        >>> halves = Stages(
        ...     read=lambda case: iter(case),
        ...     compute=lambda case, letters: "-".join(letters),
        ...     write=lambda case, text: print(text),
        ... )
        >>> run_stages(["ab", "cd"], halves).done
        a-b
        c-d
        ('ab', 'cd')
    """
    tally = Tally(cases, finished, keep_going=keep_going, progress=progress)
    written: tuple[str, Future[None]] | None = None

    def settle() -> None:
        """Wait for the case that is being written."""
        nonlocal written
        if written is None:
            return
        (case, future), written = written, None
        try:
            future.result()
        except CASE_ERRORS as error:
            if case in tally.done:  # the function that is told of progress has raised
                raise
            tally.fail(case, error)

    def write(case: str, result: Result) -> None:
        stages.write(case, result)
        tally.succeed(case)

    with (
        ThreadPoolExecutor(1, thread_name_prefix="fastcal-write") as writer,
        ReadAhead(tally.waiting, stages.read) as ahead,
    ):
        for case in tally.waiting:
            try:
                result = stages.compute(case, ahead.of(case))
            except CASE_ERRORS as error:
                settle()
                tally.fail(case, error)
                continue
            settle()
            written = (case, writer.submit(copy_context().run, write, case, result))
            del result
        settle()
    return tally.run()


class ReadAhead(Generic[Piece]):
    """What is read of cases, by a thread that is one piece ahead of whoever takes them.

    A context manager; at its end the thread has ended too.

    Args:
        cases: Their names, in the order in which they are asked for.
        read: Gives the pieces of a case; called in the thread.

    Example:
        >>> with ReadAhead(["ab", "cd"], iter) as ahead:
        ...     ["".join(ahead.of(case)) for case in ("ab", "cd")]
        ['ab', 'cd']
    """

    def __init__(self, cases: Sequence[str], read: Callable[[str], Iterator[Piece]]) -> None:
        self._cases, self._read = cases, read
        # The thread reads a piece when the one before it is taken, so that two are in memory.
        self._room = threading.Semaphore(1)
        self._found: queue.SimpleQueue[tuple[str, Piece | _End]] = queue.SimpleQueue()
        self._unwanted = False
        run = copy_context().run
        self._thread = threading.Thread(
            target=run, args=(self._fill,), name="fastcal-read", daemon=True
        )

    def __enter__(self) -> ReadAhead[Piece]:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._unwanted = True
        self._room.release()
        self._thread.join()

    def of(self, case: str) -> Iterator[Piece]:
        """Give the pieces of a case, and raise what its reading raised.

        Pieces of the cases before it that nobody has taken are dropped.
        """
        return _Pieces(case, self._take)

    def _take(self, case: str) -> Piece | _End:
        while True:
            name, piece = self._found.get()
            if name == case:
                if not isinstance(piece, _End):
                    self._room.release()
                return piece
            if not isinstance(piece, _End):
                self._room.release()

    def _fill(self) -> None:
        for case in self._cases:
            end = _End(None)
            try:
                pieces = self._read(case)
                while self._may_read():
                    try:
                        # No name: the piece must be gone when whoever takes it drops it.
                        self._found.put((case, next(pieces)))
                    except StopIteration:
                        self._room.release()
                        break
                del pieces
            except BaseException as error:
                self._room.release()
                end = _End(error)
            if self._unwanted:
                return
            self._found.put((case, end))

    def _may_read(self) -> bool:
        """Wait for room, and say whether the pieces of a case are still wanted."""
        self._room.acquire()
        return not self._unwanted


def read_ahead(cases: Sequence[str], read: Callable[[str], Piece]) -> Iterator[tuple[str, Piece]]:
    """Give every case with what is read of it, while the next is read.

    Args:
        cases: Their names.
        read: Reads a case, in a thread of its own. What it raises is raised here.

    Example:
        >>> list(read_ahead(["a", "b"], str.upper))
        [('a', 'A'), ('b', 'B')]
    """

    def pieces(case: str) -> Iterator[Piece]:
        yield read(case)

    with ReadAhead(cases, pieces) as ahead:
        for case in cases:
            yield case, next(ahead.of(case))


@dataclass(frozen=True, slots=True)
class _End:
    """Follows the last piece of a case."""

    error: BaseException | None


class _Pieces(Generic[Piece]):
    """The pieces of one case. An object, since a generator would name what it gives."""

    def __init__(self, case: str, take: Callable[[str], Piece | _End]) -> None:
        self._case, self._take, self._ended = case, take, False

    def __iter__(self) -> _Pieces[Piece]:
        return self

    def __next__(self) -> Piece:
        if self._ended:
            raise StopIteration
        piece = self._take(self._case)
        if isinstance(piece, _End):
            self._ended = True
            if piece.error is not None:
                raise piece.error
            raise StopIteration
        return piece
