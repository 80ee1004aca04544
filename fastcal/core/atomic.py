"""Files that appear whole or not at all: written beside their place, then renamed into it."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fastcal.core.doors.writing import remove_leftovers, settle, temporary_beside


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path, and move it onto ``path`` when the block succeeds.

    The temporary path lies in the same folder and keeps every suffix of ``path``, because writers
    choose their format by the suffix. When the block raises, the temporary file is removed and an
    earlier file at ``path`` stays as it was. A power failure leaves the earlier file or the new
    one, whole. What killed processes left in the folder is removed before the first file that this
    process writes there.

    Args:
        path: Where the file belongs. Its folder must exist.

    Yields:
        The path to write to.

    Raises:
        FileNotFoundError: The folder does not exist.
        IsADirectoryError: ``path`` is a folder.
        OSError: The file could not be written or moved into place. The error names ``path``.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "No such folder", str(path.parent))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a folder", str(path))
    temporary = temporary_beside(path)
    _sweep(path.parent.absolute())
    try:
        yield temporary
        settle(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and _lacks_the_users_file(error, temporary):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@cache
def _sweep(folder: Path) -> None:
    """Remove what killed processes left in a folder, before the first file goes there."""
    with suppress(OSError):
        remove_leftovers(folder)


def _lacks_the_users_file(error: OSError, temporary: Path) -> bool:
    """Whether an error names no file (a full disk), or one that the user never sees."""
    unnamed = error.filename is None or str(error.filename) == str(temporary)
    return unnamed and error.errno is not None


def write_text(path: str | Path, text: str) -> None:
    """Write a text as UTF-8, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: object) -> None:
    """Write a value as indented JSON, whole or not at all.

    NaN and infinities become null. NumPy scalars and arrays, paths, tuples and mappings become
    their closest JSON form.

    Raises:
        TypeError: Something in ``value`` has no JSON form.
    """
    write_text(path, json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")


def _plain(value: object) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value
