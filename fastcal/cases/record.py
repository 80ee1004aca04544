"""``prediction.json`` records what a prediction folder was made from, so that nothing mixes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fastcal import __version__
from fastcal.core import atomic
from fastcal.core.doors import Digest, MissingFileError, digest, read_json, validated
from fastcal.core.errors import DataError
from fastcal.data import images
from fastcal.data.affines import affine_rule

if TYPE_CHECKING:
    from fastcal.cases.settings import Counted, Written
    from fastcal.cases.source import Origin

FILE = "prediction.json"
FORMAT = 2
_COUNTED = ("labels", "n_bins", "closed", "fine_bins", "regions")
"""Entries that the maps do not depend on."""
_INPUTS, _VERSIONS = "inputs", "versions"


@dataclass(frozen=True, slots=True)
class FolderRecord:
    """Everything that the numbers in a prediction folder depend on, but for the files of a case.

    Paths are relative to the folder, so that it may be moved together with its inputs.
    """

    folder: Path
    settings: dict[str, Any]
    """The command, and every setting that changes a map."""
    counted: dict[str, Any]
    """What is counted against which labels; empty where nothing is."""
    shared: dict[str, Digest]
    """Files that every case depends on."""
    versions: dict[str, str]

    @classmethod
    def of(cls, origin: Origin, written: Written, counted: Counted) -> FolderRecord:
        """Return the record of a run.

        Raises:
            DataError: A file that every case depends on cannot be read.
        """
        folder = Path(written.out)
        settings = {
            "command": origin.command,
            **origin.settings,
            "affine": affine_rule(),
            "dtype": written.dtype,
        }
        return cls(
            folder,
            _plain(settings, folder),
            _plain(counted.record, folder),
            digests(origin.shared, folder),
            versions(),
        )

    @classmethod
    def read(cls, folder: Path) -> FolderRecord | None:
        """Read the record of a folder; None where it has none.

        Raises:
            DataError: It cannot be read, or is of an older version.
        """
        path = folder / FILE
        try:
            content: dict[str, Any] = read_json(path, dict[str, Any])
        except MissingFileError:
            return None
        if content.pop("format", None) != FORMAT:
            raise DataError(
                path,
                "is of another version of fastcal, which did not record the inputs; choose another "
                "folder, or overwrite",
            )
        shared = validated(path, content.pop(_INPUTS, None), dict[str, Digest], where=_INPUTS)
        made_by = validated(path, content.pop(_VERSIONS, None), dict[str, str], where=_VERSIONS)
        counted = {name: content.pop(name) for name in _COUNTED if name in content}
        return cls(folder, content, counted, shared, made_by)

    def write(self) -> None:
        """Write it into its folder."""
        content = {
            "format": FORMAT,
            **self.settings,
            **self.counted,
            _INPUTS: {name: one.to_json() for name, one in self.shared.items()},
            _VERSIONS: self.versions,
        }
        atomic.write_json(self.folder / FILE, content)

    @property
    def key(self) -> str:
        """Tells whether the maps of two cases were made alike."""
        shared = {name: (one.size, one.sha256) for name, one in sorted(self.shared.items())}
        content = json.dumps([self.settings, shared, self.versions], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def check_same(self, wanted: FolderRecord) -> None:
        """Refuse to go on with another record than this one.

        Raises:
            DataError: It differs; the message names the first entry that does.
        """
        path = self.folder / FILE
        pairs = [
            (self._placed(self.settings), wanted._placed(wanted.settings)),
            (self.versions, wanted.versions),
        ]
        if self.counted and wanted.counted:
            pairs.append((self._placed(self.counted), wanted._placed(wanted.counted)))
        for known, asked in pairs:
            for name in (*asked, *(known.keys() - asked.keys())):
                if name not in known or name not in asked or known[name] != asked[name]:
                    there, here = (repr(one.get(name)) for one in (known, asked))
                    raise DataError(
                        path,
                        f"this folder was made with {name} = {there}, but now it is {here}; choose "
                        "another folder, or overwrite",
                    )
        changed = first_change(self.shared, wanted.shared)
        if changed is not None:
            raise DataError(
                located(changed, wanted.folder),
                f"is not what {path} was made with; choose another folder, or overwrite",
            )

    def counting(self, wanted: FolderRecord) -> FolderRecord:
        """Return this record with what is counted now, where nothing was counted before."""
        return self if self.counted else replace(self, counted=wanted.counted)

    def placed(self, name: str) -> Any:
        """Return an entry with its paths absolute; None where there is none."""
        return _absolute({**self.settings, **self.counted}.get(name), self.folder)

    def _placed(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings with paths as they are from here, so that two folders can be compared."""
        return {name: _absolute(value, self.folder) for name, value in settings.items()}


def versions() -> dict[str, str]:
    """Return the versions of what computes the numbers; every commit of a release is the same."""
    release = __version__.partition("+")[0].partition(".dev")[0]
    return {"fastcal": release, "torch": torch.__version__.partition("+")[0]}


def digests(
    paths: Sequence[Path], folder: Path, known: Mapping[str, Digest] | None = None
) -> dict[str, Digest]:
    """Return the digest of each file that exists, by its path relative to a folder.

    An image that consists of several files, such as the header and the voxels of an ``.mhd``, is
    all of them.

    Args:
        paths: The files.
        folder: The folder.
        known: Earlier digests; a file that looks the same is not read as a whole again.

    Raises:
        DataError: One cannot be read.
    """
    found = {}
    for path in paths:
        for part in _parts(path):
            name = relative(part, folder)
            try:
                found[name] = digest(part, whole=True, known=(known or {}).get(name))
            except MissingFileError:
                continue
    return found


def _parts(path: Path) -> tuple[Path, ...]:
    try:
        return images.parts(path)
    except MissingFileError:
        return (path,)


def first_change(known: Mapping[str, Digest], now: Mapping[str, Digest]) -> str | None:
    """Return the first file whose content differs, or that one side lacks; None if there is none.

    A copy or a touch changes the time of a file alone, which is no change.
    """
    for name in sorted(known.keys() | now.keys()):
        if name not in known or name not in now or not known[name].same_content(now[name]):
            return name
    return None


def relative(path: Path, folder: Path) -> str:
    """Return a path as seen from a folder, links resolved."""
    return os.path.relpath(os.path.realpath(path), os.path.realpath(folder))


def located(name: str, folder: Path) -> Path:
    """Return where a path as seen from a folder leads, in the shortest form for a message."""
    path = os.path.normpath(f"{os.path.realpath(folder)}/{name}")
    here = os.path.relpath(path)
    return Path(path if here.startswith("..") else here)


_HERE = "path:"
"""Begins a path among the settings."""


def _plain(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Settings as JSON gives them back."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return _HERE + relative(value, folder)
        if isinstance(value, Mapping):
            return {str(name): plain(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value

    made: dict[str, Any] = json.loads(json.dumps(plain(settings)))
    return made


def _absolute(value: Any, folder: Path) -> Any:
    if isinstance(value, str) and value.startswith(_HERE):
        return os.path.normpath(f"{os.path.realpath(folder)}/{value[len(_HERE) :]}")
    if isinstance(value, dict):
        return {name: _absolute(item, folder) for name, item in value.items()}
    if isinstance(value, list):
        return [_absolute(item, folder) for item in value]
    return value
