"""The scores of one case of an evaluation, in this process or in a worker's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcal.calibration.summary import calibration_summary, region_summaries
from fastcal.cases.case_record import CaseRecord
from fastcal.cases.count import count_case
from fastcal.cases.overlap import overlap
from fastcal.cases.pipeline import Stages, run_stages
from fastcal.cases.plausible import contradicted
from fastcal.cases.record import FolderRecord, digests, versions
from fastcal.cases.reference import LabelMap, LabelMaps, check_extents
from fastcal.cases.settings import Counted
from fastcal.core.errors import DataError
from fastcal.data.affines import affine_rule
from fastcal.data.listing import check_text
from fastcal.data.predictions import PredictionFolder, Probabilities
from fastcal.evaluate.begun import Begun, Scored
from fastcal.evaluate.surface import surface_scores

MissedHd95: TypeAlias = Literal["omit", "diagonal"]
"""What the HD95 of a case is where only one of reference and prediction has the structure."""


@dataclass(frozen=True, slots=True)
class Scoring:
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
            "scheme": asdict(self.references.scheme),
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
            begun.key,
            members,
            [] if reference is None else [reference],
            begun.folder,
            CaseRecord.read(begun.folder, case),
        )

    def check_pairs(self, *, complete: bool) -> None:
        """Raise a `DataError` for a prediction without reference; if ``complete``, the reverse."""
        folder, references = self.predictions.folder, self.references
        for case in self.saved:
            check_text(case, folder)
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
        masks = _is_any(reference.labels, group), _is_any(prediction.labels, group)
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


def _is_any(labels: NDArray[Any], group: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return where a label is one of the group: a few comparisons, in place of NumPy's search."""
    found: NDArray[np.bool_] = labels == group[0]
    for value in group[1:]:
        found |= labels == value
    return found


@dataclass(frozen=True, slots=True)
class Work:
    """Scores a case and keeps it, in this process or as a task of workers."""

    scoring: Scoring
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
