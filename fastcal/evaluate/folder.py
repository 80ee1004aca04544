"""Evaluation of a folder of predictions: a superset of nnU-Net's ``summary.json``."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastcal.calibration.summary import calibration_summary, region_summaries
from fastcal.cases.journal import journal_beside
from fastcal.cases.labels import LabelScheme
from fastcal.cases.loop import ProgressOption
from fastcal.cases.pipeline import run_stages
from fastcal.cases.reference import LabelMaps
from fastcal.cases.settings import Counted
from fastcal.cases.workers import Workers
from fastcal.core import atomic
from fastcal.core.arguments import choice, real_number
from fastcal.core.bins import Closed
from fastcal.core.errors import DataError, DataWarning
from fastcal.core.places import check_out_file, check_out_folder, check_outputs
from fastcal.data import description
from fastcal.data.predictions import PredictionFolder
from fastcal.evaluate.begun import PARTIAL, Begun
from fastcal.evaluate.scoring import MissedHd95, Scoring, Work


def evaluate_folder(
    labels: str | Path,
    predictions: str | Path,
    out_file: str | Path,
    *,
    dataset_json: str | Path | None = None,
    num_classes: int | None = None,
    probabilities: bool = True,
    surface: bool = True,
    tolerance_mm: float = 1.0,
    missed_hd95: MissedHd95 = "omit",
    n_bins: int = 15,
    closed: Closed = "right",
    fine_bins: int = 0,
    regions: Sequence[str] = (),
    allow_missing: bool = False,
    keep_going: bool = False,
    scheduler: str | None = None,
    workers: int | None = None,
    progress: ProgressOption = False,
) -> dict[str, Any]:
    """Score a folder of predicted label maps, and their probabilities where they were saved.

    Cases that are scored are kept in the folder ``OUT.partial`` until the file is written: a killed
    evaluation goes on with those that are left, and ends with the same file.

    Args:
        labels: Folder of reference label maps (``CASE.nii.gz`` or ``CASE.nii``).
        predictions: Folder of predicted label maps. Folders inside it, which hold the uncertainty
            maps, are not read.
        out_file: The JSON file to write, whole or not at all.
        dataset_json: nnU-Net's ``dataset.json``, which names labels, label groups (nnU-Net's
            regions) and the ignore label; by default the one in or above ``predictions``, then
            ``labels``.
        num_classes: Number of classes with the background, where there is no ``dataset.json``.
        probabilities: Read ``CASE.npz`` (or another form that
            `fastcal.data.predictions.PredictionFolder` knows) for the calibration.
        surface: Compute HD95 and surface Dice; this needs MONAI (the extra ``fastcal[train]``).
        tolerance_mm: Distance in mm up to which a surface voxel counts as right.
        missed_hd95: HD95 of a case where only one of reference and prediction has the structure:
            ``"omit"`` gives NaN, which means leave out; ``"diagonal"`` the diagonal of the image in
            mm, so that a missed structure does not improve the mean.
        n_bins: Number of bins of the calibration errors.
        closed: Which end of a bin belongs to it, ``"right"`` or ``"left"``.
        fine_bins: Cells of the fine histograms (a power of two, such as 4096) for adaptive errors,
            AUROC and AURC; 0 for none. They take 16 bytes per cell, for each histogram, region and
            case.
        regions: Up to eight parts of a volume that are counted beside the whole.
            ``box[:MM[:SLICES]]`` is the bounding box of the reference's foreground with margins
            in-plane and across the slices (8 mm and 2 slices by default). ``band:MM`` is what lies
            within that distance of a boundary between labels of the reference. ``foreground`` is
            that of the reference, ``prediction`` the predicted foreground.
        allow_missing: Score the cases that were predicted, even if ``labels`` has more (nnU-Net's
            ``--chill``).
        keep_going: Go on after a case that fails or was not predicted; failures are listed under
            ``"failed"``.
        scheduler: Address of a Dask scheduler whose workers score the cases, see docs/scale.md. A
            case that fails is listed then, and does not stop the others. What became of each is in
            ``NAME.journal.jsonl`` beside the file.
        workers: Number of processes of this machine that score the cases, likewise.
        progress: True prints one line per case to stderr; a function is called with a `Progress`.

    Returns:
        What the file holds. nnU-Net's keys mean what they mean there: ``metric_per_case``,
        ``mean`` (over cases, NaN left out), ``foreground_mean``. Added to both means: how many
        cases they hold (``n_Dice``, ``n_HD95``, ...), and of how many a structure was missed
        (``n_missed``, in the reference alone), invented (``n_invented``, in the prediction alone)
        or absent from both (``n_absent``). HD95 is undefined for all three of them, and Dice for
        the last. Added to the metrics of each
        structure: ``HD95`` and ``SurfaceDice`` (see `surface_scores`), ``volume_pred_ml`` and
        ``volume_ref_ml``. Added to each case: ``case`` and ``calibration`` (see
        `calibration_summary`), null without probabilities. Added at the top: ``calibration``
        (``pooled`` over voxels, ``case`` for the mean over cases, ``n_cases``,
        ``cases_without_probabilities``, and ``regions`` by name, ``pooled`` and ``case``), null
        if no case has any; ``labels`` (the name of each structure, if ``dataset.json`` has one);
        ``settings``; ``failed``. NaN is written as ``NaN``, as nnU-Net does.

    Raises:
        DataError: A folder has no cases, a case has no prediction (unless ``allow_missing`` or
            ``keep_going``) or no reference, a file cannot be read, shapes, affines or numbers of
            classes differ, or a label is out of range. The message names the file.
        ImportError: ``surface`` is True and MONAI is not installed; or workers are wanted, and Dask
            ``distributed`` is not.
        TypeError: An option has the wrong type.
        ValueError: An option is out of range.

    Example:
        >>> summary = evaluate_folder("labelsTs", "predictions", "summary.json")  # doctest: +SKIP
        >>> summary["mean"]["1"]["Dice"], summary["calibration"]["pooled"]["ECE"]  # doctest: +SKIP
        (0.87, 0.012)
    """
    if not real_number(tolerance_mm, "tolerance_mm") >= 0:
        raise ValueError(f"tolerance_mm must be at least 0, got {tolerance_mm}")
    choice(missed_hd95, "missed_hd95", ("omit", "diagonal"))
    hired = Workers.of(scheduler, workers)
    keep_going = keep_going or hired is not None
    counted = Counted(labels, n_bins, closed, fine_bins, regions)
    described = _descriptions(Path(labels), Path(predictions), dataset_json)
    scheme = _scheme(Path(labels), Path(predictions), dataset_json, num_classes)
    folder = None
    if probabilities:
        folder = PredictionFolder(predictions, multilabel=scheme.multilabel)
    scoring = Scoring(
        predictions=LabelMaps.find(predictions, scheme),
        references=LabelMaps.find(labels, scheme),
        probabilities=folder,
        saved=frozenset() if folder is None else frozenset(folder.cases()),
        counted=counted,
        tolerance_mm=tolerance_mm if surface else None,
        missed_hd95=missed_hd95,
    )
    scoring.check_pairs(complete=not (allow_missing or keep_going))
    out_file = Path(out_file)
    check_out_file(out_file, [*scoring.inputs, *described])
    if hired is not None:
        check_outputs([journal_beside(out_file)], [*scoring.inputs, *described])
    # Made now, rather than to fail when everything is scored.
    out_file.parent.mkdir(parents=True, exist_ok=True)
    partial = out_file.with_name(out_file.name + PARTIAL)
    check_out_folder(partial, [Path(labels), Path(predictions)])
    begun = Begun(partial, scoring.record(partial, described).key)
    work = Work(scoring, begun)
    wanted = sorted((scoring.predictions if allow_missing else scoring.references).paths)
    with begun.held(machines=hired is not None) as heart:
        if hired is None:
            run = run_stages(
                wanted,
                work.stages,
                finished=work.finished,
                keep_going=keep_going,
                progress=progress,
            )
        else:
            run = hired.team().run_cases(
                wanted,
                work,
                journal_beside(out_file),
                heart=heart,
                finished=work.finished,
                progress=progress,
            )
        cases = sorted((*run.done, *run.skipped))
        if not cases:
            reasons = "; ".join(dict.fromkeys(one.reason for one in run.failed))
            raise DataError(predictions, f"no case could be scored: {reasons}")
        summary = _summary(cases, begun, scoring)
        summary["failed"] = [{"case": one.case, "reason": one.reason} for one in run.failed]
        # nnU-Net's readers do arithmetic on these numbers: NaN stays NaN.
        atomic.write_text(out_file, json.dumps(summary, indent=4) + "\n")
    return summary


def _scheme(
    labels: Path, predictions: Path, dataset_json: str | Path | None, num_classes: int | None
) -> LabelScheme:
    if num_classes is not None:
        return LabelScheme.of_classes(num_classes)
    found = Path(dataset_json) if dataset_json else description.find(predictions, labels)
    if found is None:
        raise DataError(
            predictions,
            f"no dataset.json in or above it, nor {labels}; pass dataset_json or num_classes",
        )
    return LabelScheme.read(found)


def _contradiction(found: Sequence[tuple[Path, int]]) -> DataWarning:
    (path, voxels), more = found[0], len(found) - 1
    others = f"; so it does in {more} other cases" if more else ""
    return DataWarning(
        path,
        f"the most probable class differs from the label map beside it in {voxels} voxels, so that "
        f"overlap and calibration are of different predictions{others}",
    )


def _descriptions(labels: Path, predictions: Path, dataset_json: str | Path | None) -> list[Path]:
    """Every ``dataset.json`` that may be read."""
    found = [description.find(predictions), description.find(labels)]
    given = [] if dataset_json is None else [Path(dataset_json)]
    return [*given, *(path for path in found if path is not None)]


def _summary(cases: Sequence[str], begun: Begun, scoring: Scoring) -> dict[str, Any]:
    scheme, settings = scoring.references.scheme, scoring.counted
    pooled = settings.statistics(scheme)
    records, contradictions = [], []
    for case in cases:
        scored = begun.read(case)
        records.append(scoring.entry(case, scored))
        if scored.statistics is not None:
            pooled.merge(scored.statistics)
        if scored.contradicting:
            contradictions.append((Path(scored.source), scored.contradicting))
    if contradictions:
        warnings.warn(_contradiction(contradictions), stacklevel=3)
    keys = list(scheme.foreground)
    names = list(records[0]["metrics"][keys[0]])
    mean = {key: _mean([record["metrics"][key] for record in records]) for key in keys}
    counted = [record for record in records if record["calibration"] is not None]
    calibration = None
    if counted:
        calibration = {
            "pooled": calibration_summary(pooled),
            "case": calibration_summary(pooled, reduction="case"),
            "n_cases": len(counted),
            "cases_without_probabilities": [
                record["case"] for record in records if record["calibration"] is None
            ],
        }
        if settings.regions:
            calibration["regions"] = {
                "pooled": region_summaries(pooled),
                "case": region_summaries(pooled, reduction="case"),
            }
    return {
        "metric_per_case": records,
        "mean": mean,
        "foreground_mean": {
            **{name: float(np.mean([mean[key][name] for key in keys])) for name in names},
            **{
                name: sum(mean[key][name] for key in keys)
                for name in mean[keys[0]]
                if name not in names
            },
        },
        "calibration": calibration,
        "labels": scheme.names,
        "settings": scoring.settings,
    }


def _mean(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each metric over the cases where it is defined, and how many those are."""
    found = {name: _nanmean(one[name] for one in metrics) for name in metrics[0]}
    for name in ("Dice", "IoU", "HD95", "SurfaceDice"):
        if name in found:
            found[f"n_{name}"] = sum(not math.isnan(one[name]) for one in metrics)
    has = [(bool(one["n_ref"]), bool(one["n_pred"])) for one in metrics]
    found["n_missed"] = has.count((True, False))
    found["n_invented"] = has.count((False, True))
    found["n_absent"] = has.count((False, False))
    return found


def _nanmean(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else float("nan")
