"""Ctrl-C at any moment: an update is whole or undone, and several threads may share an object."""

from __future__ import annotations

import copy
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from engines import on_every_engine
from members import labels, logits, probabilities

import fastcal
from fastcal.core.whole import Whole

INTERRUPTED = """
import random, signal, sys, time, torch, fastcal
# A process of a shell in the background ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)
chance = random.Random(int(sys.argv[2]))

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
p = torch.randn(1, 3, 40, generator=torch.Generator().manual_seed(0)).softmax(1)
target = torch.zeros(1, 40, dtype=torch.int64)
maps = ("mean", "expected_entropy", "variance", "disagreement")

def streamed():
    stream = fastcal.EnsembleAccumulator(maps, from_logits=False)
    expected = fastcal.ensemble_statistics([p, p], maps=maps, from_logits=False)
    def update():
        stream.update(p, weight=chance.choice((0.5, 1.0, 4.0, 64.0)))
    def check():
        if stream.n_members == 0:
            return 0
        got = stream.finalize()
        for name in maps:
            assert (getattr(got, name) - getattr(expected, name)).abs().max() < 1e-4, name
        return stream.n_members
    return update, check

def counted():
    statistics = fastcal.CalibrationStatistics(3)
    one = fastcal.CalibrationStatistics(3)
    one.update(p, target, case_id="merged")
    def update():
        if chance.random() < 0.5:
            statistics.update(p, target, case_id=str(chance.randrange(50)))
        else:
            statistics.merge(one)
    def check():
        total, ids, groups = statistics.state.snapshot()
        n = statistics.n_voxels // 40
        expected = fastcal.CalibrationStatistics(3)
        assert (groups[:, 0, 0].sum(), len(ids)) == (40 * n, len(groups))
        assert total[0, 0] == 40 * n and total[0, 1] == n * one.state.total[1]
        return n
    return update, check

with fastcal.backend(sys.argv[1]):
    for make in (streamed, counted):
        update, check = make()
        update()
        start = time.perf_counter()
        for _ in range(20):
            update()
        typical = (time.perf_counter() - start) / 20
        interrupts, done = 0, check()
        while interrupts < 40:
            try:
                signal.setitimer(signal.ITIMER_REAL, typical * chance.uniform(0.02, 1.1) + 1e-6)
                update()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupts += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            now = check()
            assert now in (done, done + 1), (now, done)
            done = now
        assert signal.getsignal(signal.SIGALRM) is interrupt
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        print(make.__name__, interrupts, done)
"""


@pytest.mark.parametrize("backend", ["cpu", pytest.param("reference", marks=pytest.mark.slow)])
def test_an_update_that_is_interrupted_is_whole_or_undone(backend):
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", INTERRUPTED, backend, "1"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.split()[:2] == ["streamed", "40"]


def test_handlers_run_at_the_end_of_a_whole_change():
    order = []
    before = signal.signal(signal.SIGUSR1, lambda *_: order.append("handler"))
    try:
        whole = Whole()
        with whole, whole:
            signal.raise_signal(signal.SIGUSR1)
            order.append("change")
        assert order == ["change", "handler"]
        with pytest.raises(ZeroDivisionError), whole:
            (signal.raise_signal(signal.SIGUSR1), 1 / 0)
        assert order == ["change", "handler", "handler"]
        signal.raise_signal(signal.SIGUSR1)
        assert len(order) == 4
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_handler_that_raises_does_so_after_the_change():
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    done = []
    try:
        with pytest.raises(KeyboardInterrupt), Whole():
            done.append(signal.raise_signal(signal.SIGUSR1))
        assert done == [None]
        assert signal.getsignal(signal.SIGUSR1) is interrupt
    finally:
        signal.signal(signal.SIGUSR1, before)


@on_every_engine
def test_members_of_several_threads_are_all_added():
    members = probabilities(24, 3, (20,), dtype=torch.float64)
    weights = [1.0, 4.0, 0.25, 32.0] * 6
    stream = fastcal.EnsembleAccumulator(("mean", "variance"), from_logits=False)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda i: stream.update(members[i], weight=weights[i]), range(24)))
    finally:
        sys.setswitchinterval(before)
    assert stream.n_members == 24
    got = stream.finalize()
    expected = fastcal.ensemble_statistics(
        members, maps=("mean", "variance"), from_logits=False, weights=weights
    )
    torch.testing.assert_close(got.mean, expected.mean, rtol=0, atol=1e-13)
    torch.testing.assert_close(got.variance, expected.variance, rtol=0, atol=1e-13)


def test_what_is_read_during_updates_is_of_one_moment():
    probs, target = probabilities(1, 3, (20,))[0], labels(3, (2, 20))
    statistics = fastcal.CalibrationStatistics(3, regions=["one"])
    regions = {"one": torch.ones(2, 20, dtype=torch.bool)}
    finished = threading.Event()

    def update() -> None:
        for index in range(300):
            statistics.update(probs, target, case_id=(index % 7, index % 3), regions=regions)
        finished.set()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as pool:
            running = pool.submit(update)
            statistics.update(probs, target, case_id=(0, 1), regions=regions)
            while not finished.is_set():
                copied = fastcal.CalibrationStatistics(3, regions=["one"])
                copied.load_state_dict(statistics.state_dict())
                assert copied.n_voxels == copied.region("one").n_voxels
                statistics.brier(reduction="case")
                region = statistics.region("one")
                assert region.state.case_rows[:, 0].sum() == region.n_voxels
            running.result()
    finally:
        sys.setswitchinterval(before)
    assert statistics.n_voxels == 301 * 40


def test_an_accumulator_can_be_copied_and_pickled():
    members = logits(2, 3, (5,))
    stream = fastcal.EnsembleAccumulator()
    stream.update(members[0])
    for other in (copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))):
        other.update(members[1])
        assert torch.equal(other.finalize().entropy, fastcal.ensemble_entropy(members))
    assert stream.n_members == 1


def test_an_update_that_fails_changes_nothing(monkeypatch):
    members = logits(2, 3, (5,))
    stream = fastcal.EnsembleAccumulator()

    def fails(*_: object) -> None:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(fastcal.ops, "ensemble_accumulate", fails)
        with pytest.raises(RuntimeError, match="no memory"):
            stream.update(members[0])
    with pytest.raises(RuntimeError, match="finalize needs at least one member"):
        stream.finalize()
    stream.update(members[1].double())
    assert stream.n_members == 1
