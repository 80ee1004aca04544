"""Cases on disk: saved probabilities with their labels, read again at every pass of a fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from fastcal import EnsembleAccumulator
from fastcal.cases.combine import References
from fastcal.cases.labels import LabelScheme
from fastcal.cases.reference import check_same_grid, find_dataset_json
from fastcal.core.errors import DataError
from fastcal.core.problem import Activation
from fastcal.data.nifti import Geometry
from fastcal.data.predictions import PredictionFolder, Probabilities, as_tensor
from fastcal.recalibrate.ensemble import EnsembleCalibration

Report: TypeAlias = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class Sources:
    """Folders of saved probabilities, opened."""

    folders: tuple[PredictionFolder, ...]
    contents: tuple[frozenset[str], ...]
    """Cases of each folder."""

    @classmethod
    def open(cls, folders: Sequence[str | Path]) -> Sources:
        """Open folders; one that holds ``fold_*/validation`` stands for these.

        Raises:
            DataError: A folder is missing, or has no probabilities.
        """
        if isinstance(folders, str | Path) or not folders:
            raise ValueError(f"folders: got {folders!r}, expected at least one, in a list")
        opened = tuple(PredictionFolder(path) for given in folders for path in _parts(Path(given)))
        contents = tuple(frozenset(folder.cases()) for folder in opened)
        for folder, names in zip(opened, contents, strict=True):
            if not names:
                raise DataError(folder.path, "no saved probabilities in this folder")
        return cls(opened, contents)

    def union(self, cases: Sequence[str] | None) -> list[tuple[str, PredictionFolder]]:
        """Every case with its folder, sorted by name; of those wanted where ``cases`` tells.

        Raises:
            DataError: A case is in two folders, or in none.
        """
        found: dict[str, PredictionFolder] = {}
        for folder, names in zip(self.folders, self.contents, strict=True):
            for case in sorted(names):
                if case in found:
                    raise DataError(
                        folder.path,
                        f"case {case} is in {found[case].path} too; folders of an ensemble's "
                        "members need the ensemble option",
                    )
                found[case] = folder
        if cases is not None:
            for case in cases:
                if case not in found:
                    raise DataError(self.folders[0].path, f"no probabilities of case {case}")
        return [(case, found[case]) for case in sorted(found if cases is None else set(cases))]

    def shared(self, cases: Sequence[str] | None) -> list[str]:
        """The cases of all folders, sorted; of those wanted where ``cases`` tells.

        Raises:
            DataError: A folder lacks a case.
        """
        every = sorted(frozenset().union(*self.contents) if cases is None else set(cases))
        for case in every:
            for folder, names in zip(self.folders, self.contents, strict=True):
                if case not in names:
                    other = ", which another folder has" if cases is None else ""
                    raise DataError(folder.path, f"no probabilities of case {case}{other}")
        return every

    def each(self, cases: Sequence[str] | None) -> list[list[tuple[str, PredictionFolder]]]:
        """The cases of every folder on its own, sorted; of those wanted where ``cases`` tells.

        Raises:
            DataError: No folder has a case that is wanted, or a folder has none of them.
        """
        every = frozenset().union(*self.contents)
        wanted = every if cases is None else frozenset(cases)
        for case in sorted(wanted - every):
            raise DataError(self.folders[0].path, f"no probabilities of case {case}")
        rows = []
        for folder, names in zip(self.folders, self.contents, strict=True):
            if not names & wanted:
                raise DataError(folder.path, "has none of the cases wanted")
            rows.append([(case, folder) for case in sorted(names & wanted)])
        return rows

    def description(self, dataset_json: str | Path | None) -> Path | None:
        """The ``dataset.json`` in use: the one given, else one in or above the folders."""
        if dataset_json is not None:
            return Path(dataset_json)
        return find_dataset_json(*(folder.path for folder in self.folders))

    def reading(self, dataset_json: str | Path | None) -> tuple[LabelScheme, Activation]:
        """What the channels are and how they were activated, from the first file."""
        first = self.folders[0].probabilities(min(self.contents[0]))
        described = self.description(dataset_json)
        if described is None:
            scheme = LabelScheme.of_classes(first.data.shape[0])
        else:
            scheme = LabelScheme.read(described)
        sigmoid = first.activation == "sigmoid" or scheme.multilabel
        return scheme, "sigmoid" if sigmoid else "softmax"


def _parts(folder: Path) -> list[Path]:
    validation = sorted(folder.glob("fold_*/validation"))
    return [path for path in validation if path.is_dir()] or [folder]


class CaseVolumes:
    """``(preds, target, mask)`` of cases on disk, one in memory at a time, as often as wanted.

    ``current`` is the file that was read last, for the error message of whoever reads.

    Args:
        cases: Case names, each with its folder.
        references: Their labels.
        report: Told of every case read: the pass, from 1, and the case.
    """

    def __init__(
        self,
        cases: Sequence[tuple[str, PredictionFolder]],
        references: References,
        report: Report | None = None,
    ) -> None:
        references.require([case for case, _ in cases])
        self._cases, self._references, self._report = cases, references, report
        self._passes = 0
        self.current: Path | None = None

    @property
    def cases(self) -> list[str]:
        return [case for case, _ in self._cases]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        self._passes += 1
        for case, folder in self._cases:
            if self._report is not None:
                self._report(self._passes, case)
            found = folder.probabilities(case)
            self.current = found.source
            yield (as_tensor(found)[None], *target_of(case, found, self._references))


class PooledVolumes:
    """`CaseVolumes` of the mean of an ensemble's members, read and added one after another."""

    def __init__(
        self,
        cases: Sequence[str],
        pool: Pool,
        references: References,
        report: Report | None = None,
    ) -> None:
        references.require(cases)
        self._cases, self._pool, self._references = cases, pool, references
        self._report = report
        self._passes = 0
        self.current: Path | None = None

    @property
    def cases(self) -> list[str]:
        return list(self._cases)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        self._passes += 1
        for case in self._cases:
            if self._report is not None:
                self._report(self._passes, case)
            found = self._pool.mean(case)
            self.current = found.source
            yield (as_tensor(found)[None], *target_of(case, found, self._references))


