"""Members trained side by side, each in its own process, on GPUs or on shares of a CPU.

Small networks keep a second thread only half busy. Two processes of one thread each therefore train
two members in less time than one process of two threads trains them in turn.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import replace
from multiprocessing import connection
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import torch

from fastcal.models.run import LOG
from fastcal.train.cases import CaseFolder
from fastcal.train.engines import Alone
from fastcal.train.learner import Learner
from fastcal.train.log import EpochRow, read_log
from fastcal.train.loop import train_members
from fastcal.train.progress import TrainingProgress
from fastcal.train.recipe import Recipe
from fastcal.train.timing import seconds_per_step

# Seconds between two looks of the parent at the logs of the members.
POLL = 0.25
# Seconds that a trial of speed waits for the slowest process to start.
START = 300.0

_stop: Event
_barrier: Barrier
_device: torch.device


def default_jobs(device: torch.device) -> int:
    """Return the number of processes that makes sense: one per GPU, or one per CPU thread."""
    if device.type == "cuda":
        return torch.cuda.device_count() if device == torch.device("cuda") else 1
    return torch.get_num_threads()


class Workers:
    """Processes that train members; to be used as a context manager.

    Args:
        recipe: The recipe of the run.
        cases: Where its cases are.
        jobs: Number of processes. On a CPU they share its threads evenly; on a computer with
            several GPUs each has a GPU.
    """

    def __init__(self, recipe: Recipe, cases: CaseFolder, jobs: int) -> None:
        self._recipe = recipe
        self._cases = replace(cases, verified=True)
        self._jobs = jobs
        context = multiprocessing.get_context("spawn")
        self._stop = context.Event()
        devices = context.Queue()
        for device in _devices(recipe.device, jobs):
            devices.put(device)
        gpu = recipe.device.type == "cuda"
        threads = max(1, (os.cpu_count() or 1) if gpu else torch.get_num_threads()) // jobs
        self._pool = ProcessPoolExecutor(
            jobs,
            mp_context=context,
            initializer=_start,
            initargs=(self._stop, context.Barrier(jobs), devices, max(1, threads)),
        )

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._stop.set()
        self._pool.shutdown(wait=kind is None, cancel_futures=True)

    def seconds_per_step(self) -> float:
        """Measure the seconds per step and member while every process trains one member."""
        trials = [
            self._pool.submit(_trial, self._recipe, self._cases, number)
            for number in range(self._jobs)
        ]
        return max(trial.result() for trial in trials) / self._jobs

    def train(self, numbers: Sequence[int], report: TrainingProgress) -> None:
        """Train members, and report from the parent what the children log.

        After an error in one child the others stop at the end of their epoch. When the parent
        ends, however it does, so do its children.

        Args:
            numbers: Numbers of the members.
            report: Receives the epochs.
        """
        recipe = self._recipe
        folders = {number: recipe.member_folder(number) for number in numbers}
        shown = {number: len(_rows(folder)) for number, folder in folders.items()}
        futures = {
            self._pool.submit(_train, recipe, self._cases, number): number for number in numbers
        }
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=POLL, return_when=FIRST_COMPLETED)
            for number, folder in folders.items():
                rows = _rows(folder)
                for row in rows[shown[number] :]:
                    report.epoch(folder.name, row)
                shown[number] = len(rows)
            for future in done:
                future.result()
                report.skip(recipe.config.loop.max_epochs - shown[futures[future]])


def _rows(folder: Path) -> list[EpochRow]:
    return read_log(folder) if os.path.lexists(folder / LOG) else []


def _devices(device: torch.device, jobs: int) -> list[torch.device]:
    if device == torch.device("cuda"):
        count = torch.cuda.device_count()
        return [torch.device("cuda", number % count) for number in range(jobs)]
    return [device] * jobs


def _start(stop: Event, barrier: Barrier, devices: Queue[torch.device], threads: int) -> None:
    global _stop, _barrier, _device
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _stop, _barrier, _device = stop, barrier, devices.get()
    torch.set_num_threads(threads)


def _trial(recipe: Recipe, cases: CaseFolder, number: int) -> float:
    mine = replace(recipe, device=_device)
    loaded = cases.load(_device)
    return seconds_per_step(
        mine, loaded, [number], Alone, before=lambda: _barrier.wait(timeout=START)
    )


def _train(recipe: Recipe, cases: CaseFolder, number: int) -> None:
    mine = replace(recipe, device=_device)
    learner = Learner(mine, number)
    train_members([learner], cases.load(_device), Alone, on_epoch=_stop_if_told)


class _StoppedError(Exception):
    """Another member failed; the pool hands this to a parent that raises the other's error."""


def _stop_if_told(member: str, row: EpochRow) -> None:
    del member, row
    if _stop.is_set():
        raise _StoppedError


def _end_with_parent() -> None:
    """End this process as soon as its parent has ended, which a killed parent cannot ask for.

    An idle worker waits for work, and a busy one trains for hours; neither would notice. Nothing is
    lost: a run resumes from last.pt, which is written whole.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
