"""The source of calibrated probabilities: saved ones that a calibrator is applied to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fastcal.cases.plausible import check_read
from fastcal.cases.saved import SavedFolders
from fastcal.cases.settings import MemberReading
from fastcal.cases.source import Member, Origin
from fastcal.core.errors import DataError
from fastcal.data.predictions import PredictionFolder, Probabilities, Stack
from fastcal.recalibrate.calibrator import Calibrator
from fastcal.recalibrate.ensemble import EnsembleCalibration
from fastcal.recalibrate.fitted_to import FittedTo
from fastcal.recalibrate.pool import Pool, invalid, raise_named

_COMPARE_MEMBERS = ("expected_entropy", "mutual_information", "variance", "disagreement")


@dataclass(frozen=True, slots=True)
class CalibratedProbabilities:
    """Saved probabilities through a calibrator; see `fastcal.cases.source.Source`."""

    calibrator: Calibrator | EnsembleCalibration
    saved: SavedFolders
    places: Mapping[str, Sequence[PredictionFolder]]
    """The folders of each case: one, or one per member."""
    reading: MemberReading
    dataset_json: Path | None
    file: Path | None = None
    """The file of the calibrator, if it was read from one."""

    @classmethod
    def of(
        cls,
        calibrator: Calibrator | EnsembleCalibration,
        saved: SavedFolders,
        cases: Sequence[str] | None,
        dataset_json: Path | None,
        *,
        keep_going: bool,
    ) -> CalibratedProbabilities:
        """Find the cases, and check that they are what was fitted to.

        Args:
            calibrator: Fitted.
            saved: Folders of different cases, or of the members of an ensemble.
            cases: Names of the cases wanted; None for all.
            dataset_json: Describes the labels.
            keep_going: Leave a case that a member lacks to the loop.

        Raises:
            DataError: A case is missing or in two folders, or the predictions have other classes
                or another activation than those of the fit.
            ValueError: The number of folders is not that of the ensemble's members.
        """
        places: dict[str, Sequence[PredictionFolder]]
        if isinstance(calibrator, Calibrator):
            places = {case: (folder,) for case, folder in saved.union(cases).items()}
        else:
            _check_count(calibrator, saved)
            places = dict.fromkeys(saved.shared(cases, complete=not keep_going), saved.folders)
        reading = saved.reading(list(places), dataset_json, keep_going=keep_going)
        _check_fitted(calibrator, reading, saved.folders[0].path)
        _check_order(calibrator, reading, dataset_json or saved.folders[0].path)
        if (ensemble := _of_members(calibrator)) is not None:
            reading = replace(reading, space=ensemble.space)
        return cls(calibrator, saved, places, reading, dataset_json)

    @property
    def cases(self) -> list[str]:
        """Names of the cases, sorted."""
        return sorted(self.places)

    @property
    def origin(self) -> Origin:
        """What the predictions depend on."""
        content = json.dumps(self.calibrator.to_dict(), sort_keys=True)
        settings = {
            "folders": self.saved.paths,
            "dataset_json": self.dataset_json,
            "calibrator": hashlib.sha256(content.encode()).hexdigest(),
            "activation": self.reading.activation,
        }
        folders, shared = self.saved.paths, self.saved.shared_files(self.dataset_json)
        if self.file is not None:
            folders.append(self.file.parent)
        return Origin(
            command="recalibrate apply", settings=settings, folders=folders, shared=shared
        )

    def moved(self, device: torch.device) -> CalibratedProbabilities:
        """Return the source itself: calibrators compute on the CPU."""
        del device
        return self

    def inputs(self, case: str) -> list[Path]:
        """The files of a case in the folders that have it."""
        return [path for folder in self.places[case] for path in folder.files(case)]

    @property
    def fitted_to(self) -> tuple[FittedTo, ...]:
        """What the calibrator, or each of an ensemble's, was fitted to, where that is known."""
        return _fitted_to(self.calibrator)

    @property
    def advice(self) -> str:
        """What to do when memory runs out."""
        return "out of memory: choose fewer maps"

    def check_maps(self, maps: Sequence[str]) -> None:
        """Refuse maps that compare members where their mean is calibrated.

        Raises:
            ValueError: There is one.
        """
        for name in maps:
            if name in _COMPARE_MEMBERS and _of_members(self.calibrator) is None:
                raise ValueError(
                    "maps must not compare members unless the calibrator is an ensemble of "
                    f"'member-then-pool', got {name!r}"
                )

    def read(self, case: str) -> Iterator[Probabilities]:
        """Read the probabilities of a case, one folder after another."""
        if not isinstance(self.calibrator, Calibrator):
            self.saved.require(case)
        for folder in self.places[case]:
            # No local name: the array must be gone when its member is.
            yield folder.probabilities(case)

    def stacks(self, case: str) -> list[Stack]:
        """Open the files of a case, to read them slab by slab."""
        if not isinstance(self.calibrator, Calibrator):
            self.saved.require(case)
        return [folder.stack(case) for folder in self.places[case]]

    def members(self, case: str, pieces: Iterator[Probabilities]) -> Iterator[Member]:
        """Give the calibrated probabilities of a case, one member after another."""
        whole, folders = self.calibrator, self.places[case]
        if isinstance(whole, Calibrator):
            yield self._calibrated(next(pieces), whole)
        elif _of_members(whole) is None:
            assert whole.calibrators_ is not None
            yield self._calibrated(Pool(folders, whole).mean(case, pieces), whole.calibrators_[0])
        else:
            weights = whole.weights or [1.0] * len(folders)
            for own, weight in zip(whole.calibrators_ or (), weights, strict=True):
                yield self._calibrated(next(pieces), own, weight)

    def _calibrated(
        self, found: Probabilities, calibrator: Calibrator, weight: float = 1.0
    ) -> Member:
        self.reading.scheme.check_channels(found.data.shape[0], found.source)
        check_read(
            found,
            from_logits=calibrator.from_logits,
            activation=self.reading.activation,
            multilabel=self.reading.scheme.multilabel,
        )
        return _calibrated(found, calibrator, weight)


