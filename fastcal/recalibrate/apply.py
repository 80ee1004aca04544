"""Applying a calibrator to folders of saved probabilities."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fastcal.cases.driver import run
from fastcal.cases.loop import ProgressOption
from fastcal.cases.saved import SavedFolders
from fastcal.cases.settings import Counted, MapType, Part, Written
from fastcal.cases.summary import PredictionSummary
from fastcal.cases.workers import Workers
from fastcal.core.bins import Closed
from fastcal.core.errors import DataError, DataWarning
from fastcal.core.memory import read_size
from fastcal.recalibrate.calibrator import Calibrator
from fastcal.recalibrate.ensemble import EnsembleCalibration
from fastcal.recalibrate.file import load
from fastcal.recalibrate.sources import CalibratedProbabilities


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
    closed: Closed = "right",
    fine_bins: int = 0,
    regions: Sequence[str] = (),
    dtype: MapType = "float32",
    save_probabilities: bool = False,
    segments: bool = True,
    num_parts: int = 1,
    part_id: int = 0,
    overwrite: bool = False,
    keep_going: bool = False,
    allow_duplicates: bool = False,
    scheduler: str | None = None,
    workers: int | None = None,
    memory: int | str | None = None,
    progress: ProgressOption = False,
) -> PredictionSummary:
    """Calibrate saved probabilities; the files written are those of `ensemble_folders`.

    A case that has all its files is skipped, so that a killed run resumes where it was.

    Args:
        calibrator: The file that `fit_folders` wrote, or a calibrator.
        folders: Folders of saved probabilities; one that holds ``fold_*/validation`` stands for
            these. For a single calibrator, no two folders have the same case. For an ensemble they
            are its members, in the order of the fit.
        out: Folder for ``CASE.nii.gz`` (labels), ``<map>/CASE.nii.gz``, and ``CASE.npz`` with
            ``save_probabilities``.
        maps: Any of `fastcal.core.problem.MAPS`. Those that compare members need an ensemble of
            ``"member-then-pool"``.
        cases: Names of the cases to do; None for all.
        labels: Folder of reference label maps ``CASE.nii.gz``. Calibration statistics are counted
            in the same pass and written to ``calibration.json`` and ``calibration.npz``.
        dataset_json: nnU-Net's ``dataset.json`` with labels, label groups (nnU-Net's regions) and
            the ignore label; by default the one in or above the folders.
        n_bins: Number of bins of the calibration errors.
        closed: Which end of a bin belongs to it, ``"right"`` or ``"left"``.
        fine_bins: Cells of the fine histograms, see `fastcal.evaluate.evaluate_folder`.
        regions: Regions that are counted apart, see `fastcal.evaluate.evaluate_folder`. They are
            made from the labels, so ``prediction`` is not one of them.
        dtype: Voxel type of the maps: float32, or uint8 or uint16 with ``scl_slope``.
        save_probabilities: Write the calibrated mean as nnU-Net's ``CASE.npz``.
        segments: Score the segment of every structure of every case, in ``segments.json`` and
            ``segments.csv``; `fastcal.cases.segments.read` reads them.
        num_parts: Number of runs that share the cases; `fastcal.predict.merge_statistics` adds
            their statistics.
        part_id: Which of the parts this run is, from 0: it does every ``num_parts``-th case.
        overwrite: Do finished cases again. Where ``out`` was made from other settings or inputs, it
            starts anew, which is refused for a part of its cases.
        keep_going: Go on after a case that fails; the summary lists the failures.
        allow_duplicates: Take a folder that is given twice, or two that hold the same files.
        scheduler: Address of a Dask scheduler whose workers do the cases, see docs/scale.md. A case
            that fails is in the summary then, and does not stop the others.
        workers: Number of processes of this machine that do the cases, likewise.
        memory: The most memory that the process may take, in bytes or as ``"2G"``. Members are then
            read slab by slab, whatever their size, through the same pass; files are bit-identical
            to those of a run without a bound. None reads whole members.
        progress: True prints one line per case to stderr; a function is called with a
            `fastcal.predict.Progress`.

    Returns:
        Which cases were done, and their calibration where ``labels`` are given.

    Raises:
        DataError: A file cannot be read, or does not fit the others or the calibrator; the message
            names it.
        TypeError: An option has the wrong type.
        ValueError: An option is out of range, or no scheduler or worker answers.
        ImportError: Workers are wanted, and Dask ``distributed`` is not installed.
        OutOfMemoryError: A ValueError that says what to lower.
        OSError: The error of the disk.

    Warns:
        DataWarning: The calibrator was fitted to these very predictions of some of the cases.

    Example:
        >>> apply_folders("calibrator.json", ["predictions"], "calibrated")  # doctest: +SKIP
    """
    counted = Counted(labels, n_bins, closed, fine_bins, regions)
    written = Written(out, maps, dtype, save_probabilities, overwrite, segments=segments)
    hired = Workers.of(scheduler, workers)
    team = None if hired is None else hired.team()
    part = Part(
        num_parts,
        part_id,
        keep_going or team is not None,
        progress,
        memory=read_size(memory, "memory"),
    )
    made = load(calibrator) if isinstance(calibrator, str | Path) else calibrator
    saved = SavedFolders.open(
        folders, dataset_json=dataset_json, folds=True, allow_duplicates=allow_duplicates
    )
    found = saved.dataset_json(dataset_json)
    source = CalibratedProbabilities.of(made, saved, cases, found, keep_going=part.keep_going)
    source.check_maps(maps)
    if isinstance(calibrator, str | Path):
        source = replace(source, file=Path(calibrator))
    _warn_of_seen(source)
    written = replace(written, file_ending=saved.file_ending(found))
    return run(source, counted, written, part, team)


def _warn_of_seen(source: CalibratedProbabilities) -> None:
    """Warn of cases whose files the calibrator was fitted to, by their content."""
    seen = [case for case in source.cases if _was_seen(source, case)]
    if seen:
        more = f" and {len(seen) - 1} more" if len(seen) > 1 else ""
        warnings.warn(
            DataWarning(
                source.inputs(seen[0])[0].parent,
                f"the calibrator was fitted to these predictions of case {seen[0]}{more}: its "
                "scores on them are better than on new cases",
            ),
            stacklevel=3,
        )


def _was_seen(source: CalibratedProbabilities, case: str) -> bool:
    try:
        return any(one.holds(source.inputs(case)) for one in source.fitted_to)
    except DataError:  # told when the case is read
        return False
