"""A folder that one process of all machines works in at a time: its holder shows that it lives.

`fastcal.core.lock` asks the operating system, which knows of the processes of one machine, and of
others where the shared file system passes locks on. Many do not. Here the holder changes a file
every few seconds, and who comes second watches whether it does. No clocks are compared: those of
two machines differ.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fastcal.core.doors import parse_json, read_text
from fastcal.core.errors import DataError

FILE = ".heartbeat"
BEAT = 2.0
"""Seconds between two changes of the file."""
PATIENCE = 5
"""Beats without a change after which the holder is dead. A file system may keep what it has read
for some seconds, and answer late."""


@dataclass(frozen=True, slots=True)
class _Sign:
    """What the file says."""

    holder: str
    token: str
    beat: int


class Heart:
    """The holder's side; see `alone`."""

    def __init__(self, folder: Path, path: Path, descriptor: int, every: float) -> None:
        self._folder, self._path, self._descriptor, self._every = folder, path, descriptor, every
        self._token, self._beat = secrets.token_hex(8), 0
        self._other: str | None = None
        self._end = threading.Event()
        try:
            self._write()
        except BaseException:  # nobody would remove it, and the next one would wait for its death
            with suppress(OSError):
                path.unlink()
            os.close(descriptor)
            raise
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Make sure that the folder is still held.

        Raises:
            DataError: Another process took it over, as this one did not answer for too long.
        """
        if self._other is not None:
            raise DataError(self._folder, f"was taken over by {self._other}, which goes on with it")

    def close(self) -> None:
        """Let the folder go."""
        self._end.set()
        self._thread.join()
        with suppress(OSError):
            if self._other is None and self._is_mine():
                self._path.unlink()
        os.close(self._descriptor)

    def _run(self) -> None:
        while not self._end.wait(self._every):
            # A file system that does not answer is no reason to stop: the next beat may succeed.
            with suppress(OSError):
                if not self._is_mine():
                    return
                self._write()

    def _is_mine(self) -> bool:
        sign = _read(self._path)
        if sign is None or sign.token == self._token:
            return True  # one that cannot be read may be late
        self._other = sign.holder
        return False

    def _write(self) -> None:
        self._beat += 1
        sign = {"holder": _holder(), "token": self._token, "beat": self._beat}
        # Of one length, so that a reader never sees the end of an older line.
        line = json.dumps(sign).ljust(240) + "\n"
        os.pwrite(self._descriptor, line.encode("ascii"), 0)
        os.fsync(self._descriptor)


@contextmanager
def alone(
    folder: str | Path, *, name: str = FILE, work: str = "command", every: float | None = None
) -> Iterator[Heart]:
    """Hold a folder against processes of all machines that share it.

    Args:
        folder: The folder, which exists.
        name: The file that tells; one per share of the folder that is worked on apart.
        work: What is done in it, for the message.
        every: Seconds between two signs of life; None for `BEAT`.

    Yields:
        What tells whether the folder is still held.

    Raises:
        DataError: Another process holds the folder; the message says which.
        OSError: The error of the disk.

    Example:
        >>> with alone("predictions") as heart:  # doctest: +SKIP
        ...     heart.check()
    """
    folder = Path(folder)
    path, beat = folder / name, BEAT if every is None else every
    heart = Heart(folder, path, _made(path, work, beat), beat)
    try:
        yield heart
    finally:
        heart.close()


def check_free(folder: str | Path, *, name: str, work: str = "command") -> None:
    """Refuse a folder that another process holds; what a dead one left is removed.

    Args:
        folder: The folder.
        name: The file that tells, which is missing where nobody holds the folder.
        work: What is done in it, for the message.

    Raises:
        DataError: Another process holds the folder; the message says which.
    """
    path = Path(folder) / name
    if path.exists():
        _wait_for_death(path, work, BEAT)


def _made(path: Path, work: str, every: float) -> int:
    """Make the file, after that of a dead holder is out of the way."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    for _ in range(PATIENCE):
        try:
            return os.open(path, flags, 0o666)
        except FileExistsError:
            _wait_for_death(path, work, every)
    raise DataError(path, "cannot be made, because other processes make it again and again")


def _wait_for_death(path: Path, work: str, every: float) -> None:
    """Watch the file of another holder, and remove it if that does not change it.

    Raises:
        DataError: The holder lives.
    """
    first = _read(path)
    end = time.monotonic() + PATIENCE * every
    while time.monotonic() < end:
        time.sleep(every / 4)
        now = _read(path)
        if now is None and not path.exists():
            return
        if now is not None and first is not None and now != first:
            raise DataError(path.parent, f"is in use by {now.holder}: another {work} runs in it")
        first = first or now
    # Renamed before it is removed: of several who wait, one gets it.
    grave = path.with_name(f"{path.name}-{secrets.token_hex(4)}")
    with suppress(FileNotFoundError):
        path.rename(grave)
        buried = _read(grave)
        if buried is not None and first is not None and buried.token != first.token:
            with suppress(FileExistsError):  # somebody else's, who was faster: it goes back
                os.link(grave, path)
        grave.unlink()


def _read(path: Path) -> _Sign | None:
    """Return what the file says; None where it is missing, or not whole."""
    try:
        content = parse_json(read_text(path, most_bytes=4096))
        return _Sign(str(content["holder"]), str(content["token"]), int(content["beat"]))
    except (ValueError, KeyError, TypeError):
        return None


def _holder() -> str:
    return f"process {os.getpid()} on {platform.node()[:100]}"