def _fitted_to(calibrator: Calibrator | EnsembleCalibration) -> tuple[FittedTo, ...]:
    found = calibrator.fitted_to_
    return found if isinstance(found, tuple) else (() if found is None else (found,))


def _of_members(calibrator: Calibrator | EnsembleCalibration) -> EnsembleCalibration | None:
    """Return the ensemble if its members are calibrated one by one."""
    if isinstance(calibrator, Calibrator) or calibrator.order != "member-then-pool":
        return None
    return calibrator


def _check_count(ensemble: EnsembleCalibration, saved: SavedFolders) -> None:
    count = len(saved.folders)
    if _of_members(ensemble) is None:
        wanted = len(ensemble.weights or saved.folders)
    else:
        wanted = len(ensemble.calibrators_ or ())
    if count != wanted:
        raise ValueError(f"folders must be the {wanted} members of the ensemble, got {count}")


def _check_fitted(
    calibrator: Calibrator | EnsembleCalibration, reading: MemberReading, folder: Path
) -> None:
    one = calibrator if isinstance(calibrator, Calibrator) else calibrator.calibrator
    multilabel = reading.scheme.multilabel
    if (one.multilabel, one.activation) != (multilabel, reading.activation):
        fitted = "label groups" if one.multilabel else one.activation
        here = "label groups" if multilabel else reading.activation
        raise DataError(folder, f"holds {here}, but the calibrator was fitted to {fitted}")


def _check_order(
    calibrator: Calibrator | EnsembleCalibration, reading: MemberReading, source: Path
) -> None:
    for known in _fitted_to(calibrator):
        try:
            known.check_order(reading.scheme.structures)
        except ValueError as error:
            raise DataError(source, str(error)) from error


def _calibrated(found: Probabilities, calibrator: Calibrator, weight: float) -> Member:
    member = Member.of(found)
    try:
        values = calibrator.transform(member.values)
    except ValueError as error:
        raise_named(error, found.source)
    bad = int(torch.isnan(values[0, 0]).sum())
    if bad:
        raise DataError(found.source, invalid(bad))
    return replace(member, values=values, weight=weight)
