"""The gate of NumPy's npy format: the header is matched, never evaluated."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from fastcal.core.doors.bounds import array_bytes, check_claim, size
from fastcal.core.doors.failures import clean, one_error
from fastcal.core.doors.opening import RegularFile, open_regular
from fastcal.core.errors import DataError

Array = npt.NDArray[Any]

NUMBERS = "biuf"
"""Kinds of dtypes that are real numbers: bool, signed, unsigned, floating."""

_PIECE = 1 << 22
_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000
_ITEM = (
    r"""['"]descr['"]\s*:\s*['"](?P<descr>[<>|=]?[a-zA-Z]\d{0,8})['"]""",
    r"""['"]fortran_order['"]\s*:\s*(?P<fortran>True|False)""",
    r"""['"]shape['"]\s*:\s*\((?P<shape>(?:\s*+\d{1,20}+L?+\s*+(?:,|(?=\)))){0,32}+)\s*+\)""",
)
_ITEMS = tuple(re.compile(item) for item in _ITEM)
_ANY_ITEM = "|".join(re.sub(r"\?P<\w+>", "?:", item) for item in _ITEM)
# Possessive throughout: a header that does not match must not be tried in every other way.
_HEADER = re.compile(rf"\{{\s*+(?:(?:{_ANY_ITEM})\s*+,?+\s*+){{3}}\}}\s*+")


@dataclass(frozen=True)
class NpyHeader:
    """What stands before the numbers."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    length: int
    """Bytes of the header itself."""

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers."""
        return array_bytes(self.shape, self.dtype.itemsize)


def read_npy_header(stream: IO[bytes], *, kinds: str = NUMBERS) -> NpyHeader:
    """Read the header of an npy stream.

    NumPy evaluates it as a Python expression. Here it is matched against the three entries that
    NumPy writes, so that there is nothing in it to nest or to expand.

    Args:
        stream: At the start of the npy content; left behind the header.
        kinds: The kinds of dtype that are allowed, of NumPy's ``dtype.kind``.

    Raises:
        ValueError: It is no such header, or its numbers are of another kind.
    """
    start = stream.read(8)
    if len(start) < 8 or not start.startswith(_MAGIC):
        raise ValueError("not an array in NumPy's format")
    if start[6] not in (1, 2, 3):
        raise ValueError(f"the format's version must be 1, 2 or 3, got {start[6]}")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"the header must have at most {_LONGEST_HEADER} bytes, got {length}")
    raw = stream.read(length)
    text = raw.decode("utf-8" if start[6] == 3 else "latin1")
    if len(raw) < length or not _HEADER.fullmatch(text):
        raise ValueError(f"an array header that says {clean(text)[:80]!r}")
    found = [item.search(text) for item in _ITEMS]
    if None in found:
        raise ValueError("an array header without dtype, order or shape")
    descr, fortran, shape = (match[1] for match in found if match is not None)
    extents = tuple(int(extent.rstrip("L")) for extent in re.findall(r"\d+L?", shape))
    dtype = np.dtype(descr)
    if dtype.kind not in kinds or not dtype.itemsize:
        raise ValueError(f"the dtype must be of the kind {' or '.join(kinds)}, got {dtype.str}")
    return NpyHeader(extents, dtype, fortran == "True", 8 + width + length)


def npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """What stands before the numbers of an array in C order.

    Example:
        >>> len(npy_header((2, 3), np.dtype(np.float32)))
        128
    """
    made = io.BytesIO()
    described = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(made, described)
    return made.getvalue()


def read_array(stream: IO[bytes], header: NpyHeader) -> Array:
    """Read the numbers behind a header, whose size the caller has checked.

    Raises:
        ValueError: There are fewer bytes, or more.
    """
    flat = np.empty(header.nbytes, np.uint8)
    view = flat.data
    # Straight into the array; every stream that is read here is a buffered one.
    readinto: Callable[[memoryview], int] = stream.readinto  # type: ignore[attr-defined]
    filled = 0
    while filled < header.nbytes:
        # In pieces: memory that is only promised costs nothing until bytes arrive.
        count = readinto(view[filled : filled + _PIECE])
        if not count:
            raise ValueError(f"must hold {size(header.nbytes)}, got {size(filled)}")
        filled += count
    if stream.read(1):
        raise ValueError("more bytes than the header says")
    values: Array = flat.view(header.dtype)
    return values.reshape(header.shape, order="F" if header.fortran else "C")


def map_array(stream: IO[bytes], header: NpyHeader, offset: int) -> Array:
    """Map the numbers of an open file, copied where they are written to.

    Args:
        stream: The file, which may be closed afterwards.
        header: Of the array.
        offset: Where in the file the numbers begin.
    """
    order: Any = "F" if header.fortran else "C"
    if not header.nbytes:
        return np.empty(header.shape, header.dtype, order)
    source: Any = stream
    return np.memmap(source, header.dtype, "c", offset, header.shape, order)


def npy_place(
    path: str | Path, *, kinds: str = NUMBERS, most_bytes: int | None = None
) -> tuple[NpyHeader, int]:
    """Return the header of an ``.npy`` file, and where its numbers begin.

    Args:
        path: The file.
        kinds: The kinds of dtype that are allowed.
        most_bytes: The most that the caller expects; None is what the file has.

    Raises:
        MissingFileError: There is no such file.
        DataError: It is no npy file, or its header does not agree with its size.
    """
    with open_regular(path) as file, one_error(path, "an array in NumPy's format"):
        return _checked_header(file, kinds, most_bytes)


def read_npy(path: str | Path, *, kinds: str = NUMBERS, most_bytes: int | None = None) -> Array:
    """Map an ``.npy`` file; what is written to the array stays in memory.

    Args:
        path: The file.
        kinds: The kinds of dtype that are allowed.
        most_bytes: The most that the caller expects; None is what the file has.

    Raises:
        MissingFileError: There is no such file.
        DataError: It is no npy file, or its header does not agree with its size.

    Example:
        >>> read_npy("prepared/case_1.image.npy").shape  # doctest: +SKIP
        (8, 1, 176, 176)
    """
    with open_regular(path) as file, one_error(path, "an array in NumPy's format"):
        header, start = _checked_header(file, kinds, most_bytes)
        return map_array(file.stream, header, start)


def _checked_header(file: RegularFile, kinds: str, most_bytes: int | None) -> tuple[NpyHeader, int]:
    header = read_npy_header(file.stream, kinds=kinds)
    check_claim(header.nbytes, most=most_bytes, what="the array", in_memory=False)
    if header.length + header.nbytes != file.size:
        raise DataError(
            file.path,
            f"its array must take {size(header.nbytes)} by its header, got "
            f"{size(file.size - header.length)}",
        )
    return header, header.length
