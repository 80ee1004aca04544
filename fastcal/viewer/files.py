"""The files of cases that a viewer may open: inside the folders given, wherever links lead."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from fastcal.cases.case_record import FOLDER as RECORDS
from fastcal.cases.files import STATISTICS
from fastcal.cases.segments import SEGMENTS
from fastcal.core.errors import DataError
from fastcal.core.problem import MAPS
from fastcal.data import images, listing
from fastcal.data.nifti import Geometry, Volume

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>[0-9]{4})", re.DOTALL)
_NO_MAPS = (RECORDS, STATISTICS, SEGMENTS)


class Confined:
    """Opens files that lie in one of a few folders, and no others.

    Args:
        folders: The folders. Each may be a link itself.

    Raises:
        DataError: One does not exist.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            if not folder.is_dir():
                raise DataError(folder, "no such folder")
        self._roots = tuple(Path(os.path.realpath(folder)) for folder in folders)

    def check(self, path: Path) -> Path:
        """Return a path that leads to a place within the folders.

        Raises:
            DataError: It is a link that leads elsewhere.
        """
        place = Path(os.path.realpath(path))
        if not any(place.is_relative_to(root) for root in self._roots):
            raise DataError(
                path, f"is a link that leads out of the folders given, to {place}; give that folder"
            )
        return path

    def read(self, path: Path) -> Volume:
        """Read an image of any format with every file that it consists of.

        Raises:
            DataError: It cannot be read, or leads out of the folders.
        """
        self._check_parts(path)
        return images.read(path)

    def geometry(self, path: Path) -> Geometry:
        """Read the header of an image; see `read`."""
        self._check_parts(path)
        return images.geometry(path)

    def _check_parts(self, path: Path) -> None:
        self.check(path)
        for part in images.parts(path):
            self.check(part)


def find_images(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Return the image files of every case of a folder, by case, sorted.

    ``CASE_0000.nii.gz`` is a channel of a case, as in nnU-Net, and any other name is the case's.

    Raises:
        DataError: There are none, or a channel is there twice.
    """
    channels: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in sorted(listing.entries(folder)):
        ending = images.ending_of(path.name)
        if ending is None:
            continue
        stem = path.name.removesuffix(ending)
        match = _CHANNEL.fullmatch(stem)
        case, channel = (match["case"], int(match["channel"])) if match else (stem, 0)
        if channel in channels[case]:
            raise listing.twice(path, channels[case][channel], f"image of case {case}")
        channels[case][channel] = path
    if not channels:
        raise DataError(folder, f"no images ({', '.join(f'*{e}' for e in images.ENDINGS)})")
    return {
        case: tuple(files[number] for number in sorted(files))
        for case, files in sorted(channels.items())
    }


def find_maps(out: Path, case: str) -> dict[str, Path]:
    """Return the map files of a case by the names of their folders, known maps in front."""
    folders = {
        entry.name: entry
        for entry in sorted(out.iterdir())
        if entry.is_dir() and entry.name not in _NO_MAPS and not entry.name.startswith(".")
    }
    known = [name for name in MAPS if name in folders]
    found = {}
    for name in (*known, *(name for name in folders if name not in known)):
        files = (folders[name] / f"{case}{ending}" for ending in images.ENDINGS)
        path = next((path for path in files if path.exists() or path.is_symlink()), None)
        if path is not None:
            found[name] = path
    return found
