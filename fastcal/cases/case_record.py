"""``record/CASE.json``: what the files of a finished case were made from, and what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from fastcal.cases.record import digests, first_change, located
from fastcal.core import atomic
from fastcal.core.doors import Digest, one_error, open_regular, read_json
from fastcal.core.doors.bounds import MIB
from fastcal.core.errors import DataError
from fastcal.data import images

FOLDER = "record"


@dataclass(frozen=True, slots=True)
class Content:
    """All bytes of an output."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """The inputs and outputs of a case. It is written last: a case without it is not finished.

    Paths are relative to the prediction folder.
    """

    key: str
    """`fastcal.cases.record.FolderRecord.key` of the folder when the case was done."""
    members: dict[str, Digest]
    """Files that the members were read from."""
    reference: dict[str, Digest] = field(default_factory=dict)
    """The label map that was counted against."""
    outputs: dict[str, Content] = field(default_factory=dict)

    @staticmethod
    def path(folder: Path, case: str) -> Path:
        """Return the file of a case's record."""
        return folder / FOLDER / f"{case}.json"

    @classmethod
    def of(
        cls,
        key: str,
        members: Sequence[Path],
        reference: Sequence[Path],
        folder: Path,
        known: CaseRecord | None = None,
    ) -> CaseRecord:
        """Return the record of a case before it is done, with the digests of its inputs.

        Args:
            key: See `key`.
            members: Files that the members are read from.
            reference: The label map, if there is one.
            folder: The prediction folder.
            known: An earlier record of the case; see `digests`.

        Raises:
            DataError: An input cannot be read.
        """
        before = ({}, {}) if known is None else (known.members, known.reference)
        return cls(key, digests(members, folder, before[0]), digests(reference, folder, before[1]))

    @classmethod
    def read(cls, folder: Path, case: str) -> CaseRecord | None:
        """Read the record of a case; None where there is none, or none that can be read."""
        try:
            found: CaseRecord = read_json(cls.path(folder, case), cls)
        except DataError:
            return None
        return found

    @classmethod
    def cases(cls, folder: Path) -> list[str]:
        """Return the cases of a folder that have a record, sorted."""
        names = (folder / FOLDER).glob("*.json")
        return sorted(path.name.removesuffix(".json") for path in names if _is_of_case(path))

    def write(self, folder: Path, case: str, outputs: Sequence[Path]) -> None:
        """Read the outputs of a case back, and record what they hold.

        Args:
            folder: The prediction folder.
            case: Name of the case.
            outputs: Its files, just written.

        Raises:
            DataError: One of them cannot be read.
            OSError: The error of the disk.
        """
        files = [part for path in outputs for part in images.parts(path)]
        held = {path.relative_to(folder).as_posix(): content(path) for path in files}
        whole = replace(self, outputs=self.outputs | held)
        atomic.write_json(self.path(folder, case), asdict(whole))

    def holds(self, folder: Path, outputs: Sequence[Path]) -> bool:
        """Whether every output is there, and is byte by byte what was written."""
        try:
            files = [part for path in outputs for part in images.parts(path)]
            # An image whose voxels lie outside the folder by now is not what was written.
            names = [path.relative_to(folder).as_posix() for path in files]
            return all(
                name in self.outputs and content(path) == self.outputs[name]
                for name, path in zip(names, files, strict=True)
            )
        except ValueError:  # a `DataError` among them
            return False

    def check_inputs(self, now: CaseRecord, case: str, folder: Path) -> None:
        """Refuse inputs that have changed since the case was done.

        Raises:
            DataError: One has; the message names it.
        """
        changed = first_change(self.members, now.members)
        if changed is None and self.reference and now.reference:
            changed = first_change(self.reference, now.reference)
        if changed is not None:
            raise DataError(
                located(changed, folder),
                f"has changed since case {case} was done in {folder}; choose another folder, or "
                "overwrite",
            )


def as_written(folder: Path, case: str, output: Path) -> bool:
    """Whether an output of a case is what was written; True where nothing is recorded of it.

    Args:
        folder: The prediction folder.
        case: Name of the case.
        output: One of its files.
    """
    known = CaseRecord.read(folder, case)
    name = output.relative_to(folder).as_posix()
    return known is None or name not in known.outputs or known.holds(folder, [output])


def content(path: Path) -> Content:
    """Return size and hash of a whole file.

    Raises:
        DataError: It is no regular file, or it cannot be read.
    """
    found, size = hashlib.sha256(), 0
    with open_regular(path) as file, one_error(path, "a file"):
        while block := file.stream.read(MIB):
            found.update(block)
            size += len(block)
    return Content(size, found.hexdigest())


def _is_of_case(path: Path) -> bool:
    return not path.name.startswith(".tmp-")
