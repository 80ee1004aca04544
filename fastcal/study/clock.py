"""What an experiment says on stderr while it runs."""

from __future__ import annotations

import sys
import time


class Clock:
    """Says what begins, and estimates from the first loss how long the others will take.

    Args:
        losses: Losses that will be compared.
        enabled: False says nothing.
    """

    def __init__(self, losses: int, *, enabled: bool) -> None:
        self._left = losses
        self._enabled = enabled
        self._start = self._loss_start = time.monotonic()
        self._per_loss: float | None = None

    def start(self, what: str) -> None:
        """Say on stderr that something begins."""
        if self._enabled:
            elapsed = time.monotonic() - self._start
            left = ""
            if self._per_loss is not None and self._left:
                spent = time.monotonic() - self._loss_start
                left = f", about {_minutes(max(0.0, self._per_loss * self._left - spent))} left"
            print(f"[{_minutes(elapsed)}{left}] {what}", file=sys.stderr, flush=True)

    def loss_done(self) -> None:
        """Take note of the time that a loss took."""
        now = time.monotonic()
        self._per_loss = now - self._loss_start
        self._loss_start = now
        self._left -= 1


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
