"""Arrays ``[C, S0, S1, S2]`` in files that are read slab by slab, along the first axis of space."""

from __future__ import annotations

import math
import mmap
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcal.core.doors import (
    MissingFileError,
    check_claim,
    framed,
    gzip_reader,
    one_error,
    open_regular,
    read_json,
)
from fastcal.core.errors import DataError

Cut: TypeAlias = tuple[int, int]
"""First place along S0, and the one behind the last."""

_PIECE = 1 << 18
"""Bytes that come out of a stream at a time."""

_INPUT = 1 << 15
"""Compressed bytes that are read at a time. zlib copies what it has not used yet, so that more of
them would cost more than they save."""

STREAM_BYTES = 80 << 10
"""Memory of one inflating stream: zlib's window and tables (44 KiB), and what it has read."""


class Stored(Protocol):
    """Numbers in a file, of which slabs are read in order."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C, S0, S1, S2)``."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Their type in memory."""

    @property
    def fixed_bytes(self) -> int:
        """Memory that reading takes beside the slabs."""

    def slabs(self, cuts: Sequence[Cut]) -> Iterator[NDArray[Any]]:
        """Give ``[C, n, S1, S2]`` for parts of S0 that follow one another and cover it.

        Raises:
            DataError: The file cannot be read, or is damaged; the message names it.
        """


@dataclass(frozen=True)
class Mapped:
    """Numbers that are not compressed. They are mapped for as long as a slab is copied."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    """Where in the file they begin."""
    fortran: bool = False
    fixed_bytes: int = 0

    def slabs(self, cuts: Sequence[Cut]) -> Iterator[NDArray[Any]]:
        """Give the slabs."""
        for start, stop in cuts:
            yield self._slab(start, stop)

    def _slab(self, start: int, stop: int) -> NDArray[Any]:
        order: Any = "F" if self.fortran else "C"
        made = np.empty((self.shape[0], stop - start, *self.shape[2:]), self.dtype)
        with open_regular(self.path) as file, one_error(self.path, "an array"):
            mapped = mmap.mmap(file.stream.fileno(), 0, access=mmap.ACCESS_READ)
            whole = np.ndarray(self.shape, self.dtype, mapped, self.offset, None, order)
            # The last axis is the slowest of Fortran's order. What was copied is let go, so that
            # the pages of a file that is read across its order do not add up.
            axis = 3 if self.fortran else 0
            for place in range(self.shape[axis]):
                index: Any = (*(slice(None),) * axis, place)
                made[index] = whole[:, start:stop][index]
                if hasattr(mapped, "madvise"):
                    mapped.madvise(mmap.MADV_DONTNEED)
        return made


@dataclass(frozen=True)
class Inflated:
    """Numbers in C order in a deflate stream, as npz and ``.nii.gz`` files hold them.

    Every class lies behind the one before it, so a slab needs all places of the stream that a class
    begins at. Where there are several slabs, the stream is read once to its end, which checks it,
    and the state of the decompression at the beginning of each class is kept; from there one
    stream per class goes on.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int
    """Where in the file the deflate or gzip stream begins."""
    length: int
    """Its compressed bytes."""
    before: int
    """Bytes that come out before the first number."""
    checksum: int | None = None
    """CRC-32 of all that comes out of a deflate stream; None for gzip, which brings its own."""
    fortran: bool = False
    """In Fortran's order, which can be read only as a whole."""

    @property
    def fixed_bytes(self) -> int:
        """Memory of one stream per class."""
        return (self.shape[0] + 1) * STREAM_BYTES + 2 * _PIECE

    def slabs(self, cuts: Sequence[Cut]) -> Iterator[NDArray[Any]]:
        """Give the slabs."""
        row = math.prod(self.shape[2:]) * self.dtype.itemsize
        if len(cuts) == 1:
            yield self._whole(row * self.shape[0] * self.shape[1])
            return
        if self.fortran:
            raise DataError(
                self.path, "is compressed in Fortran order, which is read only as a whole"
            )
        with self._opened() as stream:
            places = self._index(stream, row * self.shape[1])
            for start, stop in cuts:
                made = np.empty((self.shape[0], stop - start, *self.shape[2:]), self.dtype)
                with one_error(self.path, "an array"):
                    for place, values in zip(places, made, strict=True):
                        place.fill(values.data.cast("B"))
                yield made
                del made, values

    def _whole(self, n_bytes: int) -> NDArray[Any]:
        """Inflate everything at full speed, which needs one stream from beginning to end."""
        made = np.empty(self.shape, self.dtype, order="F" if self.fortran else "C")
        memory = (made.T if self.fortran else made).data.cast("B") if n_bytes else b""
        with self._opened() as file, one_error(self.path, "a compressed array"):
            packed = file
            if self.checksum is not None:
                size = self.before + n_bytes
                place = (file, self.start, self.length)
                packed = framed(*place, size=size, checksum=self.checksum)
            with gzip_reader(packed) as stream:
                stream.read(self.before)
                filled = 0
                while filled < n_bytes:
                    count = stream.readinto(memory[filled : filled + (1 << 22)])
                    if not count:
                        raise ValueError("ends before its last number")
                    filled += count
                more = 0
                while piece := stream.read(_PIECE):
                    more += len(piece)
                    if more > (0 if self.checksum is not None else n_bytes + (1 << 20)):
                        raise ValueError("goes on behind its last number")
        return made

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        with ExitStack() as stack:
            file = stack.enter_context(open_regular(self.path))
            yield file.stream

    def _index(self, stream: IO[bytes], class_bytes: int) -> list[_Place]:
        """Read the stream to its end, and return the place where each class begins."""
        with one_error(self.path, "a compressed array"):
            end = self.start + self.length
            place = _Place(stream, self.start, end, raw=self.checksum is not None)
            found = crc = 0
            crc = zlib.crc32(place.take(self.before), crc)
            places = []
            for _ in range(self.shape[0]):
                places.append(place.copy())
                left = class_bytes
                while left:
                    piece = place.take(min(left, _PIECE))
                    crc, found, left = zlib.crc32(piece, crc), found + len(piece), left - len(piece)
            place.end(self.before + found)
            if self.checksum is not None and crc != self.checksum:
                raise ValueError("its checksum differs")
            return places


