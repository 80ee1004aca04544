"""The section that asks whether uncertainty finds errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fastcal.calibration import CalibrationStatistics
from fastcal.calibration.metrics import METRICS, Measure
from fastcal.report.charts.coverage import Curve, coverage_chart
from fastcal.report.cohort import Cohort
from fastcal.report.comparison_view import Cell, cell, series_of
from fastcal.report.measured import calibration_of
from fastcal.report.quantities import WHOLE, Numbers


@dataclass(frozen=True, slots=True)
class Ranked:
    """How well the confidence of a model orders right and wrong voxels."""

    title: str
    auroc: Cell
    aurc: Cell
    e_aurc: Cell
    sure_and_wrong: str
    """Wrong voxels among those of at least 99 % confidence."""


@dataclass(frozen=True, slots=True)
class Warned:
    """A case that was warned of, and what its Dice turned out to be."""

    case: str
    warnings: tuple[str, ...]
    dice: Cell


@dataclass(frozen=True, slots=True)
class UncertaintyView:
    """The section."""

    chart: str
    ranked: tuple[Ranked, ...]
    warned: tuple[Warned, ...]
    sentence: str


def uncertainty_view(numbers: Numbers, case_dice: np.ndarray) -> UncertaintyView:
    """Return curves and numbers of the models that kept fine cells, and the warnings of cases.

    Args:
        numbers: What the models scored.
        case_dice: ``[cases]``, the Dice that warnings are compared with.
    """
    cohort = numbers.cohort
    ranked, curves = [], []
    for model in cohort.shown:
        if not model.statistics or not model.statistics[0].fine_bins:
            continue
        state = _inside(model.statistics[0], numbers.box)
        if not state.n_voxels:
            continue
        curves.append(Curve(model.title, state.risk_coverage(), series_of(cohort, model)))
        area = calibration_of([state], Measure("auroc", kind="top-label"))
        ranked.append(
            Ranked(
                model.title,
                cell("auroc", area),
                *(_single(name, state) for name in ("aurc", "e_aurc")),
                _sure(state),
            )
        )
    finding = _sentence(ranked)
    chart = coverage_chart(curves, finding=finding) if curves else ""
    return UncertaintyView(chart, tuple(ranked), _warned(cohort, case_dice), finding)


def _single(name: str, state: CalibrationStatistics) -> Cell:
    value = state.measure(name)
    return Cell(METRICS[name].text(value), "", value, None, None)


def _sure(state: CalibrationStatistics) -> str:
    found = state.confidence_histogram(fine=True)
    sure = found.edges[:-1] >= 0.99
    right, wrong = int(found.right[sure].sum()), int(found.wrong[sure].sum())
    if not right + wrong:
        return "no voxel is that sure"
    return f"{wrong:,} of {right + wrong:,} ({100 * wrong / (right + wrong):.2f} %)"


def _sentence(ranked: list[Ranked]) -> str:
    if not ranked:
        return ""
    found = [(one.title, one.auroc.text, one.auroc.interval) for one in ranked]
    each = "; ".join(
        f"{title} {text}" + (f" ({interval})" if interval else "")
        for title, text, interval in found
    )
    return f"A right voxel is more confident than a wrong one with the probability AUROC. {each}."


def _warned(cohort: Cohort, case_dice: np.ndarray) -> tuple[Warned, ...]:
    found = []
    for place, case in enumerate(cohort.cases):
        texts = cohort.case_flags.get(case, ())
        if texts:
            dice = float(case_dice[place])
            value = None if math.isnan(dice) else dice
            found.append(
                Warned(case, tuple(texts), Cell(METRICS["dice"].text(dice), "", value, None, None))
            )
    return tuple(sorted(found, key=lambda one: -1.0 if one.dice.value is None else one.dice.value))


def _inside(statistics: CalibrationStatistics, region: str) -> CalibrationStatistics:
    return statistics.region(region) if region != WHOLE else statistics
