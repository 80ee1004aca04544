"""The worker's side of a dealt case: the work is prepared once, done, and answered in one piece."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from fastcal.cases.dealer import Answer
from fastcal.cases.loop import HOPELESS, one_line
from fastcal.cases.record import versions
from fastcal.core.errors import DataError
from fastcal.data.affines import affine_from, affine_rule

_PASSING = {
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY, errno.EAGAIN, errno.EINTR),
    *(errno.ECONNRESET, errno.ECONNABORTED, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET),
}
"""What a shared file system reports while its server or the network is away."""


class Task(Protocol):
    """What is done to each case. It is pickled once for each worker."""

    @property
    def folder(self) -> Path:
        """A folder that every worker must see, where its results go."""

    def prepare(self) -> None:
        """Make ready for many cases, such as by choosing the device. Called once in a process."""

    def __call__(self, case: str, hint: Any) -> Any:
        """Do a case.

        Args:
            case: Its name.
            hint: What `fastcal.cases.workers` was told to send along; None where it was not.
        """


@dataclass(slots=True)
class Desk:
    """A task in a worker's process.

    Paths mean what they mean to the process that deals the cases, and its rule for affines counts.
    """

    task: Task
    threads: int | None = None
    """Threads of each case; None for what the process has."""
    home: str = field(default_factory=os.getcwd)
    affine: str = field(default_factory=affine_rule)
    versions: dict[str, str] = field(default_factory=versions)
    _lock: Any = None
    _ready: bool = False

    def __getstate__(self) -> tuple[Any, ...]:
        return self.task, self.threads, self.home, self.affine, self.versions

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.task, self.threads, self.home, self.affine, self.versions = state
        self._lock, self._ready = threading.Lock(), False

    def do(self, case: str, hint: Any = None) -> Answer:
        """Do a case, whatever comes of it; one at a time, however many threads the worker has."""
        with self._lock or contextlib.nullcontext():
            start = time.monotonic()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                try:
                    with self._placed():
                        self._prepare()
                        answer = Answer(self.task(case, hint))
                except Exception as error:
                    answer = _answer(error)
            told = [one.message for one in caught]
            return replace(
                answer,
                seconds=time.monotonic() - start,
                told=tuple(one for one in told if isinstance(one, UserWarning)),
            )

    @contextlib.contextmanager
    def _placed(self) -> Iterator[None]:
        try:
            home = contextlib.chdir(self.home)
            home.__enter__()
        except OSError as error:
            raise _UnfitError(DataError(self.home, "is not there on a worker")) from error
        try:
            with affine_from(self.affine):
                yield
        finally:
            home.__exit__(None, None, None)

    def _prepare(self) -> None:
        if self._ready:
            return
        here = versions()
        if here != self.versions:
            raise _UnfitError(
                ValueError(
                    f"workers must have the versions {_words(self.versions)}, "
                    f"got {_words(here)} on {platform.node()}"
                )
            )
        if not self.task.folder.is_dir():
            raise _UnfitError(
                DataError(
                    self.task.folder,
                    f"is not to be seen on {platform.node()}; all workers must share it",
                )
            )
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)
        try:
            self.task.prepare()
        except (ValueError, OSError, RuntimeError) as error:
            raise _UnfitError(_plain(error)) from error
        self._ready = True


class _UnfitError(Exception):
    """The worker cannot do any case; the argument is the reason."""


def _answer(error: Exception) -> Answer:
    if isinstance(error, _UnfitError):
        reason = error.args[0]
        return Answer(error=one_line(reason), unfit=reason)
    number = _number(error)
    if number in HOPELESS:
        return Answer(error=_reason(error), unfit=_plain(error))
    return Answer(error=_reason(error), passing=number in _PASSING)


def _number(error: BaseException) -> int | None:
    """Return the number of the system's error that is at the root of this one."""
    one: BaseException | None = error
    seen: set[int] = set()  # an error may be its own cause
    while one is not None and id(one) not in seen:
        if isinstance(one, OSError) and one.errno is not None:
            return one.errno
        seen.add(id(one))
        one = one.__cause__
    return None


def _reason(error: Exception) -> str:
    expected = isinstance(error, ValueError | OSError | RuntimeError | MemoryError)
    return one_line(error) if expected else f"{type(error).__name__}: {one_line(error)}"


def _plain(error: Exception) -> BaseException:
    """Return an error that any process can unpickle."""
    if isinstance(error, OSError):
        return OSError(error.errno, error.strerror, error.filename)
    return error if isinstance(error, DataError) else ValueError(one_line(error))


def _words(held: dict[str, str]) -> str:
    return ", ".join(f"{name} {one}" for name, one in held.items())
