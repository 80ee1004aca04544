"""The section on calibration: diagrams of every region and class, with what they say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastcal.calibration import CalibrationStatistics
from fastcal.calibration.curves import Reliability, reliability
from fastcal.report.charts.reliability import reliability_chart
from fastcal.report.cohort import SINGLE, Cohort, Model
from fastcal.report.comparison_view import series_of
from fastcal.report.gaps import Gaps, gaps_of
from fastcal.report.quantities import WHOLE

MOST_CLASSES = 8
"""Classes with diagrams of their own; a page of a hundred would be of megabytes."""


@dataclass(frozen=True, slots=True)
class Diagram:
    """A model's diagram."""

    title: str
    figure: str
    sentence: str


@dataclass(frozen=True, slots=True)
class DiagramSet:
    """The diagrams of one region and one class, of every model that is shown."""

    region: str
    class_name: str
    """Empty for the top label."""
    diagrams: tuple[Diagram, ...]
    hidden: int
    """Bins, over all models, that hold few voxels."""


def shown_gaps(cohort: Cohort, region: str) -> dict[str, Gaps]:
    """Return the calibration of the models that are shown, by title."""
    return {
        model.title: gaps_of(_inside(model.statistics[0], region))
        for model in cohort.shown
        if model.statistics and _inside(model.statistics[0], region).n_voxels
    }


def diagram_sets(cohort: Cohort, *, min_count: int) -> tuple[DiagramSet, ...]:
    """Return the diagrams of every region and of the first `MOST_CLASSES` classes.

    Args:
        cohort: The models.
        min_count: Bins of this many voxels or fewer are hidden at first.
    """
    models = [model for model in cohort.shown if model.statistics]
    if not models:
        return ()
    found = []
    for region in (WHOLE, *cohort.regions):
        if any(_inside(model.statistics[0], region).n_voxels == 0 for model in models):
            continue
        numbers = (None, *range(min(len(cohort.classes), MOST_CLASSES)))
        found += [_set(cohort, models, region, number, min_count) for number in numbers]
    return tuple(found)


def _set(
    cohort: Cohort, models: list[Model], region: str, class_index: int | None, min_count: int
) -> DiagramSet:
    gaps = [gaps_of(_inside(model.statistics[0], region), class_index) for model in models]
    ends = [part for one in gaps for part in (one.parts, one.low, one.high)]
    largest = float(np.nanmax(np.abs(np.concatenate(ends))))
    name = "" if class_index is None else cohort.classes[class_index]
    diagrams = []
    for model, one in zip(models, gaps, strict=True):
        sentence = _sentence(model, one, class_name=name)
        diagrams.append(
            Diagram(
                model.title,
                reliability_chart(
                    one,
                    members=_members(cohort, model, region, class_index),
                    series=series_of(cohort, model),
                    min_count=min_count,
                    largest=largest,
                    finding=sentence,
                    of_class=class_index is not None,
                ),
                sentence,
            )
        )
    few = sum(int(((one.curve.count > 0) & (one.curve.count <= min_count)).sum()) for one in gaps)
    return DiagramSet(region, name, tuple(diagrams), few)


def _members(
    cohort: Cohort, model: Model, region: str, class_index: int | None
) -> list[Reliability]:
    single = cohort.of(model.group, SINGLE)
    if single is None or single is model:
        return []
    return [reliability(_inside(one, region).rows(), class_index) for one in single.statistics]


def _sentence(model: Model, gaps: Gaps, *, class_name: str) -> str:
    over = float(gaps.parts[gaps.parts > 0].sum())
    under = abs(float(gaps.parts[gaps.parts < 0].sum()))
    main = float(gaps.parts[gaps.main])
    lean = "overconfidence" if main > 0 else "underconfidence"
    error = "ECE" if not class_name else f"Classwise ECE of {class_name}"
    return (
        f"{model.title}: {error} {100 * gaps.error:.2f} points, of which {100 * over:.2f} are "
        f"overconfidence and {100 * under:.2f} underconfidence; {100 * abs(main):.2f} are "
        f"{lean} in the bin {gaps.range(gaps.main)}."
    )


def _inside(statistics: CalibrationStatistics, region: str) -> CalibrationStatistics:
    return statistics.region(region) if region != WHOLE else statistics
