"""ZIP archives, which npz files and checkpoints are: their directory and members, checked."""

from __future__ import annotations

import struct
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fastcal.core.doors.bounds import KIB, MIB, check_expansion, size
from fastcal.core.doors.deflate import framed, gzip_reader
from fastcal.core.doors.failures import one_error, shown
from fastcal.core.doors.opening import open_regular

_LARGEST_DIRECTORY = 16 * MIB
_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_END, _LOCATOR, _END64 = b"PK\5\6", b"PK\6\7", b"PK\6\6"
_SIZES_FOLLOW = 1 << 3
"""Flag of a member whose sizes and checksum stand behind its data."""


class Archive:
    """The members of an open archive, each checked before it is opened.

    Made by `open_archive`.
    """

    def __init__(self, stream: IO[bytes], opened: zipfile.ZipFile, file_size: int) -> None:
        self.stream = stream
        self._opened = opened
        self.size = file_size
        counted = Counter(opened.namelist())
        twice = [name for name, times in counted.items() if times > 1]
        if twice:
            raise ValueError(f"{shown(twice[0])} stands twice in the archive")
        self.names = frozenset(counted)
        self.comment: bytes = opened.comment

    def member(self, name: str) -> Member:
        """A member whose claims agree with the archive and with its own header.

        Raises:
            KeyError: There is none of this name.
            ValueError: It is compressed in another way than NumPy and PyTorch do it, it claims
                what cannot be, or the directory contradicts it.
        """
        return Member(self, self._opened.getinfo(name))

    def open(self, info: zipfile.ZipInfo) -> IO[bytes]:
        """The content of a member."""
        return self._opened.open(info)

    def place(self, info: zipfile.ZipInfo) -> int:
        """Where a member's bytes begin, once its own header agrees with the directory."""
        self.stream.seek(info.header_offset)
        raw = self.stream.read(_LOCAL_HEADER.size)
        if len(raw) < _LOCAL_HEADER.size:
            raise ValueError("the archive ends too early")
        mark, _, flags, method, time, date, checksum, _, _, name, extra = _LOCAL_HEADER.unpack(raw)
        follows = bool(flags & _SIZES_FOLLOW)
        if (
            mark != b"PK\3\4"
            or flags != info.flag_bits
            or method != info.compress_type
            or _moment(date, time) != info.date_time
            or not (follows or checksum == info.CRC)
        ):
            raise ValueError(f"{shown(info.filename)} is not what the archive's directory says")
        start = info.header_offset + _LOCAL_HEADER.size + int(name) + int(extra)
        if start + info.compress_size > self.size:
            raise ValueError(f"{shown(info.filename)} reaches beyond the archive's end")
        return start


class Member:
    """A member of an archive whose claims have been checked."""

    def __init__(self, archive: Archive, info: zipfile.ZipInfo) -> None:
        name = shown(info.filename)
        if info.compress_type not in _METHODS:
            raise ValueError(
                f"{name} must be stored or deflated, got compression method {info.compress_type}"
            )
        if info.flag_bits & 1:
            raise ValueError(f"{name} is encrypted")
        self.stored = info.compress_type == zipfile.ZIP_STORED
        if self.stored and info.compress_size != info.file_size:
            raise ValueError(f"{name} is stored, but its two sizes differ")
        self.start = archive.place(info)
        check_expansion(info.file_size, info.compress_size, what=name)
        self.name = info.filename
        self.size = info.file_size
        self.compressed_size = info.compress_size
        self.checksum = info.CRC
        self._archive, self._info = archive, info

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The content; length and checksum are compared when one asks for what follows it."""
        if self.stored:
            with self._archive.open(self._info) as stream:
                yield stream
            return
        packed = framed(
            self._archive.stream,
            self.start,
            self._info.compress_size,
            size=self.size,
            checksum=self._info.CRC,
        )
        with gzip_reader(packed) as inflated:
            yield inflated  # type: ignore[misc]  # a GzipFile lacks nothing that is read with

    def check(self) -> None:
        """Read the content once, so that its checksum is compared.

        Raises:
            zipfile.BadZipFile, gzip.BadGzipFile: The checksum differs.
        """
        with self.open() as stream:
            left = self.size
            while piece := stream.read(MIB):
                left -= len(piece)
                if left < 0:
                    raise ValueError(f"{shown(self.name)} must have {self.size} bytes, got more")

    def read(self, most_bytes: int) -> bytes:
        """The whole content.

        Raises:
            ValueError: It is larger than ``most_bytes``.
        """
        if self.size > most_bytes:
            raise ValueError(
                f"{shown(self.name)} must have at most {size(most_bytes)}, got {size(self.size)}"
            )
        with self.open() as stream:
            content = stream.read(self.size)
            if len(content) < self.size or stream.read(1):
                raise ValueError(f"{shown(self.name)} must have {self.size} bytes")
            return content


@contextmanager
def open_archive(path: str | Path, kind: str) -> Iterator[Archive]:
    """Open a ZIP archive that is a regular file.

    Args:
        path: The file.
        kind: What it should be, with its article, for the message.

    Yields:
        Its members. Whatever the block raises becomes a `DataError` of ``path``.

    Raises:
        MissingFileError: There is no such file.
        DataError: It is no archive, or it is damaged.
    """
    with open_regular(path) as file, one_error(path, kind):
        _check_directory(file.stream, file.size)
        with zipfile.ZipFile(file.stream) as opened:
            yield Archive(file.stream, opened, file.size)


def _check_directory(stream: IO[bytes], file_size: int) -> None:
    """Bound the directory, which ``zipfile`` reads into memory whole, objects and all."""
    tail_start = max(0, file_size - 64 * KIB - 22)
    stream.seek(tail_start)
    tail = stream.read()
    end = tail.rfind(_END)
    if end < 0 or len(tail) < end + 22:
        raise ValueError("no ZIP archive, or one cut short")
    length = int.from_bytes(tail[end + 12 : end + 16], "little")
    if end >= 20 and tail[end - 20 : end - 16] == _LOCATOR:
        stream.seek(max(0, tail_start + end - 20 - 56))
        record = stream.read(56)
        if record.startswith(_END64):
            length = int.from_bytes(record[40:48], "little")
    if length > _LARGEST_DIRECTORY:
        raise ValueError(
            f"the directory must have at most {size(_LARGEST_DIRECTORY)}, got {size(length)}"
        )
    stream.seek(0)


def _moment(date: int, time: int) -> tuple[int, int, int, int, int, int]:
    """MS-DOS date and time, as ``zipfile`` gives them."""
    day = ((date >> 9) + 1980, date >> 5 & 0xF, date & 0x1F)
    return (*day, time >> 11, time >> 5 & 0x3F, (time & 0x1F) * 2)
