"""`fastcal.cases.dealer` with workers that end, fail and pause as a test wants."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcal.cases.dealer import Answer, Hands, LostCrewError, deal
from fastcal.cases.journal import Entry, Journal, last_entries, read_journal, tallies
from fastcal.core.errors import DataError

DONE = Answer(seconds=1.0)
CASES = [f"case_{number}" for number in range(6)]

Ending = Callable[[str, str, int], "Answer | str | None"]
"""What comes of a case, on a worker, at its n-th try: an answer, None for one that is lost on its
way, or ``"ends"`` for a worker that ends."""


@dataclass
class FakeCrew:
    """Workers whose cases end at once. One that ends is started again under another address."""

    ending: Ending
    count: int = 2
    restarts: bool = True
    unreachable: Callable[[float], bool] = lambda _: False
    now: float = 0.0
    tries: dict[str, int] = field(default_factory=dict)
    begun: list[tuple[str, str]] = field(default_factory=list)
    busy: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.here = {f"tcp://{number}:1": f"worker {number}" for number in range(self.count)}

    def clock(self) -> float:
        return self.now

    def workers(self) -> Mapping[str, str]:
        self.now += 1.0  # a look takes a second here, so that each is a new one
        if self.unreachable(self.now):
            raise OSError("no route to host")
        return dict(self.here)

    def begin(self, case: str, worker: str) -> str:
        assert worker in self.here
        assert worker not in self.busy, "a worker got two cases at a time"
        self.busy.add(worker)
        self.tries[case] = self.tries.get(case, 0) + 1
        self.begun.append((case, worker))
        return f"{case}/{self.tries[case]}/{worker}"

    def answers(self, tickets: Collection[str], seconds: float) -> Mapping[str, Answer | None]:
        self.now += seconds
        found: dict[str, Answer | None] = {}
        for ticket in tickets:
            case, number, worker = ticket.split("/", 2)
            if worker not in self.here:
                continue
            came = self.ending(case, self.here[worker], int(number))
            if came == "ends":
                name = self.here.pop(worker)
                if self.restarts:
                    self.here[f"{worker}+"] = name
            else:
                assert came is None or isinstance(came, Answer)
                found[ticket] = came
                self.busy.remove(worker)
        return found

    def forget(self, ticket: str) -> None:
        self.busy.remove(ticket.split("/", 2)[2])


def play(
    folder: Path, ending: Ending, *, cases: list[str] = CASES, **crew: Any
) -> tuple[Any, FakeCrew, list[Entry]]:
    made = FakeCrew(ending, **crew)
    path = folder / "journal.jsonl"
    with Journal(path) as journal:
        run = deal(cases, made, Hands(journal=journal, clock=made.clock))
    return run, made, read_journal(path)


def test_every_case_is_done_once_and_the_journal_says_where(tmp_path: Path) -> None:
    run, crew, lines = play(tmp_path, lambda *_: DONE)
    assert run.done == tuple(CASES)
    assert run.failed == ()
    assert set(crew.tries.values()) == {1}
    assert {line.case: line.state for line in lines} == dict.fromkeys(CASES, "done")
    assert sum(one.done for one in tallies(lines)) == len(CASES)
    assert sum(one.seconds for one in tallies(lines)) == len(CASES)


def test_a_case_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    run, crew, lines = play(
        tmp_path, lambda case, *_: Answer(error="x.nii: torn") if case == "case_1" else DONE
    )
    assert [(one.case, one.reason) for one in run.failed] == [("case_1", "x.nii: torn")]
    assert run.done == tuple(case for case in CASES if case != "case_1")
    assert crew.tries["case_1"] == 1
    assert last_entries(lines)["case_1"].error == "x.nii: torn"


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_worker_that_ends_takes_only_its_case_with_it(tmp_path: Path, count: int) -> None:
    run, crew, lines = play(
        tmp_path,
        lambda case, _, number: "ends" if case == "case_2" and number == 1 else DONE,
        count=count,
    )
    assert run.done == tuple(CASES)
    assert crew.tries == dict.fromkeys(CASES, 1) | {"case_2": 2}
    assert [line.state for line in lines if line.case == "case_2"] == [
        *("begun", "lost", "begun", "done")
    ]
    assert crew.begun[-1][0] == "case_2", "it is repeated after all others"


@pytest.mark.parametrize("count", [1, 3])
def test_a_case_that_ends_its_worker_every_time_is_set_aside_after_two(
    tmp_path: Path, count: int
) -> None:
    run, crew, lines = play(
        tmp_path, lambda case, *_: "ends" if case == "case_0" else DONE, count=count
    )
    assert [one.case for one in run.failed] == ["case_0"]
    assert "2 times" in run.failed[0].reason
    assert crew.tries["case_0"] == 2
    assert run.done == tuple(CASES[1:])
    assert last_entries(lines)["case_0"].state == "aside"


def test_a_worker_with_a_full_disk_gets_no_more_cases(tmp_path: Path) -> None:
    full = Answer(error="full", unfit=OSError(errno.ENOSPC, "No space left on device", "x"))
    run, crew, _ = play(tmp_path, lambda _, worker, __: full if worker == "worker 0" else DONE)
    assert run.done == tuple(CASES)
    assert [worker for _, worker in crew.begun].count("tcp://0:1") == 1


def test_the_run_ends_when_every_disk_is_full(tmp_path: Path) -> None:
    full = Answer(error="full", unfit=OSError(errno.ENOSPC, "No space left on device", "out/x"))
    with pytest.raises(OSError, match="No space left") as caught:
        play(tmp_path, lambda *_: full, count=3)
    assert caught.value.errno == errno.ENOSPC


def test_workers_without_the_files_end_the_run_with_the_reason(tmp_path: Path) -> None:
    unseen = Answer(error="unseen", unfit=DataError("out", "is not to be seen on node3"))
    with pytest.raises(DataError, match="out: is not to be seen on node3"):
        play(tmp_path, lambda *_: unseen)


def test_an_error_that_may_pass_is_tried_once_more(tmp_path: Path) -> None:
    stale = Answer(error="Stale file handle", passing=True)
    run, crew, _ = play(tmp_path, lambda case, _, n: stale if case == "case_3" and n == 1 else DONE)
    assert run.done == tuple(CASES)
    assert crew.tries["case_3"] == 2
    run, crew, _ = play(tmp_path, lambda case, *_: stale if case == "case_3" else DONE)
    assert [one.case for one in run.failed] == ["case_3"]
    assert crew.tries["case_3"] == 2


def test_an_answer_lost_on_its_way_is_asked_for_again(tmp_path: Path) -> None:
    run, crew, _ = play(tmp_path, lambda case, _, n: None if case == "case_3" and n < 3 else DONE)
    assert run.done == tuple(CASES)
    assert crew.tries["case_3"] == 3
    run, crew, _ = play(tmp_path, lambda case, *_: None if case == "case_3" else DONE)
    assert [one.case for one in run.failed] == ["case_3"]


def test_a_pause_of_the_network_is_waited_for(tmp_path: Path) -> None:
    run, crew, _ = play(tmp_path, lambda *_: DONE, unreachable=lambda now: 3 < now < 40)
    assert run.done == tuple(CASES)
    assert set(crew.tries.values()) == {1}


@pytest.mark.parametrize(
    ("crew", "found"),
    [
        ({"unreachable": lambda now: now > 0}, "no route to host"),
        ({"restarts": False}, "got none for 60 seconds"),
        ({"count": 0}, "got none for 60 seconds"),
    ],
)
def test_a_crew_that_stays_away_ends_the_run(
    tmp_path: Path, crew: dict[str, Any], found: str
) -> None:
    with pytest.raises(LostCrewError, match=f"{found}.* of 6 cases are done, and the same command"):
        play(tmp_path, lambda *_: "ends" if "restarts" in crew else DONE, **crew)


def test_a_case_whose_files_are_all_there_is_not_repeated(tmp_path: Path) -> None:
    crew = FakeCrew(lambda case, _, __: "ends" if case == "case_2" else DONE)
    with Journal(tmp_path / "journal.jsonl") as journal:
        hands = Hands(journal=journal, clock=crew.clock, finished=lambda case: case == "case_2")
        run = deal(CASES, crew, hands)
    assert run.done == tuple(CASES)
    assert crew.tries["case_2"] == 1


def test_values_and_warnings_come_back(tmp_path: Path) -> None:
    odd = (UserWarning("case_4 is odd"),)
    crew = FakeCrew(lambda case, *_: Answer(case.upper(), told=odd if case == "case_4" else ()))
    taken: dict[str, str] = {}
    with Journal(tmp_path / "j.jsonl") as journal, pytest.warns(UserWarning, match="case_4 is odd"):
        deal(CASES, crew, Hands(journal=journal, clock=crew.clock, taken=taken.__setitem__))
    assert taken == {case: case.upper() for case in CASES}


EVENTS = st.sampled_from([DONE, "ends", None, Answer(error="no"), Answer(error="io", passing=True)])


@given(st.lists(EVENTS, max_size=40), st.integers(1, 5))
def test_whatever_happens_every_case_is_done_or_failed_and_none_both(
    events: list[Answer | str | None], count: int
) -> None:
    import tempfile

    coming = iter(events)
    with tempfile.TemporaryDirectory() as folder:
        run, crew, lines = play(Path(folder), lambda *_: next(coming, DONE), count=count)
    failed = tuple(one.case for one in run.failed)
    assert sorted((*run.done, *failed)) == CASES
    states = {line.case: line.state for line in lines}
    assert all(states[case] == "done" for case in run.done)
    assert all(states[case] in ("failed", "aside") for case in failed)
    assert sum(crew.tries.values()) == sum(line.state == "begun" for line in lines)