@dataclass(frozen=True, slots=True)
class Pool:
    """Members whose mean is wanted, as `EnsembleCalibration` takes it."""

    folders: Sequence[PredictionFolder]
    ensemble: EnsembleCalibration

    def mean(self, case: str) -> Probabilities:
        """Mean probabilities of a case [C, X, Y, Z], one member in memory at a time.

        Raises:
            DataError: A file that cannot be read, or differs from the first in shape, type or
                place, or has NaN.
        """
        one = self.ensemble.calibrator
        accumulator = EnsembleAccumulator(
            ("mean",),
            from_logits=one.from_logits,
            activation=one.activation,
            multilabel=one.multilabel,
            space=self.ensemble.space,
        )
        first: Probabilities | None = None
        weights = self.ensemble.weights or [1.0] * len(self.folders)
        for folder, weight in zip(self.folders, weights, strict=True):
            found = folder.probabilities(case)
            if first is not None:
                _check_member(found, first)
            try:
                accumulator.update(as_tensor(found)[None], weight=weight)
            except ValueError as error:
                raise named(error, found.source) from error
            # Without its voxels: they must be gone before the next are read.
            kept = np.broadcast_to(found.data.dtype.type(0), found.data.shape)
            first = replace(found, data=kept) if first is None else first
            del found
        assert first is not None
        mean = accumulator.finalize().mean
        assert mean is not None
        if bool(mean[0, 0].isnan().any()):
            raise self._culprit(case, first.source)
        return replace(first, data=mean[0].numpy())

    def _culprit(self, case: str, first: Path) -> DataError:
        """Find the member that made the mean invalid."""
        for folder in self.folders:
            found = folder.probabilities(case)
            values = as_tensor(found)
            valid = self.ensemble.calibrator.reading.valid(values.reshape(len(values), -1))
            if not bool(valid.all()):
                return DataError(found.source, invalid(int((~valid).sum())))
        return DataError(first, "the mean of the members is not a number in some voxels")


def target_of(
    case: str, found: Probabilities, references: References
) -> tuple[Tensor, Tensor | None]:
    """The target of a case and its mask, each with a batch axis of one.

    Raises:
        DataError: Labels that do not lie on the grid of the probabilities, or are out of range.
    """
    scheme = references.scheme
    scheme.check_channels(found.data.shape[0], found.source)
    labels = references.read(case, geometry_of(case, found, references), found.source)
    target = torch.from_numpy(scheme.target(labels))[None]
    kept = scheme.kept(labels)
    return target, None if kept is None else torch.from_numpy(kept)[None]


def geometry_of(case: str, found: Probabilities, references: References | None) -> Geometry:
    """Where probabilities lie: their own geometry, else that of the case's labels.

    Raises:
        DataError: Neither tells, or the shapes differ.
    """
    if found.like is not None:
        return found.like
    if references is None:
        raise DataError(
            found.source, "no geometry: expected CASE.nii.gz or CASE.pkl beside it, or labels"
        )
    like = references.geometry(case)
    check_same_grid(found.source, found.data.shape[1:], None, like, expected=references.paths[case])
    return like


def _check_member(one: Probabilities, first: Probabilities) -> None:
    """Raise a `DataError` where a member differs from the first in shape, type or place."""
    if one.data.shape != first.data.shape or one.data.dtype != first.data.dtype:
        raise DataError(
            one.source,
            f"{one.data.dtype} of shape {one.data.shape}, but {first.data.dtype} of "
            f"{first.data.shape} in {first.source}",
        )
    if one.like is not None and first.like is not None:
        check_same_grid(
            one.source, one.like.shape, one.like.affine, first.like, expected=first.source
        )


def invalid(count: int) -> str:
    """What is wrong with a file of ``count`` invalid voxels."""
    return f"{count} voxels without valid values (NaN, or probabilities outside [0, 1])"


def named(error: ValueError, source: Path | None) -> ValueError:
    """A ValueError of a fit or transform as a `DataError` that names the file it was reading."""
    if isinstance(error, DataError) or source is None:
        return error
    return DataError(source, str(error))
