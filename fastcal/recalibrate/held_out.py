"""Scores before and after calibration on cases that the fit has not seen."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastcal.calibration import CalibrationStatistics
from fastcal.recalibrate.calibrator import Calibrator
from fastcal.recalibrate.case_volumes import CaseVolumes, Volume


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What a method of calibration does to cases that it was not fitted to."""

    before: CalibrationStatistics
    """Of the probabilities as they were saved."""
    after: CalibrationStatistics
    """Of the same cases, each calibrated by a fit to the cases of the other folds."""
    folds: int


def held_out_scores(calibrator: Calibrator, volumes: CaseVolumes, folds: int) -> HeldOut | None:
    """Cross-validate a calibrator over cases.

    The cases, in ascending order of their names, are dealt to the folds in turn. Each fold is
    calibrated by a copy of the calibrator that was fitted to all other folds.

    Args:
        calibrator: What to cross-validate; it is not changed.
        volumes: The cases.
        folds: Number of folds, at most one per case.

    Returns:
        The scores; None where there are fewer than two folds or cases.

    Raises:
        ValueError: See `Calibrator.fit_stream`.
    """
    cases = sorted(volumes.cases)
    folds = min(folds, len(cases))
    if folds < 2:
        return None
    counts: list[tuple[CalibrationStatistics, CalibrationStatistics]] = []

    def take(found: tuple[CalibrationStatistics, CalibrationStatistics]) -> None:
        counts.append(found)
        if len(counts) > 1:
            for whole, one in zip(counts[0], counts.pop(), strict=True):
                whole.merge(one)

    for fold in range(folds):
        left_out = cases[fold::folds]
        own = copy.deepcopy(calibrator)
        part = f"fold {fold + 1} of {folds}"
        others = [case for case in cases if case not in set(left_out)]
        own.fit_stream(volumes.subset(others, part))
        volumes.subset(left_out, f"{part}, scores").fold(_BeforeAndAfter(calibrator, own), take)
    return HeldOut(*counts[0], folds)


def all_held_out_scores(
    calibrators: Sequence[Calibrator], streams: Sequence[CaseVolumes], folds: int
) -> tuple[HeldOut, ...]:
    """Cross-validate the calibrator of each stream; empty where one of them cannot be.

    Raises:
        ValueError: See `held_out_scores`.
    """
    found = [
        held_out_scores(calibrator, volumes, folds)
        for calibrator, volumes in zip(calibrators, streams, strict=True)
    ]
    scores = tuple(one for one in found if one is not None)
    return scores if len(scores) == len(found) else ()


@dataclass(frozen=True, slots=True)
class _BeforeAndAfter:
    """Counts a case as it was saved, and calibrated."""

    saved: Calibrator
    """Says how the predictions are read."""
    fitted: Calibrator

    def __call__(
        self, number: int, volume: Volume
    ) -> tuple[CalibrationStatistics, CalibrationStatistics]:
        del number
        values, target, mask = volume
        before, after = _empty(self.saved, values), _empty(self.saved, values)
        _count(before, _uncalibrated(self.saved, values), target, mask)
        _count(after, self.fitted.transform(values), target, mask)
        return before, after


def _empty(calibrator: Calibrator, values: Tensor) -> CalibrationStatistics:
    return CalibrationStatistics(values.shape[1], multilabel=calibrator.multilabel)


def _uncalibrated(calibrator: Calibrator, values: Tensor) -> Tensor:
    if not calibrator.from_logits:
        return values
    real = torch.promote_types(values.dtype, torch.float32)
    logits = values.to(real)
    return logits.sigmoid() if calibrator.reading.bernoulli else logits.softmax(1)


def _count(
    statistics: CalibrationStatistics, probs: Tensor, target: Tensor, mask: Tensor | None
) -> None:
    with warnings.catch_warnings():
        # Exclusive classes of a sigmoid do not sum to 1: the fit has been told to expect it.
        warnings.simplefilter("ignore", UserWarning)
        statistics.update(probs, target, mask=mask)
