"""ZIP archives written member by member, compressed by the fastest deflate there is.

``zipfile`` compresses with zlib alone. The sizes of a member are known when it ends, and are put
into its header then, so that the archive has no records behind its members.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from fastcal.core.doors.deflate import crc32, deflater

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_VERSION, _DEFLATED, _FIRST_DAY = 45, 8, 0x21
"""Format version of 64-bit sizes; the method; 1 January 1980, since equal content makes equal
files."""


@dataclass(slots=True)
class _Entry:
    name: bytes
    offset: int
    checksum: int = 0
    size: int = 0
    packed: int = 0


class ZipMember:
    """A member that is being written."""

    def __init__(self, stream: IO[bytes], entry: _Entry) -> None:
        self._stream, self._entry, self._deflater = stream, entry, deflater()

    def write(self, data: ReadableBuffer) -> None:
        """Compress and write bytes."""
        self._entry.checksum = crc32(data, self._entry.checksum)
        self._entry.size += memoryview(data).nbytes
        self._put(self._deflater.compress(data))

    def end(self) -> None:
        """Write what the compression holds back."""
        self._put(self._deflater.flush())

    def _put(self, packed: bytes) -> None:
        self._stream.write(packed)
        self._entry.packed += len(packed)


class ZipWriter:
    """An archive that is being written to a seekable file.

    Args:
        stream: The file, empty.

    Example:
        >>> import io, zipfile
        >>> with io.BytesIO() as file:
        ...     writer = ZipWriter(file)
        ...     with writer.member("a.txt") as member:
        ...         member.write(b"some text")
        ...     writer.end()
        ...     zipfile.ZipFile(file).read("a.txt")
        b'some text'
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._entries: list[_Entry] = []

    @contextmanager
    def member(self, name: str) -> Iterator[ZipMember]:
        """Begin a member, which ends with the block.

        Args:
            name: Its name, of plain letters.
        """
        entry = _Entry(name.encode("ascii"), self._stream.tell())
        self._stream.write(self._local(entry))
        member = ZipMember(self._stream, entry)
        yield member
        member.end()
        end = self._stream.tell()
        self._stream.seek(entry.offset)
        self._stream.write(self._local(entry))
        self._stream.seek(end)
        self._entries.append(entry)

    def end(self) -> None:
        """Write the directory."""
        start = self._stream.tell()
        for entry in self._entries:
            self._stream.write(self._central(entry))
        length, count = self._stream.tell() - start, len(self._entries)
        if start >= _FULL32:
            place = self._stream.tell()
            self._stream.write(
                _END64.pack(b"PK\6\6", 44, _VERSION, _VERSION, 0, 0, count, count, length, start)
                + _LOCATOR.pack(b"PK\6\7", 0, place, 1)
            )
        self._stream.write(_END.pack(b"PK\5\6", 0, 0, count, count, length, min(start, _FULL32), 0))

    @staticmethod
    def _local(entry: _Entry) -> bytes:
        # The 64-bit sizes always have a place, since the size is not known when it begins.
        extra = struct.pack("<2H2Q", 1, 16, entry.size, entry.packed)
        return (
            _LOCAL.pack(
                *(b"PK\3\4", _VERSION, 0, _DEFLATED, 0, _FIRST_DAY, entry.checksum),
                *(_FULL32, _FULL32, len(entry.name), len(extra)),
            )
            + entry.name
            + extra
        )

    @staticmethod
    def _central(entry: _Entry) -> bytes:
        large = [n for n in (entry.size, entry.packed, entry.offset) if n >= _FULL32]
        extra = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        sizes = [min(n, _FULL32) for n in (entry.packed, entry.size)]
        return (
            _CENTRAL.pack(
                *(b"PK\1\2", _VERSION, _VERSION, 0, _DEFLATED, 0, _FIRST_DAY, entry.checksum),
                *(*sizes, len(entry.name), len(extra), 0, 0, 0, 0, min(entry.offset, _FULL32)),
            )
            + entry.name
            + extra
        )
