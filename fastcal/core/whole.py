"""Changes of an object that are whole or undone: one thread at a time, and no signal in between."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch

_Handler = Callable[[int, FrameType | None], Any]


class Whole:
    """A lock whose holder is not interrupted.

    Python runs the handlers of signals in the main thread, between two steps of whatever runs
    there, and that of Ctrl-C raises ``KeyboardInterrupt`` in the middle of it. Within the block
    handlers wait, and they run at its end. The lock may be entered again by the thread that holds
    it. It can be copied and pickled, which gives a new one.

    Example:
        >>> whole = Whole()
        >>> with whole, whole:
        ...     1 + 1
        2
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._waiting: list[_Waiting | None] = []

    def __enter__(self) -> None:
        if torch.compiler.is_compiling():
            return
        if self._process != os.getpid():  # a thread that a fork left behind may hold the lock
            self._lock, self._process, self._waiting = threading.RLock(), os.getpid(), []
        main = threading.current_thread() is threading.main_thread()
        waiting = _Waiting() if main else None
        try:
            if waiting is not None:
                waiting.begin()
            self._lock.acquire()
        except BaseException:
            if waiting is not None:
                waiting.restore()
            raise
        self._waiting.append(waiting)

    def __exit__(self, *_: object) -> None:
        if torch.compiler.is_compiling():
            return
        waiting = self._waiting.pop()
        self._lock.release()
        if waiting is not None:
            try:
                waiting.restore()
            finally:
                waiting.run()

    def __reduce__(self) -> tuple[type[Whole], tuple[()]]:
        return Whole, ()


class _Waiting:
    """The handlers of signals that wait, and the signals that came meanwhile."""

    def __init__(self) -> None:
        found = {number: signal.getsignal(number) for number in signal.valid_signals()}
        self._handlers: dict[int, _Handler] = {
            number: handler for number, handler in found.items() if callable(handler)
        }
        self._caught: list[tuple[int, FrameType | None]] = []
        self._over = False

    def begin(self) -> None:
        """Let handlers wait."""
        for number in self._handlers:
            signal.signal(number, self._catch)

    def restore(self) -> None:
        """Put handlers back. One that is back may raise before the last is."""
        self._over = True
        try:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
        except BaseException:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            raise

    def run(self) -> None:
        """Run the handlers of the signals that came."""
        while self._caught:
            number, frame = self._caught.pop(0)
            self._handlers[number](number, frame)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if self._over:  # two signals came while handlers were put back, and this one was not
            self._handlers[number](number, frame)
        else:
            self._caught.append((number, frame))
