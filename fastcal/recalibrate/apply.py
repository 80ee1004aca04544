"""Applying a calibrator to folders of saved probabilities."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fastcal.cases.combine import Estimator, Member, References, combine
from fastcal.cases.files import CaseFiles
from fastcal.cases.labels import LabelScheme
from fastcal.cases.loop import ProgressOption, part_of
from fastcal.cases.record import copy_description, settle
from fastcal.cases.region_rules import rules_of_references
from fastcal.cases.summary import PredictionSummary, run_part
from fastcal.core.errors import DataError
from fastcal.core.problem import Activation
from fastcal.data.predictions import PredictionFolder, Probabilities, as_tensor
from fastcal.recalibrate.calibrator import Calibrator
from fastcal.recalibrate.ensemble import EnsembleCalibration
from fastcal.recalibrate.file import load
from fastcal.recalibrate.sources import Pool, Sources, invalid, named

_OF_MEMBERS = ("expected_entropy", "mutual_information", "variance", "disagreement")


def apply_folders(
    calibrator: str | Path | Calibrator | EnsembleCalibration,
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    maps: Sequence[str] = ("entropy",),
    cases: Sequence[str] | None = None,
    labels: str | Path | None = None,
    dataset_json: str | Path | None = None,
    n_bins: int = 15,
    closed: Literal["right", "left"] = "right",
    fine_bins: int = 0,
    regions: Sequence[str] = (),
    dtype: Literal["float32", "uint8", "uint16"] = "float32",
    save_probabilities: bool = False,
    num_parts: int = 1,
    part_id: int = 0,
    overwrite: bool = False,
    keep_going: bool = False,
    progress: ProgressOption = False,
) -> PredictionSummary:
    """Calibrate saved probabilities; the files written are those of `ensemble_folders`.

    A case that has all its files is skipped: a killed run goes on where it was.

    Parameters
    ----------
    calibrator
        What `fit_folders` wrote, or a calibrator.
    folders
        Folders of saved probabilities. For a single calibrator no two have the same case; for an
        ensemble they are its members, in the order of the fit.
    out
        Folder for ``CASE.nii.gz`` (labels), ``<map>/CASE.nii.gz``, and ``CASE.npz`` with
        ``save_probabilities``.
    maps
        Any of `fastcal.core.problem.MAPS`; those that compare members need an ensemble of
        ``"member-then-pool"``.
    cases, labels, dataset_json, n_bins, closed, fine_bins, regions, dtype, save_probabilities,
    num_parts, part_id, overwrite, keep_going, progress
        As in `fastcal.predict.ensemble_folders`.

    Raises
    ------
    DataError
        A file that cannot be read or does not fit the others or the calibrator; the message
        names it.
    ValueError
        An option out of range.
    OSError
        The disk's own error.
    """
    made = load(calibrator) if isinstance(calibrator, str | Path) else calibrator
    sources = Sources.open(folders)
    if Path(out).resolve() in {folder.path.resolve() for folder in sources.folders}:
        raise ValueError(f"out: got {out}, which is one of the folders to read")
    files = CaseFiles(
        Path(out),
        tuple(maps),
        dtype=dtype,
        save_probabilities=save_probabilities,
        statistics=labels is not None,
    )
    calibration = _Calibration.of(made, sources, cases)
    for name in files.maps:
        if name in _OF_MEMBERS and not calibration.separate:
            raise ValueError(f"maps: {name} compares members: it needs member-then-pool")
    scheme, activation = sources.reading(dataset_json)
    calibration.check(scheme, activation, sources.folders[0].path)
    estimator = Estimator(
        *(files.needed_maps, scheme, False, activation, calibration.space),
        *(n_bins, closed, fine_bins, rules_of_references(regions, labels)),
    )
    estimator.accumulator()  # complains about options that do not go together
    empty = None if labels is None else estimator.statistics()
    part = part_of(calibration.cases, num_parts=num_parts, part_id=part_id)
    references = None if labels is None else References.find(labels, scheme)
    if references is not None and not keep_going:
        references.require(part)

    files.folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(made.to_dict(), sort_keys=True)
    settings: dict[str, Any] = {
        "folders": [str(folder.path) for folder in sources.folders],
        "calibrator": hashlib.sha256(content.encode()).hexdigest(),
        "activation": activation,
        "dtype": dtype,
    }
    if labels is not None:
        settings |= {
            **{"labels": str(labels), "n_bins": n_bins, "closed": closed},
            **({"fine_bins": fine_bins} if fine_bins else {}),
            **({"regions": list(regions)} if regions else {}),
        }
    settle(files.folder, settings, overwrite=overwrite)
    if (found := sources.description(dataset_json)) is not None:
        copy_description(found, files.folder)

    def work(case: str) -> None:
        results, like = combine(
            lambda: calibration.members(case),
            estimator=estimator,
            case=case,
            references=references,
        )
        files.write(case, results, scheme, like, activation=activation)

    return run_part(
        part,
        work,
        files=files,
        empty=empty,
        num_parts=num_parts,
        part_id=part_id,
        overwrite=overwrite,
        keep_going=keep_going,
        progress=progress,
    )


@dataclass(frozen=True, slots=True)
class _Calibration:
    """A calibrator with the folders of each case."""

    whole: Calibrator | EnsembleCalibration
    places: dict[str, tuple[PredictionFolder, ...]]
    """Case to its folders: one, or one a member."""

    @classmethod
    def of(
        cls,
        made: Calibrator | EnsembleCalibration,
        sources: Sources,
        cases: Sequence[str] | None,
    ) -> _Calibration:
        if isinstance(made, Calibrator):
            return cls(made, {case: (folder,) for case, folder in sources.union(cases)})
        count = len(sources.folders)
        fitted = len(made.calibrators_ or ())
        wanted = (
            fitted if made.order == "member-then-pool" else len(made.weights or sources.folders)
        )
        if count != wanted:
            raise ValueError(f"folders: got {count}, but the ensemble has {wanted} members")
        return cls(made, dict.fromkeys(sources.shared(cases), sources.folders))

    @property
    def cases(self) -> list[str]:
        return sorted(self.places)

    @property
    def separate(self) -> bool:
        """Whether members are calibrated one by one."""
        return (
            isinstance(self.whole, EnsembleCalibration) and self.whole.order == "member-then-pool"
        )

    @property
    def space(self) -> Literal["prob", "logit"]:
        whole = self.whole
        return whole.space if self.separate and isinstance(whole, EnsembleCalibration) else "prob"

    def check(self, scheme: LabelScheme, activation: Activation, folder: Path) -> None:
        """Raise a `DataError` where the predictions are not what was fitted to."""
        whole = self.whole
        one = whole if isinstance(whole, Calibrator) else whole.calibrator
        if (one.multilabel, one.activation) != (scheme.multilabel, activation):
            fitted = "regions" if one.multilabel else one.activation
            here = "regions" if scheme.multilabel else activation
            raise DataError(folder, f"holds {here}, but the calibrator was fitted to {fitted}")

    def members(self, case: str) -> Iterator[Member]:
        """The calibrated probabilities of a case, one member after another."""
        whole, folders = self.whole, self.places[case]
        if isinstance(whole, Calibrator):
            found = folders[0].probabilities(case)
            yield _member(found, whole)
        elif whole.order == "pool-then-calibrate":
            assert whole.calibrators_ is not None
            yield _member(Pool(folders, whole).mean(case), whole.calibrators_[0])
        else:
            weights = whole.weights or [1.0] * len(folders)
            for folder, own, weight in zip(folders, whole.calibrators_ or (), weights, strict=True):
                yield _member(folder.probabilities(case), own, weight)


def _member(found: Probabilities, calibrator: Calibrator, weight: float = 1.0) -> Member:
    try:
        values = calibrator.transform(as_tensor(found)[None])
    except ValueError as error:
        raise named(error, found.source) from error
    return Member(_checked(values, found), found.like, found.source, weight)


def _checked(values: Tensor, found: Probabilities) -> Tensor:
    bad = int(torch.isnan(values[0, 0]).sum())
    if bad:
        raise DataError(found.source, invalid(bad))
    return values
