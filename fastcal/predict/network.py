"""Prediction with the trained members of a run: networks to label maps and uncertainty maps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

import torch

from fastcal.cases import driver
from fastcal.cases.loop import ProgressOption
from fastcal.cases.settings import Counted, MapType, Part, Written
from fastcal.cases.summary import PredictionSummary
from fastcal.cases.workers import Workers
from fastcal.core.bins import Closed
from fastcal.core.problem import Space
from fastcal.data.dataset import Case
from fastcal.models.run import Run
from fastcal.models.views import InferenceAugmentation
from fastcal.predict.members import Inference, Precision, Resampling, RunMembers
from fastcal.predict.source import NetworkPredictions, choose_images


def predict_cases(
    run: str | Path | Run,
    images: str | Path | Sequence[Case],
    out: str | Path,
    *,
    cases: Sequence[str] | Literal["train", "val", "test"] | None = None,
    members: Sequence[int] | None = None,
    mc_dropout: int = 0,
    seed: int = 0,
    augmentation: InferenceAugmentation | None = None,
    maps: Sequence[str] = ("entropy",),
    space: Space = "prob",
    temperature: float = 1.0,
    resample: Resampling = "probabilities",
    overlap: float = 0.5,
    precision: Precision = "float32",
    labels: str | Path | None = None,
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
    device: torch.device | str | Sequence[torch.device | str] | None = None,
    batch_size: int | None = None,
    trust: Collection[str] = (),
    allow_duplicates: bool = False,
    scheduler: str | None = None,
    workers: int | None = None,
    progress: ProgressOption = False,
) -> PredictionSummary:
    """Predict cases with the members of a run, on the grid of their images.

    The members go one at a time through one `fastcal.EnsembleAccumulator`, and the weights of one
    member are loaded at a time: memory grows neither with the number of members nor with that of
    their passes and views. Networks trained on patches see overlapping windows, whose logits are
    blended by a Gaussian. The logits become probabilities, which are resampled (linearly) to the
    grid of the image if the image was resampled before. A case that has all its files is skipped,
    so that a killed run resumes where it was; its files are bit-identical to those of a run that
    was not killed.

    Args:
        run: Folder that `fastcal.train.train_ensemble` wrote, or the `Run` opened from it.
        images: Folder of ``CASE_0000.nii.gz`` files, or cases.
        out: Folder for ``CASE.nii.gz`` (labels) and ``<map>/CASE.nii.gz``, in the affine and
            orientation of the image. Maps of every class (``mean``) are 4-D, ``[X, Y, Z, C]``.
        cases: Names of the cases to do, or the part of the run's split (``"test"``) that names
            them; None for all.
        members: Numbers of the members to use (``member_03`` is 3); None for all finished ones.
        mc_dropout: Number of stochastic passes per member (Monte Carlo dropout), all of one
            weight; 0 for none.
        seed: Seed of the dropout masks and the noise, which follow from it, the case and the pass.
        augmentation: Mirrored, turned and noisy views of each image, averaged within a member or
            counted as members; None for none.
        maps: Any of `fastcal.core.problem.MAPS`.
        space: Average probabilities (``"prob"``) or logits (``"logit"``).
        temperature: Number that the logits are divided by first.
        resample: What is resampled if the images were: ``"probabilities"``, or ``"logits"`` as
            nnU-Net does.
        overlap: Share of a window that its neighbour covers too, for networks trained on patches.
        precision: ``"float32"``, or ``"bf16"`` or ``"fp16"`` by autocast, after which logits are
            float32 again.
        labels: Folder of reference label maps ``CASE.nii.gz``. Calibration statistics are counted
            in the same pass and written to ``calibration.json`` and ``calibration.npz``.
        n_bins: Number of bins of the calibration errors.
        closed: Which end of a bin belongs to it, ``"right"`` or ``"left"``.
        fine_bins: Cells of the fine histograms, see `fastcal.evaluate.evaluate_folder`.
        regions: Regions that are counted apart, see `fastcal.evaluate.evaluate_folder`. They are
            made from the labels, so ``prediction`` is not one of them.
        dtype: Voxel type of the maps: float32, or uint8 or uint16 with ``scl_slope``.
        save_probabilities: Write ``CASE.npz`` as nnU-Net does: key ``probabilities``, (C, Z, Y, X).
        segments: Score the segment of every structure of every case, in ``segments.json`` and
            ``segments.csv``; `fastcal.cases.segments.read` reads them.
        num_parts: Number of runs that share the cases; `merge_statistics` adds their statistics.
        part_id: Which of the parts this run is, from 0: it does every ``num_parts``-th case.
        overwrite: Do finished cases again. Where ``out`` was made from other settings or inputs, it
            starts anew, which is refused for a part of its cases.
        keep_going: Go on after a case that fails; the summary lists the failures.
        device: Where the networks run; None for a GPU if there is one. Several devices, or every
            GPU for ``"all"``, share the members of each case; the files are the same.
        batch_size: Slices or windows per forward pass; None for 16 slices or 2 windows.
        trust: Packages that networks may be imported from, see `fastcal.load_ensemble`.
        allow_duplicates: A number among ``members`` may be there twice, and counts twice.
        scheduler: Address of a Dask scheduler whose workers do the cases, see docs/scale.md. A case
            that fails is in the summary then, and does not stop the others.
        workers: Number of processes of this machine that do the cases, likewise.
        progress: True prints one line per case to stderr, and how far a long case is; a function
            is called with a `Progress`.

    Returns:
        Which cases were done, and their calibration where ``labels`` are given.

    Raises:
        DataError: There is no run, member or image, a file cannot be read, the number of channels
            differs, labels are missing, on another grid or out of range, or ``out`` was made with
            other settings. The message names the file.
        TypeError: An option has the wrong type.
        UntrustedNetworkError: A network is not built in, nor of a trusted package.
        ValueError: An option is out of range, or networks without dropout got ``mc_dropout``;
            or no scheduler or worker answers.
        ImportError: Workers are wanted, and Dask ``distributed`` is not installed.
        OutOfMemoryError: A ValueError that says what to lower.
        OSError: The error of the disk.

    Example:
        >>> summary = predict_cases("run", "imagesTs", "out", labels="labelsTs")  # doctest: +SKIP
        >>> summary.statistics.ece()  # doctest: +SKIP
        0.0123
    """
    counted = Counted(labels, n_bins, closed, fine_bins, regions)
    hired = Workers.of(scheduler, workers)
    team = None if hired is None else hired.team(device)
    part = Part(num_parts, part_id, keep_going or team is not None, progress)
    inference = Inference(
        mc_dropout=mc_dropout,
        seed=seed,
        temperature=temperature,
        augmentation=augmentation or InferenceAugmentation(),
        overlap=overlap,
        resample=resample,
        precision=precision,
        batch_size=batch_size,
    )
    opened = run if isinstance(run, Run) else Run.open(run)
    written = Written(out, maps, dtype, save_probabilities, overwrite, opened.file_ending, segments)
    chosen = choose_images(opened, images, cases)
    networks = RunMembers(
        opened,
        members,
        inference,
        device if team is None else "cpu",
        trust,
        allow_duplicates=allow_duplicates,
    )
    tell = progress is True and team is None
    source = NetworkPredictions(opened, networks, chosen, space=space, tell=tell)
    return driver.run(source, counted, written, part, team)
