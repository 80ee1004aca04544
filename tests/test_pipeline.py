"""`fastcal.cases.pipeline`: cases are read, computed and written at the same time, in order."""

from __future__ import annotations

import errno
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from fastcal.cases.loop import Progress
from fastcal.cases.pipeline import ReadAhead, Stages, run_stages

CASES = ("a", "b", "c", "d")


class Piece:
    """Something that can be counted while it lives."""

    def __init__(self, name: str) -> None:
        self.name = name


def three_of(case: str) -> Iterator[Piece]:
    for number in range(3):
        yield Piece(f"{case}{number}")


def names_of(case: str, pieces: Iterator[Piece]) -> str:
    del case
    return " ".join(piece.name for piece in pieces)


def test_every_case_is_written_in_order_with_all_its_pieces() -> None:
    written: list[str] = []
    told: list[str] = []
    stages = Stages(three_of, names_of, lambda case, result: written.append(f"{case}: {result}"))
    run = run_stages(
        CASES, stages, finished=lambda case: case == "b", progress=lambda one: told.append(str(one))
    )
    assert written == ["a: a0 a1 a2", "c: c0 c1 c2", "d: d0 d1 d2"]
    assert (run.done, run.skipped, run.failed) == (("a", "c", "d"), ("b",), ())
    assert [one.split(",")[0] for one in told] == ["2/4 a", "3/4 c", "4/4 d"]


def test_reading_computing_and_writing_overlap() -> None:
    """Each stage waits for what only the other two can do at the same time."""
    read_c, computed_b = threading.Event(), threading.Event()

    def read(case: str) -> Iterator[str]:
        if case == "c":
            read_c.set()
        yield case

    def compute(case: str, pieces: Iterator[str]) -> str:
        assert next(pieces) == case
        if case == "b":
            assert read_c.wait(10)
            computed_b.set()
        return case

    def write(case: str, result: str) -> None:
        assert case == result
        if case == "a":
            assert computed_b.wait(10)

    assert run_stages(CASES[:3], Stages(read, compute, write)).done == CASES[:3]


def test_two_pieces_live_at_a_time() -> None:
    living: list[weakref.ref[Piece]] = []
    most = 0

    def counted() -> Piece:
        nonlocal most
        made = Piece("")
        living.append(weakref.ref(made))
        most = max(most, sum(one() is not None for one in living))
        return made

    def read(case: str) -> Iterator[Piece]:
        del case
        for _ in range(3):
            yield counted()

    def compute(case: str, pieces: Iterator[Piece]) -> None:
        del case
        for _ in range(3):
            time.sleep(0.002)
            next(pieces)

    run_stages(CASES, Stages(read, compute, lambda *_: None))
    assert most <= 2


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
@pytest.mark.parametrize("keep_going", [False, True])
def test_a_stage_that_fails_takes_only_its_case_with_it(stage: str, keep_going: bool) -> None:
    written: list[str] = []

    def fails(case: str, where: str) -> None:
        if case == "b" and stage == where:
            raise ValueError(f"{where} of {case}")

    def read(case: str) -> Iterator[str]:
        yield case + "0"
        fails(case, "read")
        yield case + "1"

    def compute(case: str, pieces: Iterator[str]) -> str:
        first = next(pieces)
        fails(case, "compute")  # with a piece left over, which case c must not get
        return first + next(pieces)

    def write(case: str, result: str) -> None:
        fails(case, "write")
        written.append(result)

    stages = Stages(read, compute, write)
    if not keep_going:
        with pytest.raises(ValueError, match=f"{stage} of b"):
            run_stages(CASES, stages)
        assert written == ["a0a1"]
        return
    run = run_stages(CASES, stages, keep_going=True)
    assert written == ["a0a1", "c0c1", "d0d1"]
    assert run.done == ("a", "c", "d")
    assert [(one.case, one.reason) for one in run.failed] == [("b", f"{stage} of b")]


def test_a_full_disk_ends_the_run_although_it_should_keep_going() -> None:
    def write(*_: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        run_stages(CASES, Stages(three_of, names_of, write), keep_going=True)


@pytest.mark.parametrize("where", ["compute", "progress", "read"])
def test_an_interrupt_ends_all_threads_and_finishes_the_case_that_is_written(where: str) -> None:
    written: list[str] = []

    def interrupted(case: str, here: str) -> None:
        if case == "b" and here == where:
            raise KeyboardInterrupt

    def read(case: str) -> Iterator[str]:
        interrupted(case, "read")
        yield case

    def compute(case: str, pieces: Iterator[str]) -> str:
        interrupted(case, "compute")
        return next(pieces)

    def write(case: str, _: str) -> None:
        time.sleep(0.05)
        written.append(case)

    def progress(state: Progress) -> None:
        interrupted(state.case, "progress")

    with pytest.raises(KeyboardInterrupt):
        run_stages(CASES, Stages(read, compute, write), progress=progress)
    assert written == (["a", "b"] if where == "progress" else ["a"])
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("fastcal")]


def test_what_is_not_taken_is_not_read_on() -> None:
    read: list[str] = []

    def endless(case: str) -> Iterator[int]:
        number = 0
        while True:
            read.append(case)
            number += 1
            yield number

    with ReadAhead(["a"], endless) as ahead:
        pieces: Any = ahead.of("a")
        assert [next(pieces), next(pieces)] == [1, 2]
    assert len(read) <= 3
