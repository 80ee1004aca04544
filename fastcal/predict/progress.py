"""Progress within a case that takes long."""

from __future__ import annotations

import sys
import time

EVERY = 10.0
"""Seconds between two lines."""


class PassProgress:
    """Prints to stderr, from time to time, how many passes of a case are done and the time left.

    Example:
        >>> told = PassProgress("case_001")
        >>> told(0, 40)  # the first line comes after ten seconds
    """

    def __init__(self, case: str) -> None:
        self._case = case
        self._start = self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Print a line if the last one is some time ago.

        Args:
            done: Number of passes that are done.
            total: Number of passes of the case.
        """
        now = time.monotonic()
        if done == 0 or now - self._last < EVERY:
            return
        self._last = now
        minutes, seconds = divmod(round((now - self._start) / done * (total - done)), 60)
        text = f"{self._case}: {done} of {total} passes, {minutes}:{seconds:02d} left"
        print(text, file=sys.stderr, flush=True)
