"""The gate of MetaImage and NRRD: what a text header claims, before SimpleITK allocates it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastcal.core.doors.bounds import KIB, array_bytes, check_claim, check_expansion, size
from fastcal.core.doors.failures import one_error, shown
from fastcal.core.doors.opening import open_regular
from fastcal.core.errors import DataError

_MOST_HEADER = 64 * KIB
"""Bytes; the longest headers seen hold some KiB of a scanner's key-value pairs."""

_META_BYTES = {
    **{"MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4},
    **{"MET_UINT": 4, "MET_LONG": 4, "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8},
    **{"MET_FLOAT": 4, "MET_DOUBLE": 8},
}
"""Bytes of a voxel by ElementType (metaTypes.h)."""

_NRRD_BYTES = (
    (r"(signed |unsigned |u)?char|u?int8(_t)?", 1),
    (r"((signed |unsigned )?short|ushort|unsigned short)( int)?|u?int16(_t)?", 2),
    (r"(signed |unsigned )?int|uint|u?int32(_t)?", 4),
    (r"((signed |unsigned )?long long|longlong|ulonglong)( int)?|u?int64(_t)?", 8),
    (r"float", 4),
    (r"double", 8),
)
"""Bytes of a voxel by the names of its type (Teem's format page, "type:")."""

_LENGTHS = {
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-6),
    **dict.fromkeys(("um", "\xb5m", "\u03bcm"), 1e-3),
    **dict.fromkeys(("micron", "microns", "micrometer", "micrometre"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 10.0),
    **dict.fromkeys(("m", "meter", "metre"), 1000.0),
}
"""Millimetres by the unit's name; a micrometre has the micro sign or the Greek letter."""

_RAW, _DEFLATED, _OTHER = "raw", "deflated", "other"
_ENCODINGS = {"raw": _RAW, "gzip": _DEFLATED, "gz": _DEFLATED}


@dataclass(frozen=True)
class ItkHeader:
    """What the header of a MetaImage or NRRD file claims."""

    sizes: tuple[int, ...]
    """Extents in the order of the file, the fastest first."""
    nbytes: int
    """Bytes of the voxels."""
    data: Path
    """The file that holds the voxels: the header's own, or one beside it."""
    millimetres: float
    """Millimetres of the header's unit of length, which SimpleITK does not look at."""


def itk_header(path: str | Path) -> ItkHeader:
    """Read the header of an ``.mha``, ``.mhd`` or ``.nrrd`` file and check its claims.

    Voxels that lie in another file must lie in the folder of the header or below it, in one
    regular file: lists and patterns of files are refused.

    Args:
        path: The file.

    Raises:
        MissingFileError: The file, or that of its voxels, is missing.
        DataError: There is no such header at its start, or the file cannot hold what it claims.

    Example:
        >>> itk_header("training_data/Case00.mhd").sizes  # doctest: +SKIP
        (512, 512, 35)
    """
    path = Path(path)
    with open_regular(path) as file, one_error(path, "a MetaImage or NRRD file"):
        if not file.size:
            raise DataError(path, "the file is empty")
        start = file.stream.read(_MOST_HEADER)
        claim = _nrrd(start) if start.startswith(b"NRRD") else _meta(start)
        if claim.n_axes != len(claim.sizes) or not 1 < len(claim.sizes) <= 5:
            raise ValueError(
                f"the header must give one size for each of 2 to 5 axes, got {claim.n_axes} axes "
                f"and {len(claim.sizes)} sizes"
            )
        if min(claim.sizes) < 1:
            raise ValueError(f"every extent must be at least 1, got {claim.sizes}")
        nbytes = array_bytes(claim.sizes, claim.itemsize)
        available, data = file.size - claim.length, path
        if claim.file is not None:
            data = _beside(path, claim.file)
            with open_regular(data) as voxels:
                available = voxels.size
        if claim.encoding == _RAW and available < nbytes:
            raise DataError(
                data, f"must have {size(nbytes)} of voxels by its header, got {size(available)}"
            )
        if claim.encoding == _DEFLATED:
            check_expansion(nbytes, available, what="the voxels")
        check_claim(nbytes, what="the voxels")
        return ItkHeader(claim.sizes, nbytes, data, _millimetres(claim.units))


@dataclass(frozen=True)
class _Claim:
    n_axes: int
    sizes: tuple[int, ...]
    itemsize: int
    encoding: str
    file: str | None
    length: int
    """Bytes of the header, where the voxels follow it."""
    units: tuple[str, ...]
    """Units of the axes, as far as they are told."""


def _meta(start: bytes) -> _Claim:
    """Parse ``key = value`` lines; ElementDataFile is the last of them (MetaIO's MetaImage.md)."""
    last = re.search(rb"^ElementDataFile[ \t]*=[ \t]*([^\r\n]*)(\r?\n|\Z)", start, re.MULTILINE)
    if last is None:
        raise ValueError("no line ElementDataFile")
    fields: dict[str, str] = {}
    for line in start[: last.start()].decode("latin-1").splitlines():
        key, _, value = line.partition("=")
        fields[key.strip()] = value.strip()
    kind = fields.get("ElementType", "")
    if kind not in _META_BYTES:
        raise ValueError(f"ElementType must be a type of real numbers, got {shown(kind)}")
    channels = int(fields.get("ElementNumberOfChannels", "1"))
    if not 1 <= channels <= 65535:
        raise ValueError(f"ElementNumberOfChannels must be from 1 to 65535, got {channels}")
    if _true(fields, "CompressedData"):
        encoding = _DEFLATED
    else:
        encoding = _RAW if _true(fields, "BinaryData", "True") else _OTHER
    file = last[1].decode("latin-1").strip()
    return _Claim(
        int(fields.get("NDims", "0")),
        tuple(int(extent) for extent in fields.get("DimSize", "").split()),
        _META_BYTES[kind] * channels,
        encoding,
        None if file == "LOCAL" else file,
        last.end(),
        tuple(fields.get("DistanceUnits", "").split()),
    )


def _nrrd(start: bytes) -> _Claim:
    """Parse ``field: value`` lines up to the empty one (teem.sourceforge.net/nrrd/format.html)."""
    end = re.search(rb"\r?\n\r?\n", start)
    fields: dict[str, str] = {}
    for line in start[: end.start() if end else None].decode("latin-1").splitlines()[1:]:
        if not line.startswith("#") and ":=" not in line:
            key, _, value = line.partition(":")
            fields[key.strip().lower()] = value.strip()
    kind = fields.get("type", "")
    itemsize = next((n for names, n in _NRRD_BYTES if re.fullmatch(names, kind)), None)
    if itemsize is None:
        raise ValueError(f"type must be one of real numbers, got {shown(kind)}")
    file = fields.get("data file", fields.get("datafile"))
    if file is None and end is None:
        raise ValueError("no end of the header")
    return _Claim(
        int(fields.get("dimension", "0")),
        tuple(int(extent) for extent in fields.get("sizes", "").split()),
        itemsize,
        _ENCODINGS.get(fields.get("encoding", ""), _OTHER),
        file,
        end.end() if end else len(start),
        tuple(re.findall(r'"([^"]*)"', fields.get("space units", fields.get("units", "")))),
    )


def _millimetres(units: tuple[str, ...]) -> float:
    """How long the unit of the axes is; an unknown one is a millimetre, as in NIfTI."""
    names = (_decoded(unit).lower() for unit in units)
    known = {_LENGTHS[name] for name in names if name in _LENGTHS}
    if len(known) > 1:
        raise ValueError(f"the axes must have one unit of length, got {', '.join(units)}")
    return known.pop() if known else 1.0


def _decoded(text: str) -> str:
    """A text of the header, which was taken for Latin-1, as the UTF-8 that it may be."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return text


def _true(fields: Mapping[str, str], key: str, default: str = "False") -> bool:
    return fields.get(key, default)[:1] in ("T", "t", "1")


def _beside(path: Path, name: str) -> Path:
    """The file of the voxels, which a header names relative to its own folder."""
    if name.split()[:1] == ["LIST"] or "%" in name:
        raise DataError(path, f"its voxels must lie in one file, got {shown(name)}")
    data = path.parent / name
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(path, f"its voxels must lie in the folder of the header, got {shown(name)}")
    return data
