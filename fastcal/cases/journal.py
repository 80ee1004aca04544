"""``journal.jsonl``: what became of each case that was dealt to a worker, one line at a time.

The records of the cases say which are finished. The journal says how: on which worker, how long it
took, and what went wrong. One process writes it, the one that deals the cases.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Literal, Self, TypeAlias

from fastcal.core import atomic
from fastcal.core.doors import MissingFileError, parse_json, read_bytes, validated
from fastcal.core.errors import DataError

FILE = "journal.jsonl"
_MOST_BYTES = 1 << 30
"""Of a journal: about five million lines."""

State: TypeAlias = Literal["begun", "done", "failed", "lost", "aside"]
"""``lost``: the worker ended in the middle of the case. ``aside``: so did the worker of the second
try, and the case is not tried again in this run."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a journal."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "ignore"}

    case: str
    state: State
    worker: str
    """Name of the worker and its machine."""
    seconds: float | None = None
    """How long the case took, by the clock of the worker."""
    error: str | None = None
    at: str = ""
    """When the line was written, by the clock of the process that deals the cases."""


def journal_file(folder: Path, *, part_id: int = 0, num_parts: int = 1) -> Path:
    """Return the journal of a part; parts write at the same time, so each has its own."""
    return folder / (FILE if num_parts == 1 else f"journal.part-{part_id}-of-{num_parts}.jsonl")


def journal_beside(file: Path) -> Path:
    """Return the journal of a command that writes one file, which lies beside it."""
    return file.with_name(f"{file.stem}.journal.jsonl")


class Journal:
    """Appends lines to a journal; a context manager.

    A line reaches the disk before `note` returns. What a killed process left of a line is ended, so
    that the next line stands alone.

    Args:
        path: The file, which is made if it is missing.

    Raises:
        OSError: The error of the disk.

    Example:
        >>> with Journal(Path("out/journal.jsonl")) as journal:  # doctest: +SKIP
        ...     journal.note("case_1", "done", "worker 0 on node7", seconds=12.5)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
        self._descriptor = os.open(path, flags, 0o666)
        size = os.fstat(self._descriptor).st_size
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            self._write(b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def note(
        self,
        case: str,
        state: State,
        worker: str,
        *,
        seconds: float | None = None,
        error: str | None = None,
    ) -> None:
        """Append a line.

        Raises:
            OSError: The error of the disk, which names the file.
        """
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        taken = None if seconds is None else round(seconds, 3)
        self._write(_line(Entry(case, state, worker, taken, error, now)).encode("ascii"))

    def _write(self, line: bytes) -> None:
        try:
            # One call: lines of a local disk are whole, and a full disk is told at once.
            written = os.write(self._descriptor, line)
            if written < len(line):
                os.write(self._descriptor, line[written:])
            os.fsync(self._descriptor)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error


def read_journal(path: Path) -> list[Entry]:
    """Read a journal, wherever it was cut off.

    Lines that are not whole are left out: the last one of a killed run, and what a power failure
    left of others.

    Args:
        path: The file; one that is missing has no lines.

    Raises:
        DataError: It is no regular file, or it cannot be read.
    """
    try:
        content = read_bytes(path, most_bytes=_MOST_BYTES)
    except MissingFileError:
        return []
    entries = []
    for line in content.decode("utf-8", "replace").split("\n"):
        if line.startswith("{") and line.endswith("}"):
            try:
                entries.append(validated(path, parse_json(line), Entry, where=FILE))
            except (ValueError, DataError):
                continue
    return entries


def journals(folder: Path) -> list[Path]:
    """Return the journals of a folder: that of one run, or those of its parts."""
    return sorted(folder.glob("journal*.jsonl"))


def read_journals(folder: Path) -> list[Entry]:
    """Read the journals of a folder, in the order of time.

    Raises:
        DataError: One of them cannot be read.
    """
    return sorted((one for path in journals(folder) for one in read_journal(path)), key=_time)


def _time(entry: Entry) -> float:
    try:
        return datetime.fromisoformat(entry.at).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0


def forget(path: Path, cases: Collection[str]) -> None:
    """Leave out what a journal says of cases that are done anew; without other lines it is removed.

    Args:
        path: The journal, to which nobody writes.
        cases: Names of the cases.

    Raises:
        DataError: It is no regular file, or it cannot be read.
        OSError: The error of the disk.
    """
    entries = read_journal(path)
    kept = [entry for entry in entries if entry.case not in cases]
    if not kept:
        path.unlink(missing_ok=True)
    elif len(kept) < len(entries):
        atomic.write_text(path, "".join(_line(entry) for entry in kept))


def _line(entry: Entry) -> str:
    held = {name: value for name, value in asdict(entry).items() if value is not None}
    return json.dumps(held) + "\n"


def last_entries(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Return what was last said of each case, in the order of their names."""
    last = {entry.case: entry for entry in entries}
    return dict(sorted(last.items()))


@dataclass(frozen=True, slots=True)
class WorkerTally:
    """What a worker did, as the journal has it."""

    worker: str
    done: int
    failed: int
    lost: int
    """Cases in the middle of which it ended."""
    seconds: float
    """Time of the cases that it did."""


def tallies(entries: Iterable[Entry]) -> list[WorkerTally]:
    """Count what each worker did, in the order of their names.

    Example:
        >>> [(one.worker, one.done) for one in tallies([Entry("a", "done", "node1", 2.0)])]
        [('node1', 1)]
    """
    held: dict[str, list[Entry]] = {}
    for entry in entries:
        held.setdefault(entry.worker, []).append(entry)
    return [
        WorkerTally(
            worker,
            sum(one.state == "done" for one in own),
            sum(one.state == "failed" for one in own),
            sum(one.state in ("lost", "aside") for one in own),
            sum(one.seconds or 0.0 for one in own if one.state == "done"),
        )
        for worker, own in sorted(held.items())
    ]
