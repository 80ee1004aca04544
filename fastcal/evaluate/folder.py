"""Evaluation of a folder of predictions: a superset of nnU-Net's ``summary.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcal import CalibrationStatistics
from fastcal.calibration.summary import calibration_summary, region_summaries
from fastcal.cases.count import count_case
from fastcal.cases.labels import LabelScheme
from fastcal.cases.loop import ProgressOption, run_cases
from fastcal.cases.overlap import overlap
from fastcal.cases.reference import LabelMap, LabelMaps
from fastcal.cases.settings import Counted
from fastcal.core import atomic
from fastcal.core.arguments import real_number
from fastcal.core.bins import Closed
from fastcal.core.errors import DataError
from fastcal.data import description
from fastcal.data.predictions import PredictionFolder
from fastcal.evaluate.surface import surface_scores


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
    closed: Closed = "right",
    fine_bins: int = 0,
    regions: Sequence[str] = (),
    allow_missing: bool = False,
    keep_going: bool = False,
    progress: ProgressOption = False,
) -> dict[str, Any]:
    """Score a folder of predicted label maps, and their probabilities where they were saved.

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
        progress: True prints one line per case to stderr; a function is called with a `Progress`.

    Returns:
        What the file holds. nnU-Net's keys mean what they mean there: ``metric_per_case``,
        ``mean`` (over cases, NaN left out), ``foreground_mean``. Added to the metrics of each
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
        ImportError: ``surface`` is True and MONAI is not installed.
        TypeError: An option has the wrong type.
        ValueError: An option is out of range.

    Example:
        >>> summary = evaluate_folder("labelsTs", "predictions", "summary.json")  # doctest: +SKIP
        >>> summary["mean"]["1"]["Dice"], summary["calibration"]["pooled"]["ECE"]  # doctest: +SKIP
        (0.87, 0.012)
    """
    if not real_number(tolerance_mm, "tolerance_mm") >= 0:
        raise ValueError(f"tolerance_mm must be at least 0, got {tolerance_mm}")
    counted = Counted(labels, n_bins, closed, fine_bins, regions)
    scheme = _scheme(Path(labels), Path(predictions), dataset_json, num_classes)
    folder = PredictionFolder(predictions) if probabilities else None
    scoring = _Scoring(
        predictions=LabelMaps.find(predictions, scheme),
        references=LabelMaps.find(labels, scheme),
        probabilities=folder,
        saved=frozenset() if folder is None else frozenset(folder.cases()),
        counted=counted,
        tolerance_mm=tolerance_mm if surface else None,
    )
    scoring.check_pairs(complete=not (allow_missing or keep_going))
    out_file = _writable(Path(out_file))
    pooled = counted.statistics(scheme)
    records: list[dict[str, Any]] = []

    def score(case: str) -> None:
        record, statistics = scoring.score(case)
        if statistics is not None:
            pooled.merge(statistics)
        records.append(record)

    wanted = scoring.predictions if allow_missing else scoring.references
    run = run_cases(sorted(wanted.paths), score, keep_going=keep_going, progress=progress)
    if not records:
        reasons = "; ".join(dict.fromkeys(one.reason for one in run.failed))
        raise DataError(predictions, f"no case could be scored: {reasons}")
    summary = _summary(records, pooled, scoring)
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


def _writable(out_file: Path) -> Path:
    """Make the folder of the file now, rather than fail when everything is scored."""
    if out_file.is_dir():
        raise DataError(out_file, "out_file must be the name of a JSON file, got a folder")
    out_file.parent.mkdir(parents=True, exist_ok=True)
    return out_file


@dataclass(frozen=True, slots=True)
class _Scoring:
    """What is compared, and how."""

    predictions: LabelMaps
    references: LabelMaps
    probabilities: PredictionFolder | None
    saved: frozenset[str]
    """Cases that have probabilities."""
    counted: Counted
    tolerance_mm: float | None
    """Of the surface Dice; None for no surface scores."""

    def check_pairs(self, *, complete: bool) -> None:
        """Raise a `DataError` for a prediction without reference; if ``complete``, the reverse."""
        folder, references = self.predictions.folder, self.references
        for case, path in self.predictions.paths.items():
            if case not in references.paths:
                raise DataError(path, f"no reference {references.folder / case}.nii.gz")
        missing = sorted(set(references.paths) - set(self.predictions.paths))
        if missing and complete:
            raise DataError(
                folder,
                f"no prediction for {len(missing)} of {len(references.paths)} cases of "
                f"{references.folder}, the first of which is {missing[0]}; allow_missing=True "
                "(--allow-missing) scores the others",
            )

    def score(self, case: str) -> tuple[dict[str, Any], CalibrationStatistics | None]:
        """Score one case."""
        if case not in self.predictions.paths:
            raise DataError(self.predictions.folder, f"no prediction of case {case}")
        reference = self.references.read(case)
        prediction = self.predictions.read(case, reference.grid, reference.path)
        metrics = {
            key: self._structure(group, reference, prediction)
            for key, group in reference.scheme.foreground.items()
        }
        statistics = None
        if self.probabilities is not None and case in self.saved:
            statistics = count_case(
                self.probabilities.probabilities(case),
                reference,
                case=case,
                counted=self.counted,
                prediction=prediction.labels,
            )
        record = {
            "case": case,
            "metrics": metrics,
            "reference_file": str(reference.path),
            "prediction_file": str(prediction.path),
            "calibration": None if statistics is None else calibration_summary(statistics),
        }
        if self.counted.regions and statistics is not None:
            record["calibration_of_regions"] = region_summaries(statistics)
        return record, statistics

    def _structure(
        self, group: tuple[int, ...], reference: LabelMap, prediction: LabelMap
    ) -> dict[str, float]:
        masks = np.isin(reference.labels, group), np.isin(prediction.labels, group)
        kept, spacing = reference.kept, reference.grid.spacing
        found = overlap(*masks, kept=kept, voxel_ml=math.prod(spacing) / 1000)
        if self.tolerance_mm is not None:
            if kept is not None:
                masks = masks[0] & kept, masks[1] & kept
            found |= surface_scores(*masks, spacing=spacing, tolerance_mm=self.tolerance_mm)
        return found


def _summary(
    records: Sequence[dict[str, Any]], pooled: CalibrationStatistics, scoring: _Scoring
) -> dict[str, Any]:
    scheme, settings = scoring.references.scheme, scoring.counted
    keys = list(scheme.foreground)
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
        if settings.regions:
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
        "labels": scheme.names,
        "settings": {
            "tolerance_mm": scoring.tolerance_mm,
            "n_bins": settings.n_bins,
            "closed": settings.closed,
            "fine_bins": settings.fine_bins,
            "regions": list(settings.regions),
        },
    }


def _nanmean(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else float("nan")
