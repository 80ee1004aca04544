"""Measures of a score with intervals over cases."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fastcal.calibration.resampling import Resampling, percentiles
from fastcal.core.arguments import choice, real_number
from fastcal.core.arrays import Floats
from fastcal.scores.measures import MEASURES, Rows
from fastcal.scores.names import Unsure


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its bootstrap interval over cases."""

    value: float
    """From every case once; NaN where there is none."""
    low: float
    high: float
    n_cases: int
    reason: str | None = None
    """Why ``value`` is NaN."""
    n: int | None = None
    """How many values it is made of; None where they are the cases."""

    def to_json(self) -> dict[str, Any]:
        """Return the number as plain values."""
        found: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high}
        found |= {"n": self.n_cases if self.n is None else self.n, "n_cases": self.n_cases}
        return found | ({} if self.reason is None else {"reason": self.reason})

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "-"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Draws:
    """How intervals are made: cases are drawn with replacement, with all their structures.

    Raises:
        TypeError, ValueError: A number is out of range.
    """

    level: float = 0.95
    """Confidence level, between 0 and 1."""
    n_resamples: int = 2000
    """Sets of cases drawn."""
    seed: int = 0

    def __post_init__(self) -> None:
        self._resampling()

    def estimate(
        self,
        read: Callable[[Floats], Floats],
        cases: Sequence[str],
        reason: str | None = None,
    ) -> Estimate:
        """Return a measure of rows with its interval.

        Args:
            read: Gives the measure ``[R]`` of weights of the rows ``[R, n]``.
            cases: Of each row; the rows of a case are drawn together.
            reason: Why there is no value; None where there is one.
        """
        names, rows = np.unique(np.asarray(cases, dtype=object).astype(str), return_inverse=True)
        if reason is not None:
            return Estimate(np.nan, np.nan, np.nan, len(names), reason, len(rows))
        value = float(read(np.ones((1, len(rows))))[0])
        if len(names) < 2:
            return Estimate(value, np.nan, np.nan, len(names), n=len(rows))
        resampling = self._resampling()
        parts = resampling.draws(len(names))
        found = np.concatenate([self._read(read, counts[:, rows]) for counts in parts])
        low, high = percentiles(found, resampling.tails)
        return Estimate(value, low, high, len(names), n=len(rows))

    def _read(self, read: Callable[[Floats], Floats], weights: Floats) -> Floats:
        # With few structures a resample may hold none of them: it has no value.
        held = weights.sum(1) > 0
        found = np.full(len(weights), np.nan)
        if held.any():
            found[held] = read(weights[held])
        return found

    def _resampling(self) -> Resampling:
        return Resampling(self.level, self.n_resamples, self.seed)


def score_measures(
    score: Any,
    dice: Any,
    *,
    unsure: Unsure = "high",
    cases: Sequence[str] | None = None,
    failure_dice: float = 0.7,
    measures: Collection[str] | None = None,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Return how well a score tells the quality of structures, with intervals over cases.

    Args:
        score: ``[n]``, one number per structure; a row with NaN is left out.
        dice: ``[n]``, its Dice; a row with NaN is left out.
        unsure: ``"high"`` where high scores are unsure, such as entropies, else ``"low"``.
        cases: ``[n]``, the case of each structure; None for a case of its own for each.
        failure_dice: A Dice below it is a failure.
        measures: Names of `MEASURES`; None for all.
        level: Confidence level of the intervals, between 0 and 1.
        n_resamples: Sets of cases drawn with replacement.
        seed: Of the draws.

    Returns:
        The measures by name. One that has no value is NaN and says why, such as AUROC where no
        structure failed.

    Raises:
        TypeError, ValueError: An argument does not fit.

    Example:
        >>> found = score_measures([0.1, 0.2, 0.4], [0.9, 0.8, 0.3], failure_dice=0.5)
        >>> found["auroc"].value, round(found["aurc"].value, 3), round(found["augrc"].value, 3)
        (1.0, 0.194, 0.1)
    """
    choice(unsure, "unsure", ("high", "low"))
    values, truth = _column(score, "score"), _column(dice, "dice")
    if len(values) != len(truth):
        raise ValueError(f"dice must have the length of score, {len(values)}, got {len(truth)}")
    named = [str(k) for k in range(len(values))] if cases is None else list(cases)
    if len(named) != len(values):
        raise ValueError(f"cases must have the length of score, {len(values)}, got {len(named)}")
    draws = Draws(level, n_resamples, seed)
    chosen = _chosen(measures)
    known = ~(np.isnan(values) | np.isnan(truth))
    if not 0 < real_number(failure_dice, "failure_dice") <= 1:
        raise ValueError(f"failure_dice must be above 0 and at most 1, got {failure_dice:g}")
    turned = values if unsure == "high" else -values
    rows = Rows(turned[known], truth[known], failure_dice)
    kept = [name for name, there in zip(named, known, strict=True) if there]
    return {
        name: draws.estimate(
            partial(MEASURES[name].read, rows),
            kept,
            MEASURES[name].missing(rows),
        )
        for name in chosen
    }


def mean_absolute_error(
    predicted: Any, dice: Any, cases: Sequence[str], draws: Draws | None = None
) -> Estimate:
    """Return the mean absolute error of predicted Dice ``[n]``, rows with NaN left out."""
    values, truth = _column(predicted, "predicted"), _column(dice, "dice")
    return mean_of_rows(np.abs(values - truth), cases, draws)


def mean_of_rows(values: Floats, cases: Sequence[str], draws: Draws | None = None) -> Estimate:
    """Return the mean over rows ``[n]`` with its interval over cases, NaN left out."""
    known = ~np.isnan(values)
    kept = [name for name, there in zip(cases, known, strict=True) if there]
    found = values[known]
    reason = None if found.size else "there are no structures with a value"
    return (draws or Draws()).estimate(lambda w: (w @ found) / w.sum(1), kept, reason)


def _chosen(measures: Collection[str] | None) -> list[str]:
    for name in measures or ():
        choice(name, "measures", tuple(MEASURES))
    return list(MEASURES if measures is None else measures)


def _column(values: Any, name: str) -> Floats:
    found = np.asarray(values)
    if found.ndim != 1 or found.dtype.kind not in "fiu":
        raise ValueError(
            f"{name} must be numbers along one axis, got {found.dtype} of shape {found.shape}"
        )
    found = found.astype(np.float64)
    if np.isinf(found).any():
        raise ValueError(f"{name} must be finite numbers or NaN, got infinity")
    return found


def as_json(found: Mapping[str, Estimate]) -> dict[str, Any]:
    """Return estimates by name as plain values."""
    return {name: estimate.to_json() for name, estimate in found.items()}
