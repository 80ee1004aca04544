"""The gate of NIfTI: what a header claims, compared with the file before nibabel allocates it."""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fastcal.core.doors.bounds import (
    MIB,
    array_bytes,
    check_claim,
    check_expansion,
    size,
)
from fastcal.core.doors.deflate import gzip_reader
from fastcal.core.doors.failures import one_error
from fastcal.core.doors.opening import open_regular
from fastcal.core.errors import DataError

_BYTES = {
    **{2: 1, 256: 1},  # uint8, int8
    **{4: 2, 512: 2},  # int16, uint16
    **{8: 4, 768: 4, 16: 4},  # int32, uint32, float32
    **{64: 8, 1024: 8, 1280: 8, 32: 8},  # float64, int64, uint64, complex64
    **{128: 3, 2304: 4, 1536: 16, 1792: 16, 2048: 32},  # colours, long reals, complex
}
"""Bytes of a voxel by the datatype's code (nifti1.h)."""

_MOST_BEFORE_VOXELS = 16 * MIB
"""Header and extensions; the largest extensions seen are some hundred KiB of XML or DICOM."""

_MAGIC = {b"n+1\0", b"ni1\0", b"n+2\0", b"ni2\0"}

_DRAIN = 1 << 20


@dataclass(frozen=True)
class NiftiHeader:
    """What the header of a NIfTI file claims about the size of its voxels."""

    version: int
    """1 or 2."""
    shape: tuple[int, ...]
    datatype: int
    """The code of nifti1.h."""
    offset: int
    """Where the voxels begin, in the uncompressed file."""
    nbytes: int
    """Bytes of the voxels."""


@dataclass(frozen=True, eq=False)
class NiftiFile:
    """A NIfTI file that is open at its start, decompressed as it is read."""

    header: NiftiHeader
    stream: IO[bytes] | gzip.GzipFile


def nifti_header(path: str | Path, *, most_bytes: int | None = None) -> NiftiHeader:
    """Read the size that a NIfTI file claims, and compare it with the size of the file.

    Args:
        path: A ``.nii`` or ``.nii.gz`` file.
        most_bytes: The most that the caller expects of the voxels; None asks the file and this
            machine's memory alone.

    Raises:
        MissingFileError: There is no such file.
        DataError: It is no NIfTI file, or it cannot hold what it claims.

    Example:
        >>> nifti_header("imagesTr/heart_000_0000.nii.gz").shape  # doctest: +SKIP
        (176, 176, 8)
    """
    with open_nifti(path, most_bytes=most_bytes, whole=False) as file:
        return file.header


@contextmanager
def open_nifti(
    path: str | Path,
    *,
    most_bytes: int | None = None,
    whole: bool = True,
    in_memory: bool = True,
) -> Iterator[NiftiFile]:
    """Open a NIfTI file whose claims have been checked, for nibabel's ``from_stream``.

    Args:
        path: A ``.nii`` or ``.nii.gz`` file.
        most_bytes: The most that the caller expects of the voxels.
        whole: When the block ends, read a compressed file to its end, so that its checksum
            covers every voxel. What follows the voxels may be as large again, and no larger.
        in_memory: The voxels must fit the memory of this machine.

    Yields:
        The header and the uncompressed stream. Whatever the block raises becomes a `DataError`.

    Raises:
        MissingFileError: There is no such file.
        DataError: It is no NIfTI file, it cannot hold what it claims, or it is damaged.
    """
    path = Path(path)
    with open_regular(path) as file, one_error(path, "a NIfTI file"):
        if not file.size:
            raise DataError(path, "the file is empty")
        if not path.name.endswith(".gz"):
            header = _parsed(file.stream.read(540))
            check_claim(header.nbytes, most=most_bytes, what="the voxels", in_memory=False)
            if header.offset + header.nbytes > file.size:
                raise ValueError(
                    f"must have {size(header.offset + header.nbytes)} by its header, got "
                    f"{size(file.size)}"
                )
            file.stream.seek(0)
            yield NiftiFile(header, file.stream)
            return
        with gzip_reader(file.stream) as stream:
            header = _parsed(stream.read(540))
            check_expansion(header.offset + header.nbytes, file.size, what="the voxels")
            check_claim(header.nbytes, most=most_bytes, what="the voxels", in_memory=in_memory)
            stream.seek(0)
            yield NiftiFile(header, stream)
            if whole:
                _drain(stream, header)


def _drain(stream: gzip.GzipFile, header: NiftiHeader) -> None:
    most = 2 * (header.offset + header.nbytes) + _DRAIN
    while stream.read(_DRAIN):
        if stream.tell() > most:
            raise ValueError(f"goes on behind the {size(header.nbytes)} of its voxels")
    if stream.tell() < header.offset + header.nbytes:
        raise ValueError("ends before its last voxel")


def _parsed(raw: bytes) -> NiftiHeader:
    """The header of either version and byte order, by the size it begins with."""
    if len(raw) >= 348 and not {raw[344:348], raw[4:8]} & _MAGIC:
        raise ValueError("the magic of NIfTI is missing from its header")
    for order in "<>":
        begin = struct.unpack(f"{order}i", raw[:4])[0] if len(raw) >= 4 else 0
        if begin == 348 and len(raw) >= 348:
            dims = struct.unpack_from(f"{order}8h", raw, 40)
            datatype = struct.unpack_from(f"{order}h", raw, 70)[0]
            offset = struct.unpack_from(f"{order}f", raw, 108)[0]
            return _checked(1, dims, datatype, offset)
        if begin == 540 and len(raw) >= 540:
            datatype = struct.unpack_from(f"{order}h", raw, 12)[0]
            dims = struct.unpack_from(f"{order}8q", raw, 16)
            offset = struct.unpack_from(f"{order}q", raw, 168)[0]
            return _checked(2, dims, datatype, offset)
    raise ValueError("no NIfTI header at its start")


def _checked(version: int, dims: tuple[int, ...], datatype: int, offset: float) -> NiftiHeader:
    n_axes, *extents = dims
    if not 1 <= n_axes <= 7:
        raise ValueError(f"the number of axes must be from 1 to 7, got {n_axes}")
    shape = tuple(extents[:n_axes])
    if min(shape) < 1:
        raise ValueError(f"every extent must be at least 1, got {shape}")
    if datatype not in _BYTES:
        raise ValueError(f"the datatype must be one of NIfTI's, got {datatype}")
    # 0 stands for "right behind the header" in files of old writers.
    if not (math.isfinite(offset) and 0 <= offset <= _MOST_BEFORE_VOXELS):
        raise ValueError(
            f"the voxels must begin within the first {size(_MOST_BEFORE_VOXELS)}, got {offset}"
        )
    begin = int(offset) or (352 if version == 1 else 544)
    return NiftiHeader(version, shape, datatype, begin, array_bytes(shape, _BYTES[datatype]))
