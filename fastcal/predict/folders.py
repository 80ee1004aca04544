"""Ensembles of saved probabilities: nnU-Net's npz folders, 4-D NIfTI, npy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from fastcal.cases.driver import run
from fastcal.cases.loop import ProgressOption
from fastcal.cases.saved import SavedFolders, SavedProbabilities
from fastcal.cases.settings import Counted, MapType, Part, Written
from fastcal.cases.summary import PredictionSummary
from fastcal.cases.workers import Workers
from fastcal.core.arguments import real_number
from fastcal.core.bins import Closed
from fastcal.core.memory import read_size
from fastcal.core.problem import Space
from fastcal.models.device import choose_device


def ensemble_folders(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    maps: Sequence[str] = ("entropy",),
    space: Space = "prob",
    weights: Sequence[float] | None = None,
    temperature: float | Sequence[float] = 1.0,
    from_logits: bool = False,
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
    device: torch.device | str = "cpu",
    scheduler: str | None = None,
    workers: int | None = None,
    memory: int | str | None = None,
    progress: ProgressOption = False,
) -> PredictionSummary:
    """Combine folders of saved probabilities, one folder per member, in one pass per case.

    Two members are in memory at a time: one is read while the other is added. A case that has all
    its files is skipped, so that a killed run resumes where it was; its files are bit-identical to
    those of a run that was not killed.

    Args:
        folders: One folder per member, with ``CASE.npz`` as nnU-Net's ``--save_probabilities``
            writes it (key ``probabilities``, or ``softmax`` of version 1), 4-D NIfTI or ``.npy``:
            every form that `fastcal.data.predictions.PredictionFolder` reads.
        out: Folder for ``CASE.nii.gz`` (labels) and ``<map>/CASE.nii.gz``. Maps of every class
            (``mean``) are 4-D, ``[X, Y, Z, C]``.
        maps: Any of `fastcal.core.problem.MAPS`.
        space: Average probabilities (``"prob"``), or logits (``"logit"``: ln p), as nnU-Net does.
        weights: One weight per folder; equal by default.
        temperature: One temperature for all folders, or one per folder.
        from_logits: The files hold logits, not probabilities.
        cases: Names of the cases to do; None for every case of any folder.
        labels: Folder of reference label maps ``CASE.nii.gz``. Calibration statistics are counted
            in the same pass and written to ``calibration.json`` and ``calibration.npz``.
        dataset_json: nnU-Net's ``dataset.json`` with labels, label groups (nnU-Net's regions) and
            the ignore label; by default the one in or above the folders. Without any, the channels
            are exclusive classes. Label groups are sigmoid channels of their own, painted in the
            order of ``regions_class_order``.
        n_bins: Number of bins of the calibration errors.
        closed: Which end of a bin belongs to it, ``"right"`` or ``"left"``.
        fine_bins: Cells of the fine histograms, see `fastcal.evaluate.evaluate_folder`.
        regions: Regions that are counted apart, see `fastcal.evaluate.evaluate_folder`. They are
            made from the labels, so ``prediction`` is not one of them.
        dtype: Voxel type of the maps: float32, or uint8 or uint16 with ``scl_slope``.
        save_probabilities: Write the mean as nnU-Net's ``CASE.npz``.
        segments: Score the segment of every structure of every case, in ``segments.json`` and
            ``segments.csv``; `fastcal.cases.segments.read` reads them.
        num_parts: Number of runs that share the cases; `merge_statistics` adds their statistics.
        part_id: Which of the parts this run is, from 0: it does every ``num_parts``-th case.
        overwrite: Do finished cases again. Where ``out`` was made from other settings or inputs, it
            starts anew, which is refused for a part of its cases.
        keep_going: Go on after a case that fails; the summary lists the failures.
        allow_duplicates: Take a folder that is given twice, or two that hold the same files.
        device: Where the members are combined.
        scheduler: Address of a Dask scheduler whose workers do the cases, see docs/scale.md. A case
            that fails is in the summary then, and does not stop the others.
        workers: Number of processes of this machine that do the cases, likewise.
        memory: The most memory that the process may take, in bytes or as ``"2G"``. Members are then
            read slab by slab, whatever their size, through the same pass; files are bit-identical
            to those of a run without a bound. None reads whole members.
        progress: True prints one line per case to stderr; a function is called with a `Progress`.

    Returns:
        Which cases were done, and their calibration where ``labels`` are given.

    Raises:
        DataError: A folder is empty, lacks a case or is there twice, a file cannot be read, shapes,
            affines or numbers of classes differ, a number is NaN or not a probability, or a label
            is out of range; ``out`` was made from something else, or is a folder of inputs. The
            message names the file.
        TypeError: An option has the wrong type.
        ValueError: An option is out of range, or no scheduler or worker answers.
        ImportError: Workers are wanted, and Dask ``distributed`` is not installed.
        OutOfMemoryError: A ValueError that says what to lower.
        OSError: The error of the disk.

    Example:
        >>> folds = [f"fold_{k}" for k in range(5)]
        >>> summary = ensemble_folders(folds, "out", maps=("entropy", "variance"))  # doctest: +SKIP
        >>> summary.done  # doctest: +SKIP
        ('case_001', 'case_002')
    """
    counted = Counted(labels, n_bins, closed, fine_bins, regions)
    written = Written(out, maps, dtype, save_probabilities, overwrite, segments=segments)
    hired = Workers.of(scheduler, workers)
    team = None if hired is None else hired.team(device)
    part = Part(
        num_parts,
        part_id,
        keep_going or team is not None,
        progress,
        memory=read_size(memory, "memory"),
    )
    saved = SavedFolders.open(folders, dataset_json=dataset_json, allow_duplicates=allow_duplicates)
    chosen = saved.shared(cases, complete=not part.keep_going)
    found = saved.dataset_json(dataset_json)
    reading = saved.reading(chosen, found, keep_going=part.keep_going)
    count = len(saved.folders)
    given = [temperature] if isinstance(temperature, int | float) else list(temperature)
    temperatures = [real_number(one, "temperature") for one in given]
    temperatures *= count if len(given) == 1 else 1
    source = SavedProbabilities(
        saved,
        chosen,
        replace(reading, from_logits=from_logits, space=space),
        [1.0] * count if weights is None else [real_number(one, "weights") for one in weights],
        temperatures,
        found,
        choose_device(device if team is None else "cpu"),
    )
    written = replace(written, file_ending=saved.file_ending(found))
    return run(source, counted, written, part, team)
