"""Files are opened here: regular ones alone, without waiting, and read up to a stated size."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fastcal.core.doors.bounds import MIB, size
from fastcal.core.doors.failures import one_error
from fastcal.core.errors import DataError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)


@dataclass(frozen=True, eq=False)
class RegularFile:
    """A regular file that is open for reading."""

    path: Path
    stream: BinaryIO
    size: int
    """Bytes when it was opened."""
    mtime_ns: int
    """Time of its last change, in nanoseconds."""


@contextmanager
def open_regular(path: str | Path) -> Iterator[RegularFile]:
    """Open a regular file for reading.

    A FIFO, socket, device or folder is refused. None of them is opened: opening a FIFO waits for
    its writer, and opening some devices does something to them. The kind is looked at again after
    the opening, in case another file took the place in between.

    Args:
        path: The file; links are followed.

    Yields:
        The open file, which is closed when the block ends.

    Raises:
        MissingFileError: There is no such file.
        DataError: It is no regular file, or it cannot be opened.
    """
    path = Path(path)
    with one_error(path, "a file"):
        _check_kind(path, os.stat(path).st_mode)  # noqa: PTH116 - as os.open below
        descriptor = os.open(path, _FLAGS)
        try:
            found = os.fstat(descriptor)
            _check_kind(path, found.st_mode)
            stream = os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise
    with stream:
        yield RegularFile(path, stream, found.st_size, found.st_mtime_ns)


def read_bytes(path: str | Path, *, most_bytes: int = 64 * MIB) -> bytes:
    """Read a whole regular file of at most ``most_bytes``.

    Raises:
        MissingFileError: There is no such file.
        DataError: It is no regular file, it is too large, or it cannot be read.
    """
    with open_regular(path) as file, one_error(path, "a file"):
        if file.size > most_bytes:
            raise DataError(path, f"must have at most {size(most_bytes)}, got {size(file.size)}")
        # One byte more: a file may grow, and those of /proc say that they are empty.
        content = file.stream.read(most_bytes + 1) if not file.size else _read(file, most_bytes)
        if len(content) > most_bytes:
            raise DataError(path, f"must have at most {size(most_bytes)}, got more")
        return content


def read_text(path: str | Path, *, most_bytes: int = 64 * MIB) -> str:
    """Read a whole UTF-8 text file, with or without a byte order mark.

    Raises:
        MissingFileError: There is no such file.
        DataError: It is no regular file, it is too large, or it is no UTF-8 text.
    """
    content = read_bytes(path, most_bytes=most_bytes)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(path, f"not UTF-8 text (byte {error.start})") from error


def _read(file: RegularFile, most_bytes: int) -> bytes:
    return file.stream.read(min(file.size, most_bytes) + 1)


def _check_kind(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _KINDS if test(mode)), "something else")
        raise DataError(path, f"must be a regular file, got {kind}")
