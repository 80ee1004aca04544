"""What tells whether a file is still the one it was, without reading all of it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastcal.core.doors.bounds import MIB
from fastcal.core.doors.failures import one_error
from fastcal.core.doors.opening import open_regular


@dataclass(frozen=True)
class Digest:
    """Size, time and the hash of both ends of a file."""

    size: int
    """Bytes."""
    mtime_ns: int
    """Time of the last change, in nanoseconds."""
    sha256: str
    """Of the first and the last MiB, in hexadecimal."""

    def same_content(self, other: Digest) -> bool:
        """Whether size and hash agree; a copy of a file has another time.

        Args:
            other: The digest to compare with.
        """
        return (self.size, self.sha256) == (other.size, other.sha256)

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values; ``Digest(**fields)`` makes the digest again."""
        return asdict(self)


def digest(path: str | Path) -> Digest:
    """The digest of a regular file, which takes at most 2 MiB of reading.

    A NIfTI or npz file whose voxels were computed anew differs in its ends as a rule: the checksum
    and length of gzip are the last bytes of a file, and ZIP's checksums are in its last ones.

    Args:
        path: The file.

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
        return Digest(file.size, file.mtime_ns, found.hexdigest())
