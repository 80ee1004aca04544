"""Workers of Dask ``distributed`` (the extra ``fastcal[scale]``): the only file that imports it."""

from __future__ import annotations

import gc
import logging
import platform
import queue
import signal
import sys
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from typing import Any, cast

import dask
from distributed import Client, Future, LocalCluster, Status, get_worker
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.utils import get_mp_context

from fastcal.cases.dealer import Answer
from fastcal.cases.desk import Desk

CONNECT_SECONDS = 15.0
"""How long a scheduler may take to answer at the beginning."""
_ABSENT_SECONDS = 60.0
"""After which a worker that its nanny has started again is not waited for any more."""


class DeskPlugin(WorkerPlugin):
    """Brings a desk to each worker once, also to those that come later."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk


class DaskCrew:
    """The workers of a scheduler as a `fastcal.cases.dealer.Crew`.

    Args:
        client: Connected to the scheduler.
        desk: The task.
        mend: Called now and then to start workers again that have failed to start.
    """

    def __init__(self, client: Client, desk: Desk, mend: Callable[[], None] | None = None) -> None:
        self._client, self._mend = client, mend
        self._name = f"fastcal-{uuid.uuid4().hex[:12]}"
        self._names: dict[str, str] = {}
        self._reached = True
        self._answered: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._hint: Callable[[str], Any] = _nothing
        client.register_plugin(DeskPlugin(desk), name=self._name)

    def send(self, hint: Callable[[str], Any]) -> None:
        """Send along what this returns for a case, with those that are begun from now on."""
        self._hint = hint

    def close(self) -> None:
        """Free what the task holds in the workers."""
        if self._client.status == "running" and self._reached:
            with suppress(OSError, TimeoutError, RuntimeError):
                self._client.unregister_worker_plugin(self._name)

    def workers(self) -> Mapping[str, str]:
        """Return the workers that are there now; see `fastcal.cases.dealer.Crew`."""
        self._reached = False
        if self._client.status != "running":
            raise OSError("the scheduler has gone")
        try:
            if self._mend is not None:
                self._mend()
            here = self._client.nthreads(callback_timeout=CONNECT_SECONDS)
            if not here.keys() <= self._names.keys():
                self._names |= _names(self._client.scheduler_info(n_workers=-1))
        except (OSError, TimeoutError, RuntimeError) as error:
            raise OSError(" ".join(str(error).split()) or "the scheduler is silent") from error
        self._reached = True
        return {address: self._names.get(address, address) for address in here}

    def begin(self, case: str, worker: str) -> Future[Any]:
        """Start a case on a worker."""
        future = self._client.submit(
            _do,
            self._name,
            case,
            self._hint(case),
            key=f"{self._name}-{case}-{uuid.uuid4().hex[:8]}",
            workers=[worker],
            # It would be begun elsewhere, without a word, when the worker ends.
            allow_other_workers=False,
            pure=False,
        )
        future.add_done_callback(self._answered.put)
        return future

    def answers(
        self, tickets: Collection[Future[Any]], seconds: float
    ) -> Mapping[Future[Any], Answer | None]:
        """Wait for the first answer; see `fastcal.cases.dealer.Crew`."""
        wanted = {ticket.key: ticket for ticket in tickets}
        found: dict[Future[Any], Answer | None] = {}
        with suppress(queue.Empty):
            future = self._answered.get(timeout=seconds)
            while True:
                ticket = wanted.get(future.key)
                if ticket is not None and not self._is_late(ticket, found):
                    found[ticket] = found.get(ticket)
                future = self._answered.get_nowait()
        return found

    def forget(self, ticket: Future[Any]) -> None:
        """Expect no answer any more."""
        # Not `cancel`, which waits for a scheduler that may not answer.
        ticket.release()

    def _is_late(self, ticket: Future[Any], found: dict[Future[Any], Answer | None]) -> bool:
        """Note the answer of a case; True where it must be waited for after all."""
        if ticket.status == "finished":
            try:
                found[ticket] = ticket.result(timeout=CONNECT_SECONDS)
            except (OSError, TimeoutError):
                # The worker ended, or the network paused, between the answer and its collection.
                ticket.add_done_callback(self._answered.put)
                return True
        elif ticket.status == "error":
            found[ticket] = Answer(error=f"the engine gave it up: {ticket.exception()!r}")
        return False


def _nothing(case: str) -> None:
    del case


def _do(name: str, case: str, hint: Any) -> Answer:
    """In a worker: do a case at the desk that the plugin has brought."""
    plugin: Any = get_worker().plugins[name]
    desk: Desk = plugin.desk
    return desk.do(case, hint)


def _names(info: Mapping[str, Any]) -> dict[str, str]:
    """Return a name for each worker that stays the same when it is started again."""
    found = {}
    for address, worker in info["workers"].items():
        place = address.rpartition("//")[2]
        name = str(worker.get("name", address))
        host = place.rpartition(":")[0]
        host = platform.node() if host == "127.0.0.1" else host
        found[address] = place if place in name else f"worker {name} on {host}"
    return found


@contextmanager
def connected(address: str) -> Iterator[tuple[Client, None]]:
    """Connect to a scheduler.

    Raises:
        ValueError: No scheduler answers at the address.
    """
    try:
        with _quiet():
            client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ValueError(
            f"scheduler must be the address of a Dask scheduler that answers, got {address!r} "
            f"({' '.join(str(error).split())})"
        ) from error
    try:
        yield client, None
    finally:
        with suppress(OSError, TimeoutError):
            client.close(timeout=CONNECT_SECONDS)


@contextmanager
def local(environments: Sequence[Mapping[str, str]]) -> Iterator[tuple[Client, Callable[[], None]]]:
    """Start workers on this machine, one for each environment; they end with the block.

    Yields:
        What is connected to them, and what starts those again that have failed to start.
    """
    _fork_warm()
    with (
        _quiet(),
        # Nothing of a case stays on a worker, so that there is nothing to move to the disk; and a
        # worker that has too little memory is ended rather than paused for ever.
        dask.config.set(
            {
                "distributed.worker.memory.target": False,
                "distributed.worker.memory.spill": False,
                "distributed.worker.memory.pause": False,
                **_METHOD,
            }
        ),
        _Local(environments) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client, cluster.mend


_METHOD = (
    {} if sys.platform == "win32" else {"distributed.worker.multiprocessing-method": "forkserver"}
)
"""A worker is a fork of a process that has imported everything. It starts in a moment,
and after a kill again, where a new interpreter takes several for PyTorch alone."""
_PRELOAD = ("distributed", "nibabel", "fastcal.cases", "fastcal.cases.dask_crew")


def _fork_warm() -> None:
    """Start the process that workers are forked from, if there is none yet.

    A terminal sends Ctrl-C to every process, but only this one answers it, and ends the workers.
    They never hear of it: signals that are blocked here stay so in that process and its forks.
    """
    with dask.config.set(_METHOD):
        context = get_mp_context()  # it sets a list of its own when it is first called
    if context.get_start_method() != "forkserver":
        return
    context.set_forkserver_preload(list(_PRELOAD))
    resource_tracker.ensure_running()  # would unblock the signal when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Local(LocalCluster):
    """Workers that have an environment each, which stays theirs when they are started again."""

    def __init__(self, environments: Sequence[Mapping[str, str]]) -> None:
        self._environments = environments
        self._given: dict[Any, int] = {}
        self._absent: dict[Any, float] = {}
        super().__init__(
            # They come one by one, and the cases are not kept waiting for the last.
            n_workers=0,
            threads_per_worker=1,
            # By default a worker gets the share of one core, however many cores have no worker.
            memory_limit=1 / len(environments),
            processes=True,
            host="127.0.0.1",
            # It has no dashboard, but a page for monitors, which gets any port of this machine.
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
        )
        self.scale(len(environments))

    def new_worker_spec(self) -> dict[Any, Any]:
        """Give the next worker an environment that none has."""
        made: dict[Any, Any] = super().new_worker_spec()
        for name, spec in made.items():
            taken = {self._given[other] for other in self.worker_spec if other in self._given}
            free = (number for number in range(len(self._environments)) if number not in taken)
            self._given[name] = next(free, 0)
            own = dict(self._environments[self._given[name]])
            made[name] = {**spec, "options": {**spec["options"], "env": own}}
        return made

    def mend(self) -> None:
        """Replace workers that have failed to start, which their nannies do not try again."""
        now, scheduler = time.monotonic(), cast("Any", self.scheduler)
        there = {worker.address for worker in scheduler.workers.values()}
        for name, nanny in list(self.workers.items()):
            if nanny.worker_address in there:
                self._absent.pop(name, None)
                continue
            since = self._absent.setdefault(name, now)
            if nanny.status == Status.failed or now - since > _ABSENT_SECONDS:
                self.worker_spec.pop(name, None)
                del self._absent[name]
        if len(self.worker_spec) < len(self._environments):
            self.scale(len(self._environments))


@contextmanager
def _quiet() -> Iterator[None]:
    """Let the logs of the engine be still: what goes wrong is told in one line."""
    loggers = [logging.getLogger(name) for name in ("distributed", "tornado", "asyncio")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        gc.collect()  # what is still to be said of answers that were lost is said here
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