class _Place:
    """A place in a deflate or gzip stream, from which inflating can go on.

    zlib, since isal cannot copy the state of a decompression.
    """

    def __init__(self, stream: IO[bytes], at: int, end: int, *, raw: bool) -> None:
        self._stream, self._at, self._end, self._raw = stream, at, end, raw
        self._inflater: Any = self._new()
        self._waiting = b""

    def copy(self) -> _Place:
        """Return this place once more. What has been read but not inflated is read again."""
        other = _Place(self._stream, self._at - len(self._waiting), self._end, raw=self._raw)
        other._inflater = self._inflater.copy()
        return other

    def take(self, count: int) -> bytes:
        """Inflate some bytes.

        Raises:
            ValueError: The stream ends before.
        """
        pieces = []
        while count:
            piece = self._some(count)
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def fill(self, memory: memoryview) -> None:
        """Inflate into memory until it is full.

        Raises:
            ValueError: The stream ends before.
        """
        filled = 0
        while filled < len(memory):
            piece = self._some(min(len(memory) - filled, _PIECE))
            memory[filled : filled + len(piece)] = piece
            filled += len(piece)

    def end(self, taken: int) -> None:
        """Read on to the end of the stream, so that its checksum is compared.

        Raises:
            ValueError: Much more follows than there was, or the stream is cut.
        """
        more = 0
        while True:
            piece = self._read(_PIECE)
            more += len(piece)
            if more > (0 if self._raw else taken + (1 << 20)):
                raise ValueError("goes on behind its last number")
            if not piece and self._inflater.eof and (self._raw or not self._next()):
                return

    def _some(self, most: int) -> bytes:
        while not (piece := self._read(most)):
            if self._inflater.eof and (self._raw or not self._next()):
                raise ValueError("ends before its last number")
        return piece

    def _read(self, most: int) -> bytes:
        """Inflate up to ``most`` bytes; none where the stream has ended, or needs more input."""
        if self._inflater.eof:
            return b""
        if not self._waiting:
            self._stream.seek(self._at)
            self._waiting = self._stream.read(min(_INPUT, self._end - self._at))
            self._at += len(self._waiting)
            if not self._waiting:
                piece: bytes = self._inflater.decompress(b"", most)
                if not piece and not self._inflater.eof:
                    raise EOFError("the compressed data end too early")
                return piece
        piece = self._inflater.decompress(self._waiting, most)
        ended = self._inflater.eof
        self._waiting = self._inflater.unused_data if ended else self._inflater.unconsumed_tail
        return piece

    def _next(self) -> bool:
        """Go on with the next gzip stream of the file, if one follows."""
        while not self._waiting.lstrip(b"\0"):
            self._stream.seek(self._at)
            self._waiting = self._stream.read(min(_INPUT, self._end - self._at))
            self._at += len(self._waiting)
            if not self._waiting:
                return False
        self._waiting = self._waiting.lstrip(b"\0")
        self._inflater = self._new()
        return True

    def _new(self) -> Any:
        return zlib.decompressobj(-zlib.MAX_WBITS if self._raw else 16 + zlib.MAX_WBITS)


