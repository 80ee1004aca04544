"""Threads and processes: the pool survives forks, is shared by many callers, and changes no bit."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from engines import on_every_engine
from members import labels, logits
from torch.utils.data import DataLoader, Dataset

import fastcal

MAPS = ("mean", "label", "entropy", "mutual_information", "disagreement")


def bits(n_voxels: int, seed: int) -> list[torch.Tensor]:
    members = logits(2, 3, (n_voxels,), seed=seed)
    got = fastcal.ensemble_statistics(members, labels(3, (2, n_voxels), seed=seed), maps=MAPS)
    state = got.calibration.state_dict()
    integers = [v for v in state.values() if torch.is_tensor(v)]
    return [*(getattr(got, name) for name in MAPS), *integers]


def assert_equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> None:
    assert len(a) == len(b)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


class Volumes(Dataset):
    """Computes in the worker, as a DataLoader of maps does."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        return bits(6000, index)


@pytest.mark.usefixtures("engine", "two_threads")
def test_a_forked_dataloader_worker_computes_the_same():
    expected = [bits(6000, i) for i in range(4)]  # the parent's pool runs before the fork
    loader = DataLoader(
        Volumes(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    for got, want in zip(loader, expected, strict=True):
        assert_equal(got, want)
    assert_equal(bits(6000, 0), expected[0])


IN_TORCHS_THREADS = """
import os, signal, torch, fastcal
torch.set_num_threads(3)
generator = torch.Generator().manual_seed(0)
members = [torch.randn(1, 4, 60_000, generator=generator) for _ in range(3)]
members[0].exp().sum()  # torch's workers start
before = len(os.listdir("/proc/self/task"))
entropy = fastcal.ensemble_entropy(members)
print(len(os.listdir("/proc/self/task")) - before)
if os.fork() == 0:
    signal.alarm(60)
    same = bool((fastcal.ensemble_entropy(members).numpy() == entropy.numpy()).all())
    os._exit(0 if same and len(os.listdir("/proc/self/task")) == 3 else 1)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir() or not hasattr(ctypes.CDLL(None), "GOMP_parallel"),
    reason="torch brought no OpenMP workers that could be counted in /proc",
)
def test_work_is_done_by_torchs_threads_and_in_a_fork_by_own_ones():
    pytest.importorskip("fastcal._cpu", reason="the native module fastcal._cpu is not built")
    run = subprocess.run(
        [sys.executable, "-c", IN_TORCHS_THREADS], capture_output=True, text=True, timeout=120
    )
    assert run.stdout.split() == ["0", "0"], run.stderr


@pytest.mark.usefixtures("two_threads")
def test_64_python_threads_at_once_each_get_their_own_result(engine):
    expected = [bits(3000, seed) for seed in range(8)]
    barrier = threading.Barrier(64)

    def call(seed: int) -> list[torch.Tensor]:
        barrier.wait(60)
        with fastcal.backend(engine.backend):
            return [bits(3000, seed % 8) for _ in range(2)][1]

    with ThreadPoolExecutor(64) as pool:
        for seed, got in enumerate(pool.map(call, range(64), timeout=120)):
            assert_equal(got, expected[seed % 8])


@on_every_engine
def test_the_number_of_threads_changes_no_bit():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = bits(20_001, 3)
        for n_threads in (2, 3, 7, 16):
            torch.set_num_threads(n_threads)
            assert_equal(bits(20_001, 3), expected)
    finally:
        torch.set_num_threads(before)


def test_the_interpreter_runs_on_while_a_kernel_computes():
    """Python makes progress during a call: the GIL is released."""
    if "cpu" not in {s.name for s in fastcal.backends.status() if s.available}:
        pytest.skip("cpu backend is not available")
    members = [torch.randn(1, 8, 400_000)] * 12
    ticks, done = 0, threading.Event()

    def work() -> None:
        with fastcal.backend("cpu"):
            for _ in range(3):
                fastcal.ensemble_entropy(members)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        time.sleep(0.001)
        ticks += 1
    thread.join()
    assert ticks > 3


def test_threads_choose_their_backends_independently():
    members = logits(2, 3, (500,))
    with fastcal.backend("reference"):
        reference = fastcal.ensemble_entropy(members)
    default = fastcal.ensemble_entropy(members)
    inside, release, seen = threading.Event(), threading.Event(), []

    def forced() -> None:
        with fastcal.backend("reference"):
            inside.set()
            release.wait(30)
            seen.append(fastcal.ensemble_entropy(members))

    thread = threading.Thread(target=forced)
    thread.start()
    inside.wait(30)
    assert torch.equal(fastcal.ensemble_entropy(members), default)
    release.set()
    thread.join()
    assert torch.equal(seen[0], reference)


def test_updates_and_merges_of_several_threads_are_all_counted():
    n_threads, n_updates = 8, 160
    p = torch.rand(1, 3, 4, generator=torch.Generator().manual_seed(0)).softmax(1)
    target = torch.tensor([[0, 1, 2, 0]])
    one = fastcal.CalibrationStatistics(3)
    one.update(p, target, case_id="one")
    together = fastcal.CalibrationStatistics(3)

    def work(number: int) -> None:
        for index in range(n_updates):
            if index % 4 == 0:
                together.merge(one)
            else:
                together.update(p, target, case_id=f"{number} {index % 5}")
            if index % 40 == 0:
                together.state_dict()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(work, range(n_threads)))
    finally:
        sys.setswitchinterval(before)
    assert together.n_voxels == 4 * n_threads * n_updates
    cases = together.state.case_rows
    assert cases[:, 0].sum() == together.n_voxels
    expected = fastcal.CalibrationStatistics(3)
    for _ in range(n_threads * n_updates):
        expected.merge(one)
    assert (together.state.total == expected.state.total).all()
