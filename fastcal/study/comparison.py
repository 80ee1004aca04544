"""Every model of a study on the held-out cases: overlap, distance and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastcal.calibration.metrics import METRICS
from fastcal.report.measured import (
    Difference,
    Measured,
    calibration_of,
    difference,
    mean_of_cases,
    mean_of_known,
)
from fastcal.study.design import BOX, LOSSES

if TYPE_CHECKING:
    from fastcal import CalibrationStatistics
    from fastcal.core.arrays import Floats
    from fastcal.study.records import Streamed
    from fastcal.study.subsets import Subset

SINGLE, DROPOUT, ENSEMBLE = "single", "MC dropout", "ensemble"
WHOLE, IN_BOX = "whole volume", "box"
REGIONS = (IN_BOX, WHOLE)
OVERLAP = ("dice", "hd95")
CALIBRATION = ("nll", "brier", "ece")


@dataclass(frozen=True, slots=True)
class Quantity:
    """What is measured of a model."""

    measure: str
    """``"dice"``, ``"hd95"``, ``"nll"``, ``"brier"`` or ``"ece"``."""
    region: str = ""
    """`WHOLE` or `IN_BOX`; nothing for overlap and distance."""

    @property
    def title(self) -> str:
        """At the head of a column."""
        name = "HD95, mm" if self.measure == "hd95" else METRICS[self.measure].title
        return f"{name}, {self.region}" if self.region else name

    @property
    def better(self) -> str:
        """``"higher"`` or ``"lower"``."""
        return "higher" if self.measure == "dice" else "lower"

    def text(self, value: float) -> str:
        """Return a value as tables print it."""
        if np.isnan(value):
            return "-"
        return f"{value:.2f}" if self.measure == "hd95" else METRICS[self.measure].text(value)


QUANTITIES = (
    *(Quantity(measure) for measure in OVERLAP),
    *(Quantity(measure, region) for region in REGIONS for measure in CALIBRATION),
)


@dataclass(frozen=True, slots=True)
class Model:
    """One kind of model: the mean over its draws is reported."""

    loss: str
    kind: str
    """`SINGLE`, `DROPOUT` or `ENSEMBLE`."""
    size: int
    """Members, or passes with dropout."""
    draws: int
    measured: Mapping[Quantity, Measured]
    statistics: CalibrationStatistics
    """Of the first draw, whole volume and box."""
    undefined: Mapping[str, tuple[int, int]]
    """Of Dice and HD95: how many values are undefined, and of how many, over all cases, structures
    and draws. HD95 is where a structure is missed or invented, which a mean over the others hides.
    """

    @property
    def by_region(self) -> tuple[tuple[str, CalibrationStatistics], ...]:
        """Statistics of the first draw in every region, by its name."""
        return ((IN_BOX, self.statistics.region(BOX)), (WHOLE, self.statistics))

    @property
    def title(self) -> str:
        """As tables print it."""
        if self.kind == SINGLE:
            return f"single (mean of {self.draws})" if self.draws > 1 else "single"
        if self.kind == DROPOUT:
            return f"MC dropout, {self.size} passes"
        return f"ensemble of {self.size}" + (f" (mean of {self.draws})" if self.draws > 1 else "")


@dataclass(frozen=True)
class Comparison:
    """The models of a study, and what they scored."""

    models: tuple[Model, ...]
    """By loss; single first, then growing ensembles, then Monte Carlo dropout."""
    cases: tuple[str, ...]

    def of(self, loss: str, kind: str, size: int | None = None) -> Model:
        """Return a model; the largest of its kind where no size is given."""
        fitting = [one for one in self.models if (one.loss, one.kind) == (loss, kind)]
        if size is not None:
            fitting = [one for one in fitting if one.size == size]
        return max(fitting, key=lambda one: one.size)

    def by_size(self, loss: str) -> tuple[Model, ...]:
        """Return single members and ensembles of a loss, by size."""
        found = [one for one in self.models if one.loss == loss and one.kind != DROPOUT]
        return tuple(sorted(found, key=lambda one: one.size))

    @property
    def shown(self) -> tuple[Model, ...]:
        """Single, dropout and the largest ensemble of each loss: the rows of the first table."""
        kinds = (SINGLE, DROPOUT, ENSEMBLE)
        return tuple(self.of(loss, kind) for loss in LOSSES for kind in kinds)

    def difference(self, quantity: Quantity, first: Model, second: Model) -> Difference:
        """Return the paired difference of two models."""
        return difference(first.measured[quantity], second.measured[quantity])


def compare(pools: Mapping[str, Streamed], dropout: Mapping[str, Streamed]) -> Comparison:
    """Measure every model.

    Args:
        pools: Records of each loss's pool on the held-out cases.
        dropout: Records of each loss's passes with dropout.
    """
    models = []
    for loss in LOSSES:
        streamed = pools[loss]
        for size in streamed.sizes:
            kind = SINGLE if size == 1 else ENSEMBLE
            models.append(_model(loss, kind, streamed, streamed.of_size(size)))
        models.append(_model(loss, DROPOUT, dropout[loss], dropout[loss].subsets))
    return Comparison(tuple(models), pools[LOSSES[0]].cases)


def _model(loss: str, kind: str, streamed: Streamed, subsets: Sequence[Subset]) -> Model:
    statistics = [streamed.statistics(subset) for subset in subsets]
    overlap = {
        "dice": [streamed.dice(subset) for subset in subsets],
        "hd95": [streamed.hd95(subset) for subset in subsets],
    }
    measured = {Quantity(name): mean_of_cases(_mean(drawn)) for name, drawn in overlap.items()}
    for region in REGIONS:
        counted = statistics if region == WHOLE else [one.region(BOX) for one in statistics]
        for measure in CALIBRATION:
            measured[Quantity(measure, region)] = calibration_of(counted, measure)
    size = subsets[0].size
    undefined = {name: undefined_of(drawn) for name, drawn in overlap.items()}
    return Model(loss, kind, size, len(subsets), measured, statistics[0], undefined)


def undefined_of(draws: Sequence[Floats]) -> tuple[int, int]:
    """Return how many values are NaN, and how many there are."""
    values = np.stack(draws)
    return int(np.isnan(values).sum()), values.size


def _mean(draws: Sequence[Floats]) -> Floats:
    """Return the mean over draws and structures for each case ``[n]``, NaN left out."""
    return mean_of_known(np.stack(draws, axis=-1))
