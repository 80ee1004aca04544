"""Files that appear whole, last through a power failure, and leave nothing behind a kill.

The rules, for whoever writes a file beside its place and renames it:

1. The temporary file lies in the same folder, since a rename does not cross file systems. Its
   name is `temporary_beside`: at most 240 bytes, with the suffixes of the file (writers choose
   the format by them), and with the machine, process and start time of its writer.
2. Its bytes are on the disk before the rename, and the rename before anything relies on it:
   `settle` syncs the file, renames it and syncs the folder. Without the first, a power failure
   leaves an empty file under the final name.
3. A kill leaves the temporary file. The next run calls `remove_leftovers` for each folder it
   writes to: it removes what a process of this machine left that no longer runs, and what nobody
   has touched for a day.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import socket
import stat
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

_LONGEST_NAME = 240
"""Bytes. File systems take 255, of which some encrypting ones need a part."""

_NAME = re.compile(r"\.tmp-(?P<machine>[0-9a-f]{8})-(?P<pid>\d{1,10})-(?P<start>\d{1,20})-.+")
_ABANDONED_AFTER = 24 * 3600
"""Seconds. No file takes a day to write, so one of another machine is dead by then."""

_LONGEST_SUFFIX = 40

_PAUSES = (0.05, 0.2, 0.5, 1.0, 2.0)
"""Seconds between two looks at whether a renamed file has arrived."""


def temporary_beside(path: str | Path) -> Path:
    """A name beside ``path`` that tells which process is writing.

    Args:
        path: Where the file belongs.

    Example:
        >>> temporary_beside("out/case_1.nii.gz").name  # doctest: +SKIP
        '.tmp-5f0c1d2e-4711-88123-9ac3f1-case_1.nii.gz'
    """
    path = Path(path)
    start = f".tmp-{_machine()}-{os.getpid()}-{_started(os.getpid()) or 0}-{secrets.token_hex(3)}-"
    return path.with_name(start + _shortened(path.name, _LONGEST_NAME - len(start)))


def settle(temporary: Path, path: Path) -> None:
    """Move a finished temporary file into place so that a power failure leaves the old or the new.

    A shared file system may move the file and lose its answer, say that it has moved one that is
    still there, or show it late. What counts is where the file is.

    Args:
        temporary: The file, written and closed.
        path: Where it belongs, in the same folder.

    Raises:
        OSError: The disk's own error, or the file is in neither place.
    """
    sync(temporary)
    written = temporary.stat()
    for pause in _PAUSES:
        try:
            temporary.replace(path)
        except FileNotFoundError:
            # The request was sent twice and this answers the second, or the first is under way.
            if path.exists() and not _is_same(path, written):
                raise
        if path.exists() and not temporary.exists():
            break
        time.sleep(pause)
    else:
        raise OSError(errno.EIO, "The file system did not keep a renamed file", str(path))
    sync_folder(path.parent)


def _is_same(path: Path, written: os.stat_result) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return os.path.samestat(found, written) and found.st_size == written.st_size


def sync(path: Path) -> None:
    """Wait until the bytes of a closed file are on the disk.

    Args:
        path: The file.

    Raises:
        OSError: The disk's own error, which may be that it is full.
    """
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can do that.

    Args:
        folder: The folder.
    """
    if sys.platform == "win32":
        return
    # Some network file systems refuse it; they write names at once.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Remove the temporary files that killed processes left in a folder.

    A file is left over if its process ran on this machine and is gone, or if it was last changed
    more than a day ago. Files of processes that live, and of other machines that share the
    folder, stay. A file that cannot be removed stays too.

    Args:
        folder: The folder; its subfolders are not looked at. It may be missing.

    Returns:
        What was removed, sorted.
    """
    removed = []
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    now: float | None = None
    for entry in entries:
        match = _NAME.fullmatch(entry.name)
        if match is None:
            continue
        now = _clock_of(Path(folder)) if now is None else now
        with suppress(OSError):
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) and _is_left_over(match, now - found.st_mtime):
                os.unlink(entry.path)  # noqa: PTH108 - an entry of os.scandir
                removed.append(Path(entry.path))
    return sorted(removed)


def _clock_of(folder: Path) -> float:
    """What time it is where the files are: the clock of this machine may be days away from it."""
    probe = temporary_beside(folder / "clock")
    try:
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()
    except OSError:
        return time.time()


def _is_left_over(name: re.Match[str], age: float) -> bool:
    if age > _ABANDONED_AFTER:
        return True
    if name["machine"] != _machine():
        return False
    pid, start = int(name["pid"]), int(name["start"])
    if not _runs(pid):
        return True
    # Another process may have got the number since.
    running = _started(pid)
    return bool(start and running) and start != running


def _runs(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # os.kill would end it there; the day decides
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _started(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did; None where /proc is missing."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as listing:  # noqa: PTH123
            fields = listing.read().rpartition(b")")[2].split()
        return int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


@cache
def _machine() -> str:
    """Eight digits for host, boot and process namespace: what makes a process number unique."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
    with suppress(OSError, AttributeError):
        parts.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115 - no path, a mark
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _shortened(name: str, most: int) -> str:
    """The end of a name, suffixes included, cut between characters."""
    raw = os.fsencode(name)
    if len(raw) <= most:
        return name
    dot = name.find(".", max(0, len(name) - _LONGEST_SUFFIX))
    suffix = name[dot:] if dot > 0 else ""
    kept = os.fsencode(name[: len(name) - len(suffix)])[: most - len(os.fsencode(suffix))]
    return kept.decode(sys.getfilesystemencoding(), "ignore") + suffix
