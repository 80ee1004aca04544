"""Members trained side by side, each in a process of its own.

Networks this small keep one thread busy and a second one half; two processes of one thread each
train two members in less time than one process of two threads trains them in turn.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing.synchronize import Event
from pathlib import Path

import torch

from fastcal.data.dataset import Dataset
from fastcal.data.preprocess import Preprocessing
from fastcal.models.run import LOG
from fastcal.train.log import EpochRow, read_log
from fastcal.train.member import Task, train_member
from fastcal.train.progress import TrainingProgress
from fastcal.train.slices import load_slices
from fastcal.train.splits import Split, resolve_split

# How often the parent looks for new lines in the members' logs, seconds.
POLL = 0.25

_stop: Event


def train_in_processes(
    tasks: Sequence[Task],
    dataset: Path,
    split: Split,
    preprocessing: Preprocessing,
    *,
    jobs: int,
    report: TrainingProgress,
) -> None:
    """Train members, `jobs` at a time, on an even share of the threads each.

    The parent reports what the children log. An error in one of them, or the end of the parent,
    ends the others after their current epoch.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    threads = max(1, torch.get_num_threads() // jobs)
    shown = {task.number: _rows(task) for task in tasks}
    with ProcessPoolExecutor(
        jobs, mp_context=context, initializer=_start, initargs=(stop, threads)
    ) as pool:
        futures: dict[Future[None], Task] = {
            pool.submit(_train, task, dataset, split.names(), preprocessing): task for task in tasks
        }
        pending = set(futures)
        try:
            while pending:
                done, pending = wait(pending, timeout=POLL, return_when=FIRST_COMPLETED)
                for task in tasks:
                    rows = _rows(task)
                    for row in rows[len(shown[task.number]) :]:
                        report.epoch(task.folder.name, row)
                    shown[task.number] = rows
                for future in done:
                    future.result()
                    report.skip(futures[future].config.max_epochs - len(_rows(futures[future])))
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _rows(task: Task) -> list[EpochRow]:
    return read_log(task.folder) if (task.folder / LOG).exists() else []


def _start(stop: Event, threads: int) -> None:
    global _stop
    _stop = stop
    torch.set_num_threads(threads)


def _train(
    task: Task, dataset: Path, names: dict[str, list[str]], preprocessing: Preprocessing
) -> None:
    opened = Dataset.open(dataset)
    split = resolve_split(opened, names)
    train = load_slices(opened, split.train, preprocessing)
    val = load_slices(opened, split.val, preprocessing)
    train_member(task, train, val, on_epoch=_stop_if_told)


def _stop_if_told(row: EpochRow) -> None:
    del row
    parent = multiprocessing.parent_process()
    if _stop.is_set() or (parent is not None and not parent.is_alive()):
        raise SystemExit
