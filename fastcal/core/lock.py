"""A folder that one process works in at a time, or several on a part of their own each."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fastcal.core.errors import DataError
from fastcal.core.heartbeat import Heart, alone, check_free

LOCK = ".lock"
"""The file that the process holds. It is removed when the work ends."""


HEARTBEAT = ".heartbeat"
"""Ends the name of the file that shows to other machines that the holder of a lock lives."""
_NAME = re.compile(rf"{re.escape(LOCK)}(?:-(part-\d+-of-(\d+)))?")


@contextmanager
def sole_use(
    folder: str | Path, work: str, *, part: str = "", machines: bool = False
) -> Iterator[Heart | None]:
    """Hold a folder, so that a second process that asks for it is refused.

    The lock is the operating system's (``flock``): it ends with its process, however that ends. On
    a file system that has none, the holder shows that it lives instead, see
    `fastcal.core.heartbeat`. A folder that may not be written to stays unlocked.

    Args:
        folder: The folder, which is made if it is missing.
        work: What is done in it, for the message.
        part: The share of the folder that is worked on, ``"part-K-of-N"``. Processes may hold
            different parts of the same N at a time; without one, the whole folder is held.
        machines: Also show signs of life where there is a lock: not every file system that has
            locks passes them on to other machines.

    Yields:
        What tells whether the folder is still held; None where the lock alone holds it.

    Raises:
        DataError: Another process holds the folder or the part; the message says which.
        OSError: The folder cannot be made, or the error of the disk.

    Example:
        >>> with sole_use("runs/ce", "training"):  # doctest: +SKIP
        ...     train()
    """
    folder = Path(folder)
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as held:
            locked = _lock(held, folder, work, part)
            yield _show_life(held, folder, work, part, machines=machines or locked is False)
    finally:
        if made:
            # What was refused before it wrote a file leaves no folder behind.
            with suppress(OSError):
                folder.rmdir()


def _lock(held: ExitStack, folder: Path, work: str, part: str) -> bool | None:
    """Take the locks; False where the file system has none, None where nothing may be written."""
    if sys.platform == "win32":
        return None
    locked = held.enter_context(_held(folder, LOCK, work, shared=bool(part)))
    if locked and part:
        own = f"{LOCK}-{part}"
        locked = held.enter_context(_held(folder, own, work, shared=False))
        for other, told in _others(folder, own, work):
            with _held(folder, other, told, shared=False):
                pass  # nobody holds it
    return locked


def _show_life(
    held: ExitStack, folder: Path, work: str, part: str, *, machines: bool
) -> Heart | None:
    """Begin to show life where that is wanted, and make sure that nobody else does."""
    own = f"{LOCK}-{part}" if part else LOCK
    heart = None
    if machines:
        heart = held.enter_context(alone(folder, name=own + HEARTBEAT, work=work))
    else:
        check_free(folder, name=own + HEARTBEAT, work=work)
    for other, told in _others(folder, own, work, ending=HEARTBEAT):
        check_free(folder, name=other + HEARTBEAT, work=told)
    return heart


def _others(folder: Path, own: str, work: str, *, ending: str = "") -> Iterator[tuple[str, str]]:
    """Locks that cannot be held beside one's own, those of another number of parts, with the work.

    One's own is taken before: of two that begin at once, each sees the other.
    """
    mine = _NAME.fullmatch(own)
    for path in sorted(folder.glob(f"{LOCK}*{ending}")):
        found = _NAME.fullmatch(path.name.removesuffix(ending))
        if found is None or mine is None or found[2] == mine[2]:
            continue
        if ending or found[2] is not None:  # the whole folder's lock is shared by all parts
            yield found[0], f"{work} of {found[1]}" if found[1] else work


@contextmanager
def _held(folder: Path, name: str, work: str, *, shared: bool) -> Iterator[bool | None]:
    import fcntl

    descriptor = _taken(folder, name, work, shared=shared)
    if descriptor is None or descriptor == _NO_LOCKS:
        yield None if descriptor is None else False
        return
    try:
        yield True
    finally:
        # Removed while it is held by this process alone: whoever has opened it meanwhile finds
        # that it is gone.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (folder / name).unlink()
        os.close(descriptor)


_NO_LOCKS = -1


def _taken(folder: Path, name: str, work: str, *, shared: bool) -> int | None:
    """The descriptor of a lock that is held; ``_NO_LOCKS``, or None where it may not be made."""
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
            with suppress(OSError):
                path.unlink()
            return _NO_LOCKS
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
