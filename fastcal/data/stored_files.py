"""Arrays of npz, npy and Zarr files, opened to be read slab by slab."""

from __future__ import annotations

from pathlib import Path

from fastcal.core.doors import ArchivePlace, NpyHeader, Npz, npy_place, open_npz
from fastcal.core.errors import DataError
from fastcal.data.stored import Inflated, Mapped, Stored, Swapped, Zarr

KEYS = ("probabilities", "softmax")
"""Names of the array in an npz of nnU-Net version 2 and version 1."""


def open_stored(path: Path, *, check: bool = True) -> tuple[Stored, str | None]:
    """Open the probabilities of a file, and return the activation that it records, if it does.

    Args:
        path: A ``.npz`` or ``.npy`` file, or a ``.zarr`` folder.
        check: Compare the checksum of an array that is not compressed, which reads it once. Those
            of compressed ones are compared when they are read.

    Raises:
        DataError: It cannot be read, or only as a whole.
        ImportError: A Zarr folder needs a package that is missing.
    """
    if path.suffix == ".zarr":
        return Zarr.open(path, KEYS), None
    if path.suffix == ".npy":
        return _in_file(path, npy_place(path)), None
    with open_npz(path) as arrays:
        found = arrays.place(key_of(path, arrays))
        activation = arrays.text("activation") if "activation" in arrays.names else None
        if found.member.stored:
            if check:
                found.member.check()
            place = found.member.start + found.header.length
            return _in_file(path, (found.header, place)), activation
    return _inflated(path, found), activation


def key_of(path: Path, arrays: Npz) -> str:
    """Return the name of the array of an npz that holds the probabilities.

    Raises:
        DataError: There is none, or more than one.
    """
    keys = [key for key in KEYS if key in arrays.names]
    if len(keys) != 1:
        found = " and ".join(keys) or "none of them"
        raise DataError(path, f"must have one array named {' or '.join(KEYS)}, got {found}")
    return keys[0]


def _inflated(path: Path, place: ArchivePlace) -> Stored:
    header, member = place.header, place.member
    inflated = Inflated(
        path,
        header.shape,
        header.dtype,
        member.start,
        member.compressed_size,
        header.length,
        member.checksum,
        header.fortran,
    )
    return Swapped.native(inflated)


def _in_file(path: Path, place: tuple[NpyHeader, int]) -> Stored:
    header, offset = place
    return Swapped.native(Mapped(path, header.shape, header.dtype, offset, header.fortran))
