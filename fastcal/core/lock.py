"""A folder that one process works in at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastcal.core.errors import DataError

LOCK = ".lock"
"""The file that the process holds. It is removed when the work ends."""


@contextmanager
def sole_use(folder: str | Path, work: str) -> Iterator[None]:
    """Hold a folder, so that a second process that asks for it is refused.

    The lock is the operating system's (``flock``): it ends with its process, however that ends. A
    file system that has none leaves the folder unlocked.

    Args:
        folder: The folder, which is made if it is missing.
        work: What is done in it, for the message.

    Raises:
        DataError: Another process holds the folder; the message says which.
        OSError: The folder cannot be made.

    Example:
        >>> with sole_use("runs/ce", "training"):  # doctest: +SKIP
        ...     train()
    """
    folder = Path(folder)
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = None if sys.platform == "win32" else _taken(folder, work)
    try:
        yield
    finally:
        if descriptor is not None:
            # Removed while it is held: whoever has opened it meanwhile finds that it is gone.
            with suppress(OSError):
                (folder / LOCK).unlink()
            os.close(descriptor)
        if made:
            # What was refused before it wrote a file leaves no folder behind.
            with suppress(OSError):
                folder.rmdir()


def _taken(folder: Path, work: str) -> int | None:
    import fcntl

    path = folder / LOCK
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {os.uname().nodename}\n".encode())
                return descriptor
        os.close(descriptor)  # its last holder has just removed it