@dataclass(frozen=True)
class Scaled:
    """Integers of a NIfTI file, given as the real numbers that its slope makes of them."""

    stored: Stored
    slope: float
    intercept: float

    @property
    def dtype(self) -> np.dtype[Any]:
        """What `fastcal.data.nifti.read` gives for such a file."""
        return np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the integers."""
        return self.stored.shape

    @property
    def fixed_bytes(self) -> int:
        """That of the integers."""
        return self.stored.fixed_bytes

    def slabs(self, cuts: Sequence[Cut]) -> Iterator[NDArray[Any]]:
        """Give the slabs."""
        from nibabel.volumeutils import apply_read_scaling

        slope, intercept = (np.float32(x) for x in (self.slope, self.intercept))
        for slab in self.stored.slabs(cuts):
            scaled: Any = apply_read_scaling(slab, slope, intercept)
            del slab
            yield scaled.astype(np.float32, copy=False)
            del scaled


@dataclass(frozen=True)
class Swapped:
    """Numbers in the byte order of another machine."""

    stored: Stored
    dtype: np.dtype[Any]

    @classmethod
    def native(cls, stored: Stored) -> Stored:
        """Return numbers in the byte order of this machine."""
        native = stored.dtype.newbyteorder("=")
        return stored if native == stored.dtype else cls(stored, native)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the numbers."""
        return self.stored.shape

    @property
    def fixed_bytes(self) -> int:
        """That of the numbers."""
        return self.stored.fixed_bytes

    def slabs(self, cuts: Sequence[Cut]) -> Iterator[NDArray[Any]]:
        """Give the slabs."""
        for slab in self.stored.slabs(cuts):
            yield slab.astype(self.dtype)
            del slab


@dataclass(frozen=True)
class Zarr:
    """An array of Zarr version 3 in a folder, read through the package ``zarr``.

    Version 2 is refused: its metadata may name a codec that unpickles what a chunk holds.
    """

    path: Path
    array: Any
    fixed_bytes: int

    @classmethod
    def open(cls, path: Path, keys: Sequence[str]) -> Zarr:
        """Open an array, or the one of a group that has one of some names.

        Raises:
            DataError: It cannot be read, or its chunks are larger than a slab may be.
            ImportError: The package is missing; the message names the extra.
        """
        try:
            import zarr
        except ImportError as error:
            raise ImportError(
                f"{path} needs the package zarr: pip install 'fastcal[scale]'"
            ) from error
        if not path.exists():
            raise MissingFileError(path, "no such folder")
        with one_error(path, "a Zarr array of version 3"):
            for inside in path.rglob("*"):
                if not (inside.is_dir() or inside.is_file()):
                    raise DataError(inside, "must be a regular file")
                if inside.name == "zarr.json":
                    read_json(inside, dict[str, Any])  # its size and nesting, before zarr sees it
            found: Any = zarr.open(path, mode="r", zarr_format=3)
            if not hasattr(found, "shape"):
                key = next((key for key in keys if key in found), None)
                if key is None:
                    raise DataError(path, f"has no array named {' or '.join(keys)}")
                found = found[key]
            chunk = math.prod(found.shards or found.chunks) * np.dtype(found.dtype).itemsize
            check_claim(chunk, what="a chunk")
            # One chunk decoded, and one compressed that its codec may copy.
            return cls(path, found, 3 * chunk)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its type."""
        found: np.dtype[Any] = np.dtype(self.array.dtype)
        return found

    def slabs(self, cuts: Sequence[Cut]) -> Iterator[NDArray[Any]]:
        """Give the slabs."""
        for start, stop in cuts:
            yield self._slab(start, stop)

    def _slab(self, start: int, stop: int) -> NDArray[Any]:
        made = np.empty((self.shape[0], stop - start, *self.shape[2:]), self.dtype)
        step = (self.array.shards or self.array.chunks)[0]
        with one_error(self.path, "a Zarr array of version 3"):
            # Classes that share chunks at a time: zarr decodes all chunks of a request at once.
            for first in range(0, self.shape[0], step):
                made[first : first + step] = self.array[first : first + step, start:stop]
        return made
