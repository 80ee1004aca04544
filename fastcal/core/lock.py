"""A folder that one process works in at a time, or several on a part of their own each."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fastcal.core.errors import DataError

LOCK = ".lock"
"""The file that the process holds. It is removed when the work ends."""


@contextmanager
def sole_use(folder: str | Path, work: str, *, part: str = "") -> Iterator[None]:
    """Hold a folder, so that a second process that asks for it is refused.

    The lock is the operating system's (``flock``): it ends with its process, however that ends. A
    file system that has none, or a folder that may not be written to, stays unlocked.

    Args:
        folder: The folder, which is made if it is missing.
        work: What is done in it, for the message.
        part: The share of the folder that is worked on, such as ``"part-0-of-4"``. Processes may
            hold different parts of a folder at a time; without one, the whole folder is held.

    Raises:
        DataError: Another process holds the folder or the part; the message says which.
        OSError: The folder cannot be made.

    Example:
        >>> with sole_use("runs/ce", "training"):  # doctest: +SKIP
        ...     train()
    """
    folder = Path(folder)
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as held:
            if sys.platform != "win32":
                held.enter_context(_held(folder, LOCK, work, shared=bool(part)))
                if part:
                    held.enter_context(_held(folder, f"{LOCK}-{part}", work, shared=False))
            yield
    finally:
        if made:
            # What was refused before it wrote a file leaves no folder behind.
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def _held(folder: Path, name: str, work: str, *, shared: bool) -> Iterator[None]:
    import fcntl

    descriptor = _taken(folder, name, work, shared=shared)
    try:
        yield
    finally:
        if descriptor is not None:
            # Removed while it is held by this process alone: whoever has opened it meanwhile finds
            # that it is gone.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (folder / name).unlink()
            os.close(descriptor)


def _taken(folder: Path, name: str, work: str, *, shared: bool) -> int | None:
    """The descriptor of a lock that is held; None where there are no locks."""
    import fcntl

    path = folder / name
    while True:
        descriptor = _opened(path)
        if descriptor is None:
            return None
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").strip()
            os.close(descriptor)
            by = f" by {holder}" if holder else ""
            raise DataError(folder, f"is in use{by}: another {work} runs in it") from None
        except OSError:
            os.close(descriptor)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                with suppress(OSError):  # a full disk; the lock holds without its text
                    os.ftruncate(descriptor, 0)
                    holder = f"process {os.getpid()} on {os.uname().nodename}\n"
                    os.pwrite(descriptor, holder.encode(), 0)
                return descriptor
        os.close(descriptor)  # its last holder has just removed it


def _opened(path: Path) -> int | None:
    """The file of a lock, which is made if it is missing; None where it may not be made.

    Raises:
        DataError: What lies there is not a file of this module: it would be written to.
        OSError: The error of the disk.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return None  # the outputs cannot be written either, which names them
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise DataError(
                path, "must be the lock of a command, got a link or a device"
            ) from error
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise DataError(path, "must be the lock of a command, got another file")
    return descriptor
