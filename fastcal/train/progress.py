"""Progress of a training: a bar on a terminal, one line per epoch elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from fastcal.train.log import EpochRow

BEST = "* marks the best validation Dice of a member so far"


class TrainingProgress:
    """Reports epochs to standard error, with the time left if no member stops early.

    Args:
        epochs: The most epochs that are still to come, over all members.
        max_epochs: The most epochs of a member.
        shown: Whether to report anything.
    """

    def __init__(self, *, epochs: int, max_epochs: int, shown: bool = True) -> None:
        self._epochs = epochs
        self._max_epochs = max_epochs
        self._shown = shown
        self._done = 0
        self._start = time.perf_counter()
        self._bar = _Bar(epochs) if shown and sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def say(self, text: str) -> None:
        """Show a message of one line."""
        if self._bar is not None:
            self._bar.say(text)
        elif self._shown:
            print(text, file=sys.stderr, flush=True)

    def epoch(self, member: str, row: EpochRow) -> None:
        """Report an epoch of a member."""
        self._done += 1
        if not self._shown:
            return
        if self._done == 1:
            self.say(BEST)
        best = "*" if row.best else " "
        if self._bar is not None:
            self._bar.advance(
                f"{member} epoch {row.epoch}/{self._max_epochs} Dice {row.val_dice:.4f}{best}"
            )
            return
        ahead = max(self._epochs - self._done, 0)
        left = (time.perf_counter() - self._start) / self._done * ahead
        self.say(
            f"{member}  epoch {row.epoch}/{self._max_epochs}  loss {row.loss:.4f}  "
            f"val Dice {row.val_dice:.4f}{best} NLL {row.val_nll:.4f}  lr {row.learning_rate:.2g}  "
            f"{row.seconds:.1f} s, at most {_duration(left)} left"
        )

    def skip(self, epochs: int) -> None:
        """Take off epochs that a member does not need because it stopped early."""
        self._epochs -= epochs
        if self._bar is not None:
            self._bar.shorten(epochs)


class _Bar:
    """The progress bar of rich, which is imported only where one is drawn."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._total = total
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("training", total=total)
        self._progress.start()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def advance(self, text: str) -> None:
        self._progress.update(self._task, advance=1, description=text)

    def shorten(self, epochs: int) -> None:
        self._total -= epochs
        self._progress.update(self._task, total=self._total)

    def close(self) -> None:
        self._progress.stop()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
