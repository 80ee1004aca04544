"""Workers that share the cases of a run: processes of this machine, or those of a scheduler."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fastcal.cases.dealer import Hands, deal
from fastcal.cases.desk import Desk, Task
from fastcal.cases.journal import Journal
from fastcal.cases.loop import CaseRun, Progress, ProgressOption, reporter
from fastcal.core.arguments import whole_number
from fastcal.core.heartbeat import Heart
from fastcal.models.device import choose_devices

if TYPE_CHECKING:
    from fastcal.cases.dask_crew import DaskCrew

MOST_WORKERS = 1024
_ADDRESS = re.compile(r"[a-z]+://\S+|\S+:\d+")
_PATIENCE = 300.0
_PATIENCE_OF_A_SCHEDULER = 600.0
"""Seconds without any worker. Nodes of a cluster may take minutes to start."""


@dataclass(frozen=True, slots=True)
class Workers:
    """Who does the cases of a run.

    Raises:
        TypeError: ``count`` is no integer, or ``scheduler`` no text.
        ValueError: Both are given or none is, ``count`` is out of range, or ``scheduler`` is no
            address.
        ImportError: Dask ``distributed`` is not installed.

    Example:
        >>> Workers(count=4).scheduler is None
        True
    """

    scheduler: str | None = None
    """Address of a running Dask scheduler, such as ``tcp://node1:8786``."""
    count: int | None = None
    """Number of processes to start on this machine."""

    def __post_init__(self) -> None:
        if (self.scheduler is None) == (self.count is None):
            raise ValueError(
                "workers must be None where a scheduler is given, whose workers are used, "
                f"got {self.count} and {self.scheduler!r}"
            )
        if self.scheduler is not None:
            if not isinstance(self.scheduler, str):
                raise TypeError(f"scheduler must be an address, got {self.scheduler!r}")
            if not _ADDRESS.fullmatch(self.scheduler):
                raise ValueError(
                    f"scheduler must be an address such as tcp://node1:8786, got {self.scheduler!r}"
                )
        if self.count is not None and not 1 <= whole_number(self.count, "workers") <= MOST_WORKERS:
            raise ValueError(f"workers must be from 1 to {MOST_WORKERS}, got {self.count}")
        try:
            import distributed  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "workers need Dask distributed, which is missing: pip install 'fastcal[scale]'"
            ) from error

    @classmethod
    def of(cls, scheduler: str | None, workers: int | None) -> Workers | None:
        """Return who does the cases; None where this process does them itself."""
        if scheduler is None and workers is None:
            return None
        return cls(scheduler, workers)

    def team(self, asked: torch.device | str | Sequence[torch.device | str] | None = "cpu") -> Team:
        """Return the workers with the device that each of them computes on.

        Args:
            asked: The device that was asked for; None for a GPU if there is one. Workers that are
                started here see one GPU each.

        Raises:
            ValueError: It is no device, or this computer, which starts the workers, lacks it.
        """
        if self.count is None:
            several = None if asked is None or isinstance(asked, str | torch.device) else [*asked]
            if several is not None and len(several) != 1:
                raise ValueError(
                    f"device must be one device for the workers of a scheduler, got {several}"
                )
            one = several[0] if several else asked
            return Team(self, None if one is None else str(one))
        chosen = choose_devices(asked)
        if chosen[0].type == "cpu":
            return Team(self, "cpu")
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        seen = visible_devices(given, torch.cuda.device_count())
        index: int | None = chosen[0].index
        if len(chosen) == 1 and index is None:
            return Team(self, "cuda", tuple(seen))
        return Team(self, "cuda", tuple(seen[one.index or 0] for one in chosen))

    @property
    def patience(self) -> float:
        """Seconds to wait for a worker where there is none."""
        return _PATIENCE if self.scheduler is None else _PATIENCE_OF_A_SCHEDULER

    @contextmanager
    def crew(self, task: Task, pins: Sequence[str] = ()) -> Iterator[DaskCrew]:
        """Connect to the workers, or start them, with a task in each.

        Raises:
            ValueError: No scheduler answers.
        """
        from fastcal.cases import dask_crew

        threads = None
        if self.count is not None:
            threads = max(1, _processors() // self.count)
        desk = Desk(task, threads)
        with self._session(threads or 1, pins) as (client, mend):
            made = dask_crew.DaskCrew(client, desk, mend)
            try:
                yield made
            finally:
                made.close()

    def _session(self, threads: int, pins: Sequence[str]) -> AbstractContextManager[Any]:
        from fastcal.cases import dask_crew

        if self.scheduler is not None:
            return dask_crew.connected(self.scheduler)
        assert self.count is not None
        return dask_crew.local(worker_environments(self.count, pins, threads))


@dataclass(frozen=True, slots=True)
class Team:
    """Workers, and where they compute."""

    workers: Workers
    device: str | None = "cpu"
    """The device as a worker names it; None for a GPU if it has one."""
    pins: tuple[str, ...] = ()
    """GPUs as ``CUDA_VISIBLE_DEVICES`` names them. Each worker sees one, in turn."""

    def run_cases(
        self,
        cases: Sequence[str],
        task: Task,
        journal: Path,
        *,
        heart: Heart | None = None,
        finished: Callable[[str], bool] | None = None,
        taken: Callable[[str, Any], None] | None = None,
        progress: ProgressOption = False,
    ) -> CaseRun:
        """Do every case that is not finished, on the workers; failures do not stop the others.

        Args:
            cases: Case names.
            task: What is done to each.
            journal: The file that gets a line for whatever happens.
            heart: Tells whether the folder is still held by this run.
            finished: Says whether all files of a case exist already; None if that is true of no
                case.
            taken: Takes what the task returned of a case.
            progress: See `fastcal.cases.loop.run_cases`.

        Raises:
            ValueError: No scheduler answers, no worker can do the cases, or there has been none for
                too long.
            DataError: Another run has taken the folder over.
            OSError: No worker has room on its disk, or the error of that of the journal.
        """
        skipped = [] if finished is None else [case for case in cases if finished(case)]
        there = set(skipped)
        left = [case for case in dict.fromkeys(cases) if case not in there]
        if not left:
            return CaseRun((), tuple(skipped), ())
        say = reporter(progress)
        # Workers take long to start: what may be wrong with the journal is told before.
        with Journal(journal) as lines, self.workers.crew(task, self.pins) as crew:

            def told(state: Progress) -> None:
                if heart is not None:
                    heart.check()
                done = len(skipped) + state.done
                say(Progress(state.case, done, len(cases), state.seconds_left))

            hands = Hands(
                taken=taken,
                journal=lines,
                finished=finished,
                report=told,
                patience=self.workers.patience,
            )
            run = deal(left, crew, hands)
        return CaseRun(run.done, tuple(skipped), run.failed)


def visible_devices(given: str | None, found: int) -> list[str]:
    """Return the GPUs that a process sees, as ``CUDA_VISIBLE_DEVICES`` names them.

    Args:
        given: Its ``CUDA_VISIBLE_DEVICES``; None where it is not set.
        found: How many of them there are.

    Example:
        >>> visible_devices("2,GPU-5ab", 2), visible_devices(None, 2)
        (['2', 'GPU-5ab'], ['0', '1'])
    """
    if given is None:
        return [str(number) for number in range(found)]
    return [name.strip() for name in given.split(",") if name.strip()][:found]


def worker_environments(
    count: int, pins: Sequence[str] = (), threads: int = 1
) -> list[dict[str, str]]:
    """Return what each worker's environment says.

    Args:
        count: Number of workers.
        pins: GPUs; with more workers than GPUs, several share one.
        threads: Threads of a worker.

    Example:
        >>> [one["CUDA_VISIBLE_DEVICES"] for one in worker_environments(3, ["0", "1"])]
        ['0', '1', '0']
    """
    made = []
    for number in range(count):
        own = {"OMP_NUM_THREADS": str(threads)}
        if pins:
            own["CUDA_VISIBLE_DEVICES"] = pins[number % len(pins)]
        made.append(own)
    return made


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
