"""Folders of saved probabilities, and the source that averages them as members of an ensemble."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fastcal.cases.labels import LabelScheme
from fastcal.cases.plausible import check_read
from fastcal.cases.record import digests
from fastcal.cases.settings import MemberReading
from fastcal.cases.source import Member, Origin
from fastcal.core.errors import DataError
from fastcal.core.upload import Uploads
from fastcal.data import description, images
from fastcal.data.predictions import PredictionFolder, Probabilities, Stack


@dataclass(frozen=True, slots=True)
class SavedFolders:
    """Folders of saved probabilities, opened."""

    folders: tuple[PredictionFolder, ...]
    contents: tuple[frozenset[str], ...]
    """Cases of each folder."""

    @classmethod
    def open(
        cls,
        folders: Sequence[str | Path],
        *,
        dataset_json: str | Path | None = None,
        folds: bool = False,
        allow_duplicates: bool = False,
    ) -> SavedFolders:
        """Open folders.

        Args:
            folders: At least one.
            dataset_json: Describes the labels; by default the one in or above the folders.
            folds: A folder that holds ``fold_*/validation`` stands for these.
            allow_duplicates: Take a folder that is there twice.

        Raises:
            DataError: A folder is missing, has no probabilities, names labels otherwise than
                another one, or is there twice, by another path or as a copy.
            ValueError: There is no folder.
        """
        if isinstance(folders, str | Path) or not folders:
            raise ValueError(f"folders must be a list of at least one folder, got {folders!r}")
        paths = [Path(folder) for folder in folders]
        if folds:
            paths = [path for folder in paths for path in _validation(folder)]
        described = description.find(*paths) if dataset_json is None else Path(dataset_json)
        groups = None
        if described is not None and all(path.is_dir() for path in paths):
            groups = description.read(described).label_groups is not None
        opened = tuple(PredictionFolder(path, multilabel=groups) for path in paths)
        contents = tuple(frozenset(folder.cases()) for folder in opened)
        for folder, names in zip(opened, contents, strict=True):
            if not names:
                raise DataError(folder.path, "no saved probabilities in this folder")
        found = cls(opened, contents)
        found._check_described()
        if not allow_duplicates:
            found._check_different()
        return found

    @property
    def paths(self) -> list[Path]:
        """The folders, for the record of a run."""
        return [folder.path for folder in self.folders]

    def shared_files(self, dataset_json: Path | None) -> list[Path]:
        """Return the ``dataset.json`` in use, and those that the folders themselves have."""
        found = [dataset_json, *(description.find(path) for path in self.paths)]
        return list(dict.fromkeys(path for path in found if path is not None))

    def shared(self, cases: Sequence[str] | None, *, complete: bool = True) -> list[str]:
        """Return the cases of folders that have the same ones, sorted.

        Args:
            cases: Names of the cases wanted; None for all.
            complete: Refuse a case that a folder lacks.

        Raises:
            DataError: A folder lacks a case, or none has a case that is wanted.
        """
        wanted = self._wanted(cases)
        if complete:
            for case in wanted:
                self.require(case)
        return wanted

    def require(self, case: str) -> None:
        """Raise a `DataError` that names the first folder without a case."""
        for folder, names in zip(self.folders, self.contents, strict=True):
            if case not in names:
                raise DataError(
                    folder.path, f"no probabilities of case {case}, which another folder has"
                )

    def union(self, cases: Sequence[str] | None) -> dict[str, PredictionFolder]:
        """Return the folder of each case, for folders of which no two have the same one.

        Args:
            cases: Names of the cases wanted; None for all.

        Raises:
            DataError: A case is in two folders, or a case that is wanted is in none.
        """
        found: dict[str, PredictionFolder] = {}
        for folder, names in zip(self.folders, self.contents, strict=True):
            for case in sorted(names):
                if case in found:
                    raise DataError(
                        folder.path,
                        f"case {case} is also in {found[case].path}; folders of an ensemble's "
                        "members need the ensemble option",
                    )
                found[case] = folder
        return {case: found[case] for case in self._wanted(cases)}

    def each(self, cases: Sequence[str] | None) -> list[dict[str, PredictionFolder]]:
        """Return, for each folder, its cases with the folder itself.

        Args:
            cases: Names of the cases wanted; None for all.

        Raises:
            DataError: No folder has a case that is wanted, or a folder has none of them.
        """
        wanted = frozenset(self._wanted(cases))
        for folder, names in zip(self.folders, self.contents, strict=True):
            if not names & wanted:
                raise DataError(folder.path, "none of the cases wanted are in this folder")
        return [
            dict.fromkeys(sorted(names & wanted), folder)
            for folder, names in zip(self.folders, self.contents, strict=True)
        ]

    def dataset_json(self, given: str | Path | None) -> Path | None:
        """Return the ``dataset.json`` in use: the one given, else one in or above the folders."""
        if given is not None:
            return Path(given)
        return description.find(*(folder.path for folder in self.folders))

    def file_ending(self, dataset_json: Path | None) -> str:
        """Return the ending of files to write: that of ``dataset.json`` where it is a known format.

        Raises:
            DataError: The file cannot be read.
        """
        if dataset_json is None:
            return images.DEFAULT
        ending = description.read(dataset_json).file_ending
        return ending if ending in images.ENDINGS else images.DEFAULT

    def reading(
        self, cases: Sequence[str], dataset_json: Path | None, *, keep_going: bool = False
    ) -> MemberReading:
        """Return what the channels are and how they were activated, from the first file.

        Without a ``dataset.json`` they are exclusive classes, as many as the file has.

        Args:
            cases: Cases of the run, the first of which is read.
            dataset_json: Describes the labels.
            keep_going: Read the next file if the first cannot be read.

        Raises:
            DataError: No file can be read.
        """
        first = self._first(cases, keep_going=keep_going)
        if dataset_json is None:
            scheme = LabelScheme.of_classes(first.data.shape[0])
        else:
            scheme = LabelScheme.read(dataset_json)
        sigmoid = first.activation == "sigmoid" or scheme.multilabel
        return MemberReading(scheme, "sigmoid" if sigmoid else "softmax")

    def _check_described(self) -> None:
        """Refuse folders whose ``dataset.json`` give one name to different labels."""
        values: dict[str, tuple[int, Path]] = {}
        for folder in self.folders:
            path = description.find(folder.path)
            if folder.description is None or path is None:
                continue
            for name, value in folder.description.labels.items():
                known, source = values.setdefault(name, (value, path))
                if value != known:
                    raise DataError(
                        path, f"label {name!r} must be {known} as in {source}, got {value}"
                    )

    def _check_different(self) -> None:
        """Refuse a folder that is there twice: by another path, or as a copy."""
        firsts = [_stored(folder, min(names)) for folder, names in self._each()]
        for number, (folder, names) in enumerate(self._each()):
            for earlier in range(number):
                other = self.folders[earlier]
                alike = names == self.contents[earlier] and firsts[number] == firsts[earlier]
                if folder.path.samefile(other.path) or (
                    alike and all(_stored(folder, one) == _stored(other, one) for one in names)
                ):
                    raise DataError(
                        folder.path,
                        f"must be another member than {other.path}, got the same files; duplicates "
                        "must be allowed (--allow-duplicates)",
                    )

    def _each(self) -> Iterator[tuple[PredictionFolder, frozenset[str]]]:
        return zip(self.folders, self.contents, strict=True)

    def _wanted(self, cases: Sequence[str] | None) -> list[str]:
        every = frozenset().union(*self.contents)
        for case in cases or ():
            if case not in every:
                raise DataError(self.folders[0].path, f"no probabilities of case {case}")
        return sorted(every if cases is None else set(cases))

    def _first(self, cases: Sequence[str], *, keep_going: bool) -> Probabilities:
        failure: DataError | None = None
        for case in cases:
            for folder, names in zip(self.folders, self.contents, strict=True):
                if case not in names:
                    continue
                try:
                    return folder.described(case)
                except DataError as error:
                    if not keep_going:
                        raise
                    failure = failure or error
        raise failure or DataError(self.folders[0].path, "no saved probabilities in this folder")


@dataclass(frozen=True, slots=True)
class SavedProbabilities:
    """The source of an ensemble whose members are folders; see `fastcal.cases.source.Source`.

    Raises:
        ValueError: The weights or temperatures are out of range, or not one per folder.
    """

    saved: SavedFolders
    cases: Sequence[str]
    reading: MemberReading
    weights: Sequence[float]
    """One number per folder."""
    temperatures: Sequence[float]
    """One number per folder."""
    dataset_json: Path | None
    device: torch.device
    """Where the members are combined."""

    def __post_init__(self) -> None:
        count = len(self.saved.folders)
        for name, values in (("weights", self.weights), ("temperature", self.temperatures)):
            if len(values) != count:
                raise ValueError(
                    f"{name} must hold one number per folder: {count}, got {len(values)}"
                )
        if not all(0 <= weight < math.inf for weight in self.weights) or not any(self.weights):
            raise ValueError(f"weights must be at least 0 and not all 0, got {self.weights}")
        if not all(0 < scale < math.inf for scale in self.temperatures):
            raise ValueError(f"temperature must be above 0, got {self.temperatures}")

    @property
    def origin(self) -> Origin:
        """What the predictions depend on."""
        settings = {
            "folders": self.saved.paths,
            "dataset_json": self.dataset_json,
            "weights": list(self.weights),
            "temperature": list(self.temperatures),
            "from_logits": self.reading.from_logits,
            "activation": self.reading.activation,
            "space": self.reading.space,
        }
        return Origin(
            command="ensemble",
            settings=settings,
            folders=self.saved.paths,
            shared=self.saved.shared_files(self.dataset_json),
        )

    def moved(self, device: torch.device) -> SavedProbabilities:
        """Return the source on another device."""
        return replace(self, device=device)

    def inputs(self, case: str) -> list[Path]:
        """The files of a case in every folder."""
        return [path for folder in self.saved.folders for path in folder.files(case)]

    @property
    def advice(self) -> str:
        """What to do when memory runs out."""
        other = ", or choose device cpu" if self.device.type == "cuda" else ""
        return f"out of memory on {self.device}: choose fewer maps{other}"

    def read(self, case: str) -> Iterator[Probabilities]:
        """Read the probabilities of a case, in the order of the folders, two at once.

        With one thread, one after another.
        """
        self.saved.require(case)
        folders = self.saved.folders
        if torch.get_num_threads() == 1:
            for folder in folders:
                yield folder.probabilities(case)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="fastcal-read") as beside:
            for first in range(0, len(folders), 2):
                one, *other = folders[first : first + 2]
                # No local name holds an array, or it would stay when its member is gone.
                run = copy_context().run
                later = [beside.submit(run, folder.probabilities, case) for folder in other]
                yield one.probabilities(case)
                while later:
                    yield later.pop().result()

    def stacks(self, case: str) -> list[Stack]:
        """Open the files of a case, to read them slab by slab."""
        self.saved.require(case)
        return [folder.stack(case) for folder in self.saved.folders]

    def members(self, case: str, pieces: Iterator[Probabilities]) -> Iterator[Member]:
        """Check what was read, and bring it to the device."""
        del case
        bring = Uploads(self.device)
        for number in range(len(self.saved.folders)):
            yield self._member(next(pieces), number, bring)

    def _member(self, found: Probabilities, number: int, bring: Uploads) -> Member:
        check_read(
            found,
            from_logits=self.reading.from_logits,
            activation=self.reading.activation,
            multilabel=self.reading.scheme.multilabel,
        )
        member = Member.of(found)
        return replace(
            member,
            values=bring(member.values),
            weight=self.weights[number],
            temperature=self.temperatures[number],
        )


def _stored(folder: PredictionFolder, case: str) -> list[tuple[int, str, int | None]]:
    """What tells whether two folders hold the same files of a case."""
    try:
        found = digests(folder.files(case), folder.path)
    except DataError:
        return [(0, str(folder.path), None)]  # what cannot be read is like nothing else
    return [(one.size, one.sha256, one.whole) for one in found.values()]


def _validation(folder: Path) -> list[Path]:
    """Return the validation folders of nnU-Net's cross validation, or the folder itself."""
    found = sorted(folder.glob("fold_*/validation"))
    return [path for path in found if path.is_dir()] or [folder]
