"""Whatever a reader of foreign bytes raises becomes one `DataError` that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastcal.core.doors.bounds import ClaimError
from fastcal.core.errors import DataError

_LONGEST = 200
"""Characters of a parser's own words that a message quotes."""


class MissingFileError(DataError):
    """There is no such file; its own class, since for some callers that is no fault."""


@contextmanager
def one_error(path: str | Path, kind: str) -> Iterator[None]:
    """Turn whatever the block raises into a `DataError` of ``path``.

    Parsers of third parties fail on hostile bytes in more ways than they document: zlib, lzma and
    zipfile have errors of their own, and there are `RecursionError`, `OverflowError`,
    `NotImplementedError`, ``tokenize.TokenError`` and `KeyError`. So every `Exception` counts as
    the file's fault here, and the block holds nothing but the reading of that file. Interrupts
    pass.

    Args:
        path: The file that the block reads.
        kind: What the file should be, with its article: ``"a JSON file"``.

    Raises:
        DataError: The block failed; a `DataError` of its own passes unchanged.

    Example:
        >>> with one_error("a.json", "a JSON file"):
        ...     [][0]
        Traceback (most recent call last):
        fastcal.core.errors.DataError: a.json: damaged, or not a JSON file (list index out of range)
    """
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise MissingFileError(path, "no such file") from None
    except Exception as error:
        raise DataError(path, problem(error, kind)) from error


def problem(error: BaseException, kind: str) -> str:
    """What is wrong with a file, in one plain sentence.

    Args:
        error: What its reader raised.
        kind: What the file should be, with its article.
    """
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error)[:10_000]:
        return "needs more memory than there is"
    if isinstance(error, ClaimError):
        return words(error)
    if isinstance(error, RecursionError):
        return f"nested too deeply for {kind}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    reason = words(error)
    return f"damaged, or not {kind}" + (f" ({reason})" if reason else "")


def words(error: BaseException) -> str:
    """An error's own text as one short line without control characters.

    A file's bytes may be quoted in it, and what is printed must not steer a terminal.
    """
    if isinstance(error, KeyError):
        return f"no {shown(error.args[0])}" if error.args else "something is missing"
    try:
        text = str(error)
    except Exception:
        text = ""
    return clean(text or type(error).__name__)


def clean(text: str) -> str:
    """Text as one line of at most 200 printable characters."""
    line = " ".join(text[: 4 * _LONGEST].split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 6]} [cut]"


def shown(value: object) -> str:
    """A value that came out of a file, for a message: short, on one line.

    Example:
        >>> shown(True), shown([1, 2, 3]), shown("x" * 300)[-5:]
        ('True', 'a list of 3', 'xx...')
    """
    if isinstance(value, list | tuple | dict | set):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, int) and abs(value) >= 10**30:
        return "an integer of more than 30 digits"
    if isinstance(value, str | bytes):
        return clean(repr(value[:100]))[:60] + ("..." if len(value) > 58 else "")
    if isinstance(value, bool | int | float | None):
        return repr(value)
    return f"a {type(value).__name__}"
