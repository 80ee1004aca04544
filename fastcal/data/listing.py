"""Which files of a folder are cases: hidden rubbish is none, and no case is there twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from fastcal.core.doors import open_regular
from fastcal.core.errors import DataError

_APPLE_DOUBLE = b"\x00\x05\x16\x07"
"""First bytes of the files that macOS leaves beside others on foreign disks."""


def entries(folder: Path, ending: str = "") -> Iterator[Path]:
    """Give the entries of a folder whose names end so; those that begin with a dot, too.

    Left out are temporary files of fastcal, and the ``._NAME`` that macOS writes beside NAME.

    Args:
        folder: The folder, which may be missing; its subfolders are not looked at.
        ending: End of the names.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.endswith(ending) and not _is_rubbish(path):
            yield path


def by_case(files: Iterable[tuple[str, Path]], what: str) -> dict[str, Path]:
    """Return the file of each case, sorted by name.

    Args:
        files: Names of cases with their files.
        what: What a file is, for the message.

    Raises:
        DataError: A case has two files; the message names both.
    """
    found: dict[str, Path] = {}
    for case, path in sorted(files):
        if case in found:
            raise twice(path, found[case], what)
        found[case] = path
    return found


def check_once(path: Path, ending: str, endings: Iterable[str], what: str) -> None:
    """Refuse a file that is there in another format, too.

    Args:
        path: The file, whose name ends with ``ending``.
        ending: Its ending.
        endings: Endings of all formats.
        what: What the file is, for the message.

    Raises:
        DataError: There is another; the message names both.
    """
    for other in endings:
        second = path.with_name(path.name.removesuffix(ending) + other)
        if other != ending and second.exists():
            raise twice(second, path, what)


def check_text(case: str, folder: Path) -> None:
    """Refuse a case whose name is no text: JSON could not be read again, and no page shows it.

    Args:
        case: The name, from a file system that takes any bytes.
        folder: Where its file lies.

    Raises:
        DataError: It is not UTF-8.
    """
    try:
        case.encode()
    except UnicodeEncodeError:
        raise DataError(folder, f"must hold cases whose names are UTF-8, got {case!r}") from None


def twice(path: Path, first: Path, what: str) -> DataError:
    """Return the error of a case that is there twice."""
    return DataError(path, f"is a second {what} beside {first.name}; only one may be there")


def _is_rubbish(path: Path) -> bool:
    if path.name.startswith(".tmp-"):
        return True
    if not path.name.startswith("._"):
        return False
    if path.with_name(path.name[2:]).exists():
        return True
    try:
        with open_regular(path) as file:
            return file.stream.read(len(_APPLE_DOUBLE)) == _APPLE_DOUBLE
    except DataError:
        return False
