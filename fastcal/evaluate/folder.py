"""Evaluation of a folder of predictions: a superset of nnU-Net's ``summary.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastcal import CalibrationStatistics
from fastcal.calibration.summary import calibration_summary, region_summaries
from fastcal.cases.count import count_case
from fastcal.cases.labels import LabelScheme
from fastcal.cases.loop import ProgressOption, run_cases
from fastcal.cases.reference import (
    check_same_grid,
    find_dataset_json,
    find_label_maps,
    read_labels,
)
from fastcal.cases.region_rules import RegionRule, case_regions, parse_rules
from fastcal.core import atomic
from fastcal.core.errors import DataError
from fastcal.data.nifti import Geometry
from fastcal.data.predictions import PredictionFolder
from fastcal.evaluate.overlap import overlap
from fastcal.evaluate.surface import surface_scores


@dataclass(frozen=True, slots=True)
class _Scoring:
    scheme: LabelScheme
    probabilities: PredictionFolder | None
    saved: frozenset[str]
    """Cases that have probabilities."""
    surface: bool
    tolerance_mm: float
    n_bins: int
    closed: Literal["right", "left"]
    fine_bins: int
    regions: tuple[RegionRule, ...]

    def statistics(self) -> CalibrationStatistics:
        return CalibrationStatistics(
            self.scheme.num_classes,
            self.n_bins,
            self.closed,
            multilabel=self.scheme.multilabel,
            fine_bins=self.fine_bins,
            regions=[rule.name for rule in self.regions],
        )


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
    n_bins: int = 15,
    closed: Literal["right", "left"] = "right",
    fine_bins: int = 0,
    regions: Sequence[str] = (),
    chill: bool = False,
    keep_going: bool = False,
    progress: ProgressOption = False,
) -> dict[str, Any]:
    """Score a folder of predicted label maps, and their probabilities where they were saved.

    Parameters
    ----------
    labels, predictions
        Folders of reference and predicted label maps (``CASE.nii.gz`` or ``CASE.nii``). Folders
        inside ``predictions``, where the uncertainty maps are, are not looked at.
    out_file
        The JSON file to write, whole or not at all.
    dataset_json
        nnU-Net's ``dataset.json``, which names labels, regions and the ignore label. Without it
        the file is looked for in and above ``predictions``, then ``labels``.
    num_classes
        Number of classes with the background, where there is no ``dataset.json``.
    probabilities
        Read ``CASE.npz`` (or another form `PredictionFolder` knows) for calibration.
    surface, tolerance_mm
        Compute HD95 and surface Dice (needs MONAI, the extra ``fastcal[train]``); the distance in
        mm up to which a surface voxel counts as right.
    n_bins, closed
        Bins of the calibration errors.
    fine_bins
        Cells of the fine histograms (a power of two, 4096 say) for adaptive errors, AUROC and AURC;
        0 for none. 16 bytes a cell, histogram, region and case are held.
    regions
        Up to eight parts of a case that are counted beside the whole: ``box[:MM[:SLICES]]``, the
        bounding box of the reference's foreground with its margins in-plane and across (8 mm and 2
        slices by default); ``band:MM``, what is within that distance of a boundary between its
        labels; ``foreground`` of the reference; ``prediction``, the predicted foreground.
    chill
        nnU-Net's word: score the cases that were predicted, though ``labels`` has more.
    keep_going
        Go on after a case that fails, or that was not predicted; failures are listed under
        ``"failed"``.
    progress
        True prints a line a case to stderr; a function is called with a `Progress`.

    Returns
    -------
    dict
        What the file holds. nnU-Net's keys mean what they mean there: ``metric_per_case``,
        ``mean`` (over cases, NaN left out), ``foreground_mean``. Added to each structure's
        metrics: ``HD95`` and ``SurfaceDice`` (see `surface_scores`), ``volume_pred_ml``,
        ``volume_ref_ml``. Added to each case: ``case`` and ``calibration`` (see
        `calibration_summary`), null without probabilities. Added at the top: ``calibration``
        (``pooled`` over voxels, ``case`` = mean over cases, ``n_cases``,
        ``cases_without_probabilities``, and ``regions`` by name, ``pooled`` and ``case``), null
        where no case has any; ``labels`` (the name of each
        structure, where ``dataset.json`` has one); ``settings``; ``failed``.
        NaN is written as ``NaN``, as nnU-Net does.

    Raises
    ------
    DataError
        A folder without cases, a case without prediction (unless ``chill`` or ``keep_going``) or
        without reference, files that cannot be read, shapes, affines or class counts that differ,
        labels out of range.
    ImportError
        If ``surface`` and MONAI is not installed.

    Examples
    --------
    >>> summary = evaluate_folder("labelsTs", "predictions", "summary.json")  # doctest: +SKIP
    >>> summary["mean"]["1"]["Dice"], summary["calibration"]["pooled"]["ECE"]  # doctest: +SKIP
    (0.87, 0.012)
    """
    labels, predictions, out_file = Path(labels), Path(predictions), Path(out_file)
    if not tolerance_mm >= 0:
        raise ValueError(f"tolerance_mm: got {tolerance_mm}, expected 0 or more")
    folder = PredictionFolder(predictions) if probabilities else None
    scoring = _Scoring(
        scheme=_scheme(labels, predictions, dataset_json, num_classes),
        probabilities=folder,
        saved=frozenset() if folder is None else frozenset(folder.cases()),
        surface=surface,
        tolerance_mm=tolerance_mm,
        n_bins=n_bins,
        closed=closed,
        fine_bins=fine_bins,
        regions=parse_rules(regions),
    )
    pooled = scoring.statistics()
    references, predicted = _paired(labels, predictions, complete=not (chill or keep_going))
    # Found out now rather than when everything is scored.
    if out_file.is_dir():
        raise DataError(out_file, "a folder, expected the name of a JSON file")
    out_file.parent.mkdir(parents=True, exist_ok=True)
    records: dict[str, dict[str, Any]] = {}

    def score(case: str) -> None:
        if case not in predicted:
            raise DataError(predictions, f"no prediction of case {case}")
        record, statistics = _score_case(case, references[case], predicted[case], scoring)
        if statistics is not None:
            pooled.merge(statistics)
        records[case] = record

    wanted = predicted if chill else references
    run = run_cases(sorted(wanted), score, keep_going=keep_going, progress=progress)
    if not records:
        reasons = "; ".join(dict.fromkeys(one.reason for one in run.failed))
        raise DataError(predictions, f"no case could be scored: {reasons}")
    summary = _summary(list(records.values()), pooled, scoring)
    summary["failed"] = [{"case": one.case, "reason": one.reason} for one in run.failed]
    # nnU-Net's readers do arithmetic on these numbers: NaN stays NaN.
    atomic.write_text(out_file, json.dumps(summary, indent=4) + "\n")
    return summary


def _scheme(
    labels: Path, predictions: Path, dataset_json: str | Path | None, num_classes: int | None
) -> LabelScheme:
    if num_classes is not None:
        return LabelScheme.of_classes(num_classes)
    found = Path(dataset_json) if dataset_json else find_dataset_json(predictions, labels)
    if found is None:
        raise DataError(
            predictions,
            f"no dataset.json in or above it, nor {labels}; pass dataset_json or num_classes",
        )
    return LabelScheme.read(found)


def _paired(
    labels: Path, predictions: Path, *, complete: bool
) -> tuple[dict[str, Path], dict[str, Path]]:
    predicted, references = find_label_maps(predictions), find_label_maps(labels)
    for case, path in predicted.items():
        if case not in references:
            raise DataError(path, f"no reference {labels / case}.nii.gz")
    missing = sorted(set(references) - set(predicted))
    if missing and complete:
        raise DataError(
            predictions,
            f"no prediction for {len(missing)} of {len(references)} cases of "
            f"{labels}, first {missing[0]}; chill=True (--chill) scores the others",
        )
    return references, predicted


def _score_case(
    case: str, reference_file: Path, prediction_file: Path, scoring: _Scoring
) -> tuple[dict[str, Any], CalibrationStatistics | None]:
    reference, grid = read_labels(reference_file)
    prediction, prediction_grid = read_labels(prediction_file)
    check_same_grid(
        prediction_file, prediction.shape, prediction_grid.affine, grid, expected=reference_file
    )
    scheme = scoring.scheme
    scheme.check(reference, reference_file)
    scheme.check(prediction, prediction_file)
    kept = scheme.kept(reference)
    spacing = grid.spacing
    metrics = {}
    for key, group in scheme.foreground.items():
        masks = np.isin(reference, group), np.isin(prediction, group)
        metrics[key] = overlap(*masks, kept=kept, voxel_ml=math.prod(spacing) / 1000)
        if scoring.surface:
            if kept is not None:
                masks = masks[0] & kept, masks[1] & kept
            metrics[key] |= surface_scores(
                *masks, spacing=spacing, tolerance_mm=scoring.tolerance_mm
            )
    statistics = _case_statistics(case, reference_file, reference, prediction, grid, scoring)
    record = {
        "case": case,
        "metrics": metrics,
        "reference_file": str(reference_file),
        "prediction_file": str(prediction_file),
        "calibration": None if statistics is None else calibration_summary(statistics),
    }
    if scoring.regions and statistics is not None:
        record["calibration_of_regions"] = region_summaries(statistics)
    return record, statistics


def _case_statistics(
    case: str,
    reference_file: Path,
    reference: NDArray[Any],
    prediction: NDArray[Any],
    grid: Geometry,
    scoring: _Scoring,
) -> CalibrationStatistics | None:
    folder = scoring.probabilities
    if folder is None or case not in scoring.saved:
        return None
    found = folder.probabilities(case)
    check_same_grid(found.source, found.data.shape[1:], found.affine, grid, expected=reference_file)
    scoring.scheme.check_channels(found.data.shape[0], found.source)
    inside = case_regions(
        scoring.regions, reference, scoring.scheme.kept(reference), grid.affine, prediction
    )
    try:
        return count_case(
            found,
            reference,
            scheme=scoring.scheme,
            case=case,
            n_bins=scoring.n_bins,
            closed=scoring.closed,
            fine_bins=scoring.fine_bins,
            regions=inside,
        )
    except ValueError as error:
        raise DataError(found.source, str(error)) from error


def _summary(
    records: Sequence[dict[str, Any]], pooled: CalibrationStatistics, scoring: _Scoring
) -> dict[str, Any]:
    keys = list(scoring.scheme.foreground)
    names = list(records[0]["metrics"][keys[0]])
    mean = {
        key: {name: _nanmean(record["metrics"][key][name] for record in records) for name in names}
        for key in keys
    }
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
        if scoring.regions:
            calibration["regions"] = {
                "pooled": region_summaries(pooled),
                "case": region_summaries(pooled, reduction="case"),
            }
    return {
        "metric_per_case": list(records),
        "mean": mean,
        "foreground_mean": {
            name: float(np.mean([mean[key][name] for key in keys])) for name in names
        },
        "calibration": calibration,
        "labels": scoring.scheme.names,
        "settings": {
            "tolerance_mm": scoring.tolerance_mm if scoring.surface else None,
            "n_bins": scoring.n_bins,
            "closed": scoring.closed,
            "fine_bins": scoring.fine_bins,
            "regions": [rule.name for rule in scoring.regions],
        },
    }


def _nanmean(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else float("nan")
