"""Work dealt to several devices at once, whose results come in the order of the work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

AHEAD = 2
"""Results per worker that may wait for their turn, the one being made included."""


def dealt(
    tasks: Sequence[Task],
    workers: int,
    worker_of: Callable[[Task], int],
    work: Callable[[Task], Result],
) -> Iterator[Result]:
    """Do tasks in one thread per worker, and give the results in the order of the tasks.

    Memory holds at most `AHEAD` results per worker. Where a task fails, its error is raised at its
    turn, and what was not begun is left.

    Args:
        tasks: What is to be done.
        workers: Number of threads.
        worker_of: The thread of a task, from 0; tasks of one thread are done in turn.
        work: Does a task.

    Example:
        >>> list(dealt([1, 2, 3, 4], 2, lambda n: n % 2, lambda n: n * n))
        [1, 4, 9, 16]
    """
    begun: deque[Future[Result]] = deque()
    with ExitStack() as stack:
        pools = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(workers)]
        # Before the pools wait for their threads, so that nothing more is begun.
        stack.callback(lambda: [future.cancel() for future in begun])
        for task in tasks:
            begun.append(pools[worker_of(task)].submit(work, task))
            if len(begun) >= AHEAD * workers:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
