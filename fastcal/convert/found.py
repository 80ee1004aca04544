"""What a reader of a dataset finds: cases, their files, and everything that is wrong with them."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fastcal.core.doors import one_error, read_text
from fastcal.core.errors import DataError
from fastcal.data import images, nifti

Part = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class Source:
    """A volume to convert: a file, or a frame or channel of one with four axes."""

    path: Path
    frame: int | None = None
    """Index along the fourth axis, from 0; None for a file of three axes."""


@dataclass(frozen=True, slots=True)
class FoundCase:
    """A case of a dataset as it was downloaded."""

    name: str
    images: tuple[Source, ...]
    """One per channel."""
    label: Source | None
    part: Part
    """The part of the dataset's own split; cases without a label are never trained on."""
    patient: str
    """Whose cases stay together in a split."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """What else is known of the case, for cases.csv."""

    @property
    def files(self) -> list[Path]:
        """Every file that the case is made of.

        Raises:
            DataError: The header of one that lies in two files cannot be read.
        """
        sources = dict.fromkeys(one.path for one in (*self.images, self.label) if one is not None)
        return [part for path in sources for part in images.parts(path)]

    @property
    def trains(self) -> bool:
        """Whether the case goes to imagesTr: labelled, and no test case."""
        return self.label is not None and self.part != "test"


@dataclass(frozen=True, slots=True)
class FoundSet:
    """A dataset as it was downloaded."""

    title: str
    channel_names: tuple[str, ...]
    labels: Mapping[str, int]
    """Values in the files that are written, by name, background 0 first."""
    label_map: Mapping[int, int] | None
    """Values written by values read; None makes every value above 0 a 1."""
    cases: Sequence[FoundCase]
    group: str | None = None
    """The column that splits hold out one value after another: centre, site or vendor."""
    balanced: str | None = None
    """The column whose values validation should represent; None is that of ``group``."""


class Search:
    """Finds files of a dataset, and notes what is missing instead of raising.

    Args:
        root: The folder that was downloaded.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[DataError] = []

    def note(self, path: Path, problem: str) -> None:
        """Note what is wrong with a file or folder."""
        self.problems.append(DataError(path, problem))

    def file(
        self,
        folder: Path,
        stem: str,
        *,
        endings: Sequence[str] = nifti.ENDINGS,
        required: bool = True,
    ) -> Path | None:
        """Return the file of a name, with whichever ending it has.

        Args:
            folder: Where it lies.
            stem: Its name without the ending.
            endings: The endings it may have.
            required: Note a problem if there is none.
        """
        names = [f"{stem}{ending}" for ending in endings]
        found = [folder / name for name in names if (folder / name).exists()]
        if len(found) > 1:
            listed = " and ".join(file.name for file in found)
            self.note(folder, f"must have one file {stem}, got {listed}")
        if not found and required:
            self.note(folder / names[0], "no such file")
        return found[0] if found else None

    def folders(self) -> Iterator[Path]:
        """Give the root and every folder below it, sorted, but for hidden ones.

        Links to folders are followed, each folder once: links may lead in circles.
        """
        seen = {self.root.resolve()}
        for place, names, _ in os.walk(self.root, followlinks=True):
            yield Path(place)
            shown, names[:] = sorted(filter(visible, names)), []
            for name in shown:
                real = (Path(place) / name).resolve()
                if real not in seen:
                    seen.add(real)
                    names.append(name)

    def volumes(self, folder: Path) -> Iterator[tuple[Path, str]]:
        """Give the images at the top of a folder with their names without ending, sorted."""
        for path in sorted(folder.iterdir()):
            ending = images.ending_of(path.name)
            if ending in images.LOCATED and visible(path.name):
                yield path, path.name.removesuffix(ending)

    def within(self, folder: Path) -> str:
        """Return the names from the root down to a folder in small letters, to look for words."""
        return "/".join((self.root.resolve().name, *folder.relative_to(self.root).parts)).lower()


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a CSV file with a header: its rows by column, without blanks around the words.

    Raises:
        DataError: It is no such file.
    """
    text = read_text(path)
    with one_error(path, "a CSV file"):
        return [
            {
                key.strip(): value.strip()
                for key, value in row.items()
                if isinstance(key, str) and isinstance(value, str)
            }
            for row in csv.DictReader(io.StringIO(text))
        ]


def visible(name: str) -> bool:
    """Whether a name is neither hidden nor what macOS adds to archives (``__MACOSX``, ``._x``)."""
    return not name.startswith((".", "__"))
