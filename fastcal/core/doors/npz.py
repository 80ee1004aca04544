"""The gate of NumPy's npz: arrays of plain numbers out of a checked archive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fastcal.core.doors.archive import Archive, Member, open_archive
from fastcal.core.doors.bounds import KIB, check_claim, size
from fastcal.core.doors.npy import (
    NUMBERS,
    Array,
    NpyHeader,
    map_array,
    read_array,
    read_npy_header,
)


@dataclass(frozen=True, slots=True)
class ArchivePlace:
    """An array of an archive that was not read yet."""

    header: NpyHeader
    member: Member


class Npz:
    """Arrays of an open npz file. Made by `open_npz`."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.names = frozenset(
            name.removesuffix(".npy") for name in archive.names if name.endswith(".npy")
        )

    def array(
        self,
        name: str,
        *,
        kinds: str = NUMBERS,
        most_bytes: int | None = None,
        mapped: bool = False,
    ) -> Array:
        """An array by its name.

        Args:
            name: Without the ``.npy``.
            kinds: The kinds of dtype that are allowed.
            most_bytes: The most that the caller expects; None is what the compressed bytes can
                hold and this machine's memory.
            mapped: Map an array that is stored uncompressed, once its checksum agrees.

        Raises:
            KeyError: There is no such array.
            ValueError: It is damaged, of another kind, or too large.
        """
        member = self._archive.member(f"{name}.npy")
        with member.open() as stream:
            header = _header(name, member, stream, kinds)
            maps = mapped and member.stored
            check_claim(header.nbytes, most=most_bytes, what=name, in_memory=not maps)
            if not maps:
                return read_array(stream, header)
        # The checksum costs one read, which leaves the pages in the cache.
        member.check()
        return map_array(self._archive.stream, header, member.start + header.length)

    def place(self, name: str, *, kinds: str = NUMBERS) -> ArchivePlace:
        """Where an array lies and what it holds; its numbers are not read.

        Raises:
            KeyError: There is no such array.
            ValueError: It is damaged, or of another kind.
        """
        member = self._archive.member(f"{name}.npy")
        with member.open() as stream:
            return ArchivePlace(_header(name, member, stream, kinds), member)

    def text(self, name: str, *, most_bytes: int = 64 * KIB) -> str:
        """A text that is stored as an array without axes.

        Raises:
            KeyError: There is no such array.
            ValueError: It is no text, or too long.
        """
        found = self.array(name, kinds="U", most_bytes=4 * most_bytes)
        if found.shape != ():
            raise ValueError(f"{name} must be one text, got an array of shape {found.shape}")
        return str(found)


def _header(name: str, member: Member, stream: IO[bytes], kinds: str) -> NpyHeader:
    header = read_npy_header(stream, kinds=kinds)
    if header.length + header.nbytes != member.size:
        raise ValueError(
            f"{name} must take {size(header.nbytes)} by its header, got "
            f"{size(member.size - header.length)}"
        )
    return header


@contextmanager
def open_npz(path: str | Path) -> Iterator[Npz]:
    """Open an npz file.

    Args:
        path: The file.

    Yields:
        Its arrays. Whatever the block raises becomes a `DataError` of ``path``.

    Raises:
        MissingFileError: There is no such file.
        DataError: It is no npz file, or it is damaged.

    Example:
        >>> with open_npz("fold_0/case_1.npz") as arrays:  # doctest: +SKIP
        ...     arrays.array("probabilities", kinds="f").shape
        (4, 8, 176, 176)
    """
    with open_archive(path, "an npz file") as archive:
        yield Npz(archive)


def read_npz(
    path: str | Path, names: Sequence[str], *, kinds: str = NUMBERS, most_bytes: int | None = None
) -> dict[str, Array]:
    """Read arrays of an npz file by their names.

    Args:
        path: The file.
        names: Of the arrays, all of which must be there.
        kinds: The kinds of dtype that are allowed.
        most_bytes: The most that the caller expects of each array.

    Raises:
        MissingFileError: There is no such file.
        DataError: An array is missing, damaged or too large.
    """
    with open_npz(path) as arrays:
        return {name: arrays.array(name, kinds=kinds, most_bytes=most_bytes) for name in names}
