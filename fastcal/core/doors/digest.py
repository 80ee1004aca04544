"""What tells whether a file is still the one it was, without reading all of it where it can."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from fastcal.core.doors.bounds import MIB
from fastcal.core.doors.deflate import crc32
from fastcal.core.doors.failures import one_error
from fastcal.core.doors.opening import open_regular

_CHECKED = (".gz", ".npz")
"""Endings of files whose last bytes hold a checksum of the rest."""


@dataclass(frozen=True)
class Digest:
    """Size, time and the hash of both ends of a file, with its checksum where these do not tell."""

    size: int
    """Bytes."""
    mtime_ns: int
    """Time of the last change, in nanoseconds."""
    sha256: str
    """Of the first and the last MiB, in hexadecimal."""
    whole: int | None = None
    """CRC-32 of the whole file; None where it was not asked for, or the ends tell."""

    def same_content(self, other: Digest) -> bool:
        """Whether size and hash agree; a copy of a file has another time.

        Args:
            other: The digest to compare with.
        """
        same = (self.size, self.sha256) == (other.size, other.sha256)
        return same and (None in (self.whole, other.whole) or self.whole == other.whole)

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values; ``Digest(**fields)`` makes the digest again."""
        return asdict(self)


def digest(path: str | Path, *, whole: bool = False, known: Digest | None = None) -> Digest:
    """The digest of a regular file, which takes at most 2 MiB of reading unless all is asked for.

    The ends tell of gzip and npz files, which have their checksums there. Voxels that lie bare in a
    file may change in the middle alone, between two MiB of background.

    Args:
        path: The file.
        whole: Add the checksum of the whole file where its ends do not tell.
        known: An earlier digest of this file, whose checksum is taken while size, time and ends are
            the same, so that nothing large is read again.

    Raises:
        MissingFileError: There is no such file.
        DataError: It is no regular file, or it cannot be read.

    Example:
        >>> digest("fold_0/case_1.npz").size  # doctest: +SKIP
        52428800
    """
    with open_regular(path) as file, one_error(path, "a file"):
        found = hashlib.sha256(file.stream.read(MIB))
        if file.size > MIB:
            file.stream.seek(max(MIB, file.size - MIB), os.SEEK_SET)
            found.update(file.stream.read(MIB))
        made = Digest(file.size, file.mtime_ns, found.hexdigest())
        if not whole or file.size <= 2 * MIB or str(path).endswith(_CHECKED):
            return made
        if known is not None and known.whole is not None and replace(known, whole=None) == made:
            return known
        return replace(made, whole=_checksum(file.stream))


def _checksum(stream: IO[bytes]) -> int:
    found = 0
    stream.seek(0)
    while block := stream.read(MIB):
        found = crc32(block, found)
    return found
