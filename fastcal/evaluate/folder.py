"""Evaluation of a folder of predictions: a superset of nnU-Net's ``summary.json``."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from fastcal.calibration.summary import calibration_summary, region_summaries
from fastcal.cases.case_record import CaseRecord
from fastcal.cases.count import count_case
from fastcal.cases.journal import journal_beside
from fastcal.cases.labels import LabelScheme
from fastcal.cases.loop import ProgressOption
from fastcal.cases.overlap import overlap
from fastcal.cases.pipeline import Stages, run_stages
from fastcal.cases.plausible import contradicted
from fastcal.cases.record import FolderRecord, digests, versions
from fastcal.cases.reference import LabelMap, LabelMaps, check_extents
from fastcal.cases.settings import Counted
from fastcal.cases.workers import Workers
from fastcal.core import atomic
from fastcal.core.arguments import choice, real_number
from fastcal.core.bins import Closed
from fastcal.core.errors import DataError, DataWarning
from fastcal.core.places import check_out_file, check_out_folder
from fastcal.data import description
from fastcal.data.affines import affine_rule
from fastcal.data.predictions import PredictionFolder, Probabilities
from fastcal.evaluate.begun import PARTIAL, Begun, Scored
from fastcal.evaluate.surface import surface_scores

MissedHd95: TypeAlias = Literal["omit", "diagonal"]
"""What the HD95 of a case is where only one of reference and prediction has the structure."""


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
    folder = PredictionFolder(predictions) if probabilities else None
    scoring = _Scoring(
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
    # Made now, rather than to fail when everything is scored.
    out_file.parent.mkdir(parents=True, exist_ok=True)
    partial = out_file.with_name(out_file.name + PARTIAL)
    check_out_folder(partial, [Path(labels), Path(predictions)])
    begun = Begun(partial, scoring.record(partial, described).key)
    work = _Work(scoring, begun)
    wanted = sorted((scoring.predictions if allow_missing else scoring.references).paths)
    with begun.held():
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


@dataclass(frozen=True, slots=True)
class _Work:
    """Scores a case and keeps it, in this process or as a task of workers."""

    scoring: _Scoring
    begun: Begun
    records: dict[str, CaseRecord] = field(default_factory=dict)
    """Of the cases that are being read."""

    @property
    def folder(self) -> Path:
        """The folder of the cases that are kept; see `fastcal.cases.desk.Task`."""
        return self.begun.folder

    @property
    def stages(self) -> Stages[Any, Scored]:
        """The three steps of a case."""
        return Stages(self._read, self.scoring.score, self._keep)

    def prepare(self) -> None:
        """Nothing needs to be made ready."""

    def __call__(self, case: str, hint: Any = None) -> None:
        """Score a case; its results are its files."""
        del hint
        run_stages([case], self.stages)

    def finished(self, case: str) -> bool:
        """Whether a case is kept, and its inputs are what they were."""
        try:
            return self.begun.knows(case) and self.begun.holds(
                case, self.scoring.case_record(case, self.begun)
            )
        except DataError:
            return False  # scoring it says what is wrong

    def _read(self, case: str) -> Iterator[tuple[LabelMap, LabelMap] | Probabilities]:
        self.records[case] = self.scoring.case_record(case, self.begun)
        yield from self.scoring.read(case)

    def _keep(self, case: str, scored: Scored) -> None:
        self.begun.write(case, scored, self.records.pop(case))


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
    missed_hd95: MissedHd95

    @property
    def inputs(self) -> list[Path]:
        """Every file that is read."""
        files = [*self.predictions.paths.values(), *self.references.paths.values()]
        return [*files, *(path for case in self.saved for path in self._saved_files(case))]

    @property
    def settings(self) -> dict[str, Any]:
        """What the numbers depend on beside the files."""
        return {
            "affine": affine_rule(),
            "tolerance_mm": self.tolerance_mm,
            "missed_hd95": self.missed_hd95,
            "n_bins": self.counted.n_bins,
            "closed": self.counted.closed,
            "fine_bins": self.counted.fine_bins,
            "regions": list(self.counted.regions),
        }

    def record(self, folder: Path, described: Sequence[Path]) -> FolderRecord:
        """Return what the scores of every case depend on, for a folder that keeps them.

        Raises:
            DataError: A description cannot be read.
        """
        settings = {
            "command": "evaluate",
            **self.settings,
            "num_classes": self.references.scheme.num_classes,
            "probabilities": self.probabilities is not None,
        }
        return FolderRecord(folder, settings, {}, digests(described, folder), versions())

    def case_record(self, case: str, begun: Begun) -> CaseRecord:
        """Return the record of a case with the digests that its files have now.

        Raises:
            DataError: It has no prediction, or a file cannot be read.
        """
        members = [self._prediction_of(case), *self._saved_files(case)]
        reference = self.references.paths.get(case)
        return CaseRecord.of(
            begun.key, members, [] if reference is None else [reference], begun.folder
        )

    def check_pairs(self, *, complete: bool) -> None:
        """Raise a `DataError` for a prediction without reference; if ``complete``, the reverse."""
        folder, references = self.predictions.folder, self.references
        for case, path in self.predictions.paths.items():
            if case not in references.paths:
                raise DataError(path, f"no reference of case {case} in {references.folder}")
        missing = sorted(set(references.paths) - set(self.predictions.paths))
        if missing and complete:
            raise DataError(
                folder,
                f"no prediction for {len(missing)} of {len(references.paths)} cases of "
                f"{references.folder}, the first of which is {missing[0]}; allow_missing=True "
                "(--allow-missing) scores the others",
            )

    def read(self, case: str) -> Iterator[tuple[LabelMap, LabelMap] | Probabilities]:
        """Read the label maps of a case, then its probabilities where it has any."""
        yield self._labels(case)
        if self.probabilities is not None and case in self.saved:
            yield self.probabilities.probabilities(case)

    def _labels(self, case: str) -> tuple[LabelMap, LabelMap]:
        self.references.require([case])
        check_extents(self._prediction_of(case), self.references.paths[case])
        reference = self.references.read(case)
        return reference, self.predictions.read(case, reference.grid, reference.path)

    def score(self, case: str, pieces: Iterator[Any]) -> Scored:
        """Score one case from what was read of it."""
        reference, prediction = next(pieces)
        metrics = {
            key: self._structure(group, reference, prediction)
            for key, group in reference.scheme.foreground.items()
        }
        if self.probabilities is None or case not in self.saved:
            return Scored(metrics, None, 0, "")
        found = next(pieces)
        statistics = count_case(
            found, reference, case=case, counted=self.counted, prediction=prediction.labels
        )
        contradicting = 0
        if not reference.scheme.multilabel:
            contradicting = contradicted(found, prediction.labels, reference.kept)
        return Scored(metrics, statistics, contradicting, str(found.source))

    def entry(self, case: str, scored: Scored) -> dict[str, Any]:
        """Return what ``metric_per_case`` holds of a case."""
        statistics = scored.statistics
        entry = {
            "case": case,
            "metrics": scored.metrics,
            "reference_file": str(self.references.paths[case]),
            "prediction_file": str(self.predictions.paths[case]),
            "calibration": None if statistics is None else calibration_summary(statistics),
        }
        if self.counted.regions and statistics is not None:
            entry["calibration_of_regions"] = region_summaries(statistics)
        return entry

    def _prediction_of(self, case: str) -> Path:
        if case not in self.predictions.paths:
            raise DataError(self.predictions.folder, f"no prediction of case {case}")
        return self.predictions.paths[case]

    def _saved_files(self, case: str) -> list[Path]:
        if self.probabilities is None or case not in self.saved:
            return []
        return self.probabilities.files(case)

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
            if self.missed_hd95 == "diagonal" and bool(found["n_ref"]) != bool(found["n_pred"]):
                extents = zip(reference.labels.shape, spacing, strict=True)
                found["HD95"] = math.hypot(*(number * step for number, step in extents))
        return found


def _summary(cases: Sequence[str], begun: Begun, scoring: _Scoring) -> dict[str, Any]:
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
