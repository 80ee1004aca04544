"""The stages of a study: what each took, and which are left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fastcal.core import atomic
from fastcal.core.doors import MissingFileError, read_json

FILE = "stages.json"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StageTime:
    """What is known of a stage."""

    name: str
    seconds: float
    """Over all sessions; what a session had done before it was killed outright is not in it."""
    finished: bool


class Stages:
    """The list of stages of a study, kept in its folder.

    A stage does nothing twice: what it had made before an interruption is there, and it goes on
    from there. The list says how far the study is and where the time went.

    Args:
        folder: The study's.
        names: Every stage, in order.
        shown: Say on stderr which stage begins, and how long those took that are done.

    Example:
        >>> import tempfile
        >>> stages = Stages(Path(tempfile.mkdtemp()), ["train", "tables"], shown=False)
        >>> stages.run("train", lambda: 42)
        42
        >>> [(stage.name, stage.finished) for stage in stages.times]
        [('train', True), ('tables', False)]
    """

    def __init__(self, folder: Path, names: Sequence[str], *, shown: bool = True) -> None:
        self._file = folder / FILE
        self._shown = shown
        kept = self._read()
        self._times = {
            name: StageTime(name, float(kept.get(name, {}).get("seconds", 0.0)), False)
            for name in names
        }

    @property
    def times(self) -> tuple[StageTime, ...]:
        """Every stage, in order."""
        return tuple(self._times.values())

    def run(self, name: str, work: Callable[[], T]) -> T:
        """Do the work of a stage, and take note of its time, also where it is interrupted."""
        with self._timed(name):
            found = work()
        before = self._times[name]
        self._times[name] = StageTime(name, before.seconds, finished=True)
        self._write()
        return found

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        place = list(self._times).index(name) + 1
        self._say(f"stage {place} of {len(self._times)}: {name}{self._before(name)}")
        start = time.monotonic()
        try:
            yield
        finally:
            seconds = self._times[name].seconds + time.monotonic() - start
            self._times[name] = StageTime(name, seconds, finished=False)
            self._write()

    def _before(self, name: str) -> str:
        seconds = self._times[name].seconds
        return f" ({minutes(seconds)} so far)" if seconds >= 1 else ""

    def _say(self, text: str) -> None:
        if self._shown:
            print(text, file=sys.stderr, flush=True)

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            found: dict[str, dict[str, Any]] = read_json(self._file, dict[str, dict[str, Any]])
        except MissingFileError:
            return {}
        return found

    def _write(self) -> None:
        content = {
            stage.name: {"seconds": round(stage.seconds, 1), "finished": stage.finished}
            for stage in self.times
        }
        atomic.write_json(self._file, content)


def minutes(seconds: float) -> str:
    """Return a time as minutes and seconds, or hours and minutes.

    Example:
        >>> minutes(75.2), minutes(7260)
        ('1:15 min', '2:01 h')
    """
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
