"""Every number of a report with its interval over cases, and the paired differences of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from fastcal.calibration import CalibrationStatistics
from fastcal.calibration.metrics import METRICS, Measure
from fastcal.core.arrays import Floats
from fastcal.report.cohort import Cohort, Model
from fastcal.report.measured import (
    Difference,
    Measured,
    calibration_of,
    difference,
    mean_of_cases,
    mean_of_known,
)

WHOLE = ""
"""Name of the region that is the whole volume."""
Outcome = Literal["better", "worse", "tie"]


@dataclass(frozen=True, eq=False)
class Numbers:
    """What the models of a cohort scored."""

    cohort: Cohort
    measures: tuple[str, ...]
    """Names of `METRICS` that all models with probabilities have, Dice first."""
    regions: tuple[str, ...]
    """`WHOLE` first."""
    table: Mapping[tuple[str, str, str], Measured]
    """By the title of the model, the measure and the region; Dice is of the whole volume."""
    by_structure: Mapping[tuple[str, str], Measured]
    """Dice by the title of the model and the structure."""
    _known: dict[tuple[Model, Model, str, str], Difference] = field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def box(self) -> str:
        """The paper's region: the first box, or the whole volume where none was counted."""
        return next((name for name in self.regions if name.startswith("box")), WHOLE)

    def get(self, model: Model, measure: str, region: str = WHOLE) -> Measured | None:
        """Return a number of a model; None where it has none."""
        place = WHOLE if measure == "dice" else region
        return self.table.get((model.title, measure, place))

    def difference(
        self, first: Model, second: Model, measure: str, region: str = WHOLE
    ) -> Difference | None:
        """Return the paired difference of two models, ``first`` less ``second``."""
        one, two = (self.get(model, measure, region) for model in (first, second))
        if one is None or two is None:
            return None
        key = (first, second, measure, WHOLE if measure == "dice" else region)
        if key not in self._known:
            self._known[key] = difference(one, two)
        return self._known[key]

    def best(self, measure: str, region: str) -> dict[str, bool]:
        """Return the titles of the models that no other one is shown to beat.

        The value says whether it has the best estimate; the others are tied with it: the interval
        of their paired difference holds 0.
        """
        found = {
            model: number
            for model in self.cohort.models
            if (number := self.get(model, measure, region)) is not None
            and not np.isnan(number.estimate)
        }
        if len(found) < 2:
            return {}
        sign = -1 if METRICS[measure].better == "higher" else 1
        first = min(found, key=lambda model: sign * found[model].estimate)
        held = {first.title: True}
        for model in found:
            between = None if model is first else self.difference(model, first, measure, region)
            if between is not None and outcome(measure, between) == "tie":
                held[model.title] = False
        return held

    @cached_property
    def pairs(self) -> tuple[tuple[Model, Model], ...]:
        """Pairs of models that are compared: within a group, then the groups' last models."""
        found = []
        for group in self.cohort.groups:
            last = next(one for one in self.cohort.shown if one.group == group)
            others = [m for m in self.cohort.models if m.group == group and m is not last]
            found += [(last, other) for other in others]
        shown = self.cohort.shown
        found += [
            (second, first) for place, first in enumerate(shown) for second in shown[place + 1 :]
        ]
        return tuple(found)


def outcome(measure: str, between: Difference) -> Outcome:
    """Return what the first of two models is: better or worse where the interval leaves out 0.

    Example:
        >>> outcome("nll", Difference(-0.1, -0.2, -0.01, 0.01, 20))
        'better'
        >>> outcome("dice", Difference(-0.1, -0.2, 0.01, 0.2, 20))
        'tie'
    """
    if not (between.low > 0 or between.high < 0):
        return "tie"
    higher = between.low > 0
    return "better" if higher == (METRICS[measure].better == "higher") else "worse"


def region_title(region: str) -> str:
    """Return a region as switches and tables have it.

    Example:
        >>> region_title("box:8:2"), region_title("band:3"), region_title("")
        ('box, 8 mm and 2 slices', 'within 3 mm of a boundary', 'whole volume')
    """
    kind, *numbers = region.split(":")
    if kind == "box":
        margin, slices = (*numbers, *("8", "2")[len(numbers) :])
        return f"box, {margin} mm and {slices} slices"
    if kind == "band" and numbers:
        return f"within {numbers[0]} mm of a boundary"
    return region or "whole volume"


def numbers_of(cohort: Cohort) -> Numbers:
    """Measure every model of a cohort.

    Args:
        cohort: Models that were scored on the same cases.
    """
    counted = [model for model in cohort.models if model.statistics]
    measures = tuple(
        name
        for name, metric in METRICS.items()
        if metric.column
        # What rests on fine cells takes seconds to resample: `fastcal.report.ranks` has it.
        and not metric.words.endswith("fine cells")
        and (
            name == "dice"
            or (counted and all(metric.kept(s.settings) for m in counted for s in m.statistics))
        )
    )
    regions = (WHOLE, *cohort.regions)
    table: dict[tuple[str, str, str], Measured] = {}
    by_structure: dict[tuple[str, str], Measured] = {}
    for model in cohort.models:
        of_each = [mean_of_cases(column) for column in model.dice.T]
        by_structure |= {
            (model.title, name): one for name, one in zip(cohort.structures, of_each, strict=True)
        }
        table[model.title, "dice", WHOLE] = mean_of_structures(of_each, model.dice)
        for region in regions if model.statistics else ():
            states = [_inside(one, region) for one in model.statistics]
            for name in measures[1:]:
                measure = Measure(name, kind=METRICS[name].kind)
                table[model.title, name, region] = calibration_of(states, measure)
    return Numbers(cohort, measures, regions, table, by_structure)


def mean_of_structures(of_each: Sequence[Measured], dice: Floats) -> Measured:
    """Return the mean over structures of their means over cases, as `fastcal.evaluate` has it.

    Args:
        of_each: K numbers.
        dice: ``[cases, K]``, from which the mean of each case is made.
    """
    estimates = np.array([one.estimate for one in of_each])
    known = [one for one in of_each if not np.isnan(one.estimate)]
    if not known:
        return of_each[0]
    return Measured(
        float(estimates[~np.isnan(estimates)].mean()),
        mean_of_known(dice),
        mean_of_known(np.stack([one.distribution for one in known], axis=-1)),
    )


def _inside(statistics: CalibrationStatistics, region: str) -> CalibrationStatistics:
    return statistics.region(region) if region != WHOLE else statistics
