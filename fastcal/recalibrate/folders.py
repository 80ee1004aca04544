"""Fitting to folders of saved probabilities with labels, such as nnU-Net's cross validation."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastcal.cases.journal import journal_beside
from fastcal.cases.loop import ProgressOption
from fastcal.cases.reference import LabelMaps
from fastcal.cases.saved import SavedFolders
from fastcal.cases.workers import Workers
from fastcal.core.arguments import whole_number
from fastcal.core.errors import DataError
from fastcal.core.places import check_out_file, check_outputs
from fastcal.core.problem import Space
from fastcal.data.listing import check_text
from fastcal.recalibrate import methods
from fastcal.recalibrate.calibrator import Calibrator
from fastcal.recalibrate.case_volumes import CaseVolumes
from fastcal.recalibrate.dealt import read_by
from fastcal.recalibrate.ensemble import ORDERS, EnsembleCalibration, EnsembleOrder
from fastcal.recalibrate.fitted_to import FittedTo
from fastcal.recalibrate.held_out import HeldOut, all_held_out_scores
from fastcal.recalibrate.pool import Pool, raise_named


@dataclass(frozen=True, slots=True)
class FolderFit:
    """Result of `fit_folders`."""

    calibrator: Calibrator | EnsembleCalibration
    out: Path
    """The JSON file."""
    cases: tuple[str, ...]
    """Cases of the fit."""
    held_out: tuple[HeldOut, ...]
    """Scores of each calibrator before and after on held-out folds; empty where there are none."""
    journal: Path | None = None
    """Where workers read the cases: what became of each, see `fastcal.cases.journal`."""

    @property
    def calibrators(self) -> tuple[Calibrator, ...]:
        """The calibrator, or those of the ensemble."""
        if isinstance(self.calibrator, Calibrator):
            return (self.calibrator,)
        return tuple(self.calibrator.calibrators_ or ())


def fit_folders(
    folders: Sequence[str | Path],
    labels: str | Path,
    out: str | Path,
    *,
    method: str = "temperature",
    ensemble: EnsembleOrder | None = None,
    from_logits: bool = False,
    weights: Sequence[float] | None = None,
    space: Space = "prob",
    cases: Sequence[str] | None = None,
    dataset_json: str | Path | None = None,
    n_bins: int = 15,
    odir: float = 1e-5,
    folds: int = 5,
    allow_duplicates: bool = False,
    scheduler: str | None = None,
    workers: int | None = None,
    progress: ProgressOption = False,
) -> FolderFit:
    """Fit a calibrator to saved probabilities and write it as JSON.

    Cases are read one at a time, and again at every pass.

    Args:
        folders: Folders with ``CASE.npz`` as nnU-Net's ``--save_probabilities`` writes it, 4-D
            NIfTI or ``.npy``. A folder that holds ``fold_*/validation`` stands for these.
        labels: Folder of reference label maps ``CASE.nii.gz``.
        out: The JSON file to write, whole or not at all.
        method: One of `fastcal.recalibrate.METHODS`.
        ensemble: None fits one calibrator to all cases of all folders, of which no two have the
            same case (a cross validation). ``"pool-then-calibrate"``: each folder is a member, all
            have the same cases, and their mean is calibrated. ``"member-then-pool"``: each folder
            is a member with a calibrator of its own, and with the same cases as the others or
            cases of its own (folds).
        from_logits: The files hold logits, not probabilities.
        weights: One weight per member of an ensemble, see `fastcal.ensemble_mean`.
        space: Average probabilities or logits of an ensemble, see `fastcal.ensemble_mean`.
        cases: Names of the cases to fit to; None for all.
        dataset_json: nnU-Net's ``dataset.json`` with labels, label groups (nnU-Net's regions) and
            the ignore label; by default the one in or above the folders. Without any, the channels
            are exclusive classes.
        n_bins: Number of bins of ``"histogram"``.
        odir: Weight of the off-diagonal penalty of ``"dirichlet"``.
        folds: Folds of the cross-validation that scores the method on cases which a fit has not
            seen; 0 or 1 spares the time that these fits take.
        allow_duplicates: Take a folder that is given twice, or two that hold the same files.
        scheduler: Address of a Dask scheduler whose workers read the cases, see docs/scale.md. The
            fit is the same, to the last bit.
        workers: Number of processes of this machine that read the cases, likewise.
        progress: True prints one line per case and pass to stderr; a function is called with a
            `Progress`.

    Returns:
        The calibrator of all cases, its file, the cases it was fitted to, and the scores of
        held-out folds.

    Raises:
        DataError: A folder has no probabilities, a case is in two folders, labels are missing, out
            of range or on another grid, or a file cannot be read. The message names the file.
        ValueError: An option is out of range, no scheduler or worker answers, or a case failed on a
            worker.
        ImportError: Workers are wanted, and Dask ``distributed`` is not installed.
        OSError: The error of the disk.

    Example:
        >>> fit = fit_folders(["trainer__3d"], "labelsTr", "calibrator.json")  # doctest: +SKIP
        >>> fit.calibrator.temperature_  # doctest: +SKIP
        1.31
    """
    if ensemble is not None and ensemble not in ORDERS:
        raise ValueError(f"ensemble must be {' or '.join(map(repr, ORDERS))}, got {ensemble!r}")
    if ensemble is None and weights is not None:
        raise ValueError(f"weights must be None without an ensemble, got {list(weights)}")
    if ensemble is None and space != "prob":
        raise ValueError(f"space must be 'prob' without an ensemble, got {space!r}")
    if whole_number(folds, "folds") < 0:
        raise ValueError(f"folds must be at least 0, got {folds}")
    hired = Workers.of(scheduler, workers)
    out = Path(out)
    if not out.absolute().parent.is_dir():
        raise DataError(out.parent, "no such folder")
    saved = SavedFolders.open(
        folders, dataset_json=dataset_json, folds=True, allow_duplicates=allow_duplicates
    )
    count = len(saved.folders)
    if weights is not None and len(weights) != count:
        raise ValueError(f"weights must hold one number per folder: {count}, got {len(weights)}")
    chosen = saved.shared(cases, complete=False)
    for case in chosen:
        check_text(case, saved.folders[0].path)
    described = saved.dataset_json(dataset_json)
    reading = saved.reading(chosen, described)
    references = LabelMaps.find(labels, reading.scheme)
    files = [path for case in chosen for folder in saved.folders for path in folder.files(case)]
    files += [*references.paths.values(), *saved.shared_files(described)]
    check_out_file(out, files)
    if hired is not None:
        check_outputs([journal_beside(out)], files)
    calibrator: Calibrator | EnsembleCalibration = methods.make(
        method,
        from_logits=from_logits,
        activation=reading.activation,
        multilabel=reading.scheme.multilabel,
        n_bins=n_bins,
        odir=odir,
    )
    if isinstance(calibrator, Calibrator) and ensemble is not None:
        calibrator = EnsembleCalibration(calibrator, order=ensemble, weights=weights, space=space)
    streams = _streams(calibrator, saved, cases, references, progress)
    plain = calibrator if isinstance(calibrator, Calibrator) else calibrator.calibrator
    unfitted = [copy.deepcopy(plain) for _ in streams]
    with read_by(hired, streams, out) as journal:
        _fit(calibrator, streams)
        scores = all_held_out_scores(unfitted, streams, folds)
    places = _places(calibrator, saved, cases)
    for one, files_of_cases in zip(_plain(calibrator), places, strict=True):
        one.fitted_to_ = FittedTo.of(files_of_cases, reading.scheme.structures)
    calibrator.save(out)
    fitted_to = tuple(sorted({case for stream in streams for case in stream.cases}))
    return FolderFit(calibrator, out, fitted_to, scores, journal)


def _streams(
    calibrator: Calibrator | EnsembleCalibration,
    saved: SavedFolders,
    cases: Sequence[str] | None,
    references: LabelMaps,
    progress: ProgressOption,
) -> list[CaseVolumes]:
    """Return the volumes that each calibrator is fitted to."""
    if isinstance(calibrator, Calibrator):
        reading = calibrator.reading
        return [CaseVolumes.of_folders(saved.union(cases), references, reading, progress)]
    if calibrator.order == "pool-then-calibrate":
        pool = Pool(saved.folders, calibrator)
        return [CaseVolumes.of_pool(saved.shared(cases), pool, references, progress)]
    reading = calibrator.calibrator.reading
    return [CaseVolumes.of_folders(own, references, reading, progress) for own in saved.each(cases)]


def _plain(calibrator: Calibrator | EnsembleCalibration) -> list[Calibrator]:
    return [calibrator] if isinstance(calibrator, Calibrator) else calibrator.calibrators_ or []


def _places(
    calibrator: Calibrator | EnsembleCalibration, saved: SavedFolders, cases: Sequence[str] | None
) -> list[dict[str, list[Path]]]:
    """Return the files of the cases that each calibrator was fitted to."""
    if isinstance(calibrator, Calibrator):
        union = saved.union(cases)
        return [{case: folder.files(case) for case, folder in union.items()}]
    if calibrator.order == "pool-then-calibrate":
        shared = saved.shared(cases)
        return [
            {case: [path for one in saved.folders for path in one.files(case)] for case in shared}
        ]
    return [{case: folder.files(case) for case, folder in own.items()} for own in saved.each(cases)]


def _fit(calibrator: Calibrator | EnsembleCalibration, streams: Sequence[CaseVolumes]) -> None:
    try:
        if isinstance(calibrator, Calibrator):
            calibrator.fit_stream(streams[0])
        else:
            calibrator.fit_each(streams)
    except ValueError as error:
        last = [stream.current for stream in streams if stream.current is not None]
        raise_named(error, last[-1] if last else None)
