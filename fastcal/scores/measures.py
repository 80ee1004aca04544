"""How well a score orders structures by their Dice, and finds those that failed.

Every measure reads the rows with weights ``[R, n]``, one weighting per resample of the cases, and
gives ``[R]``. The risk of a structure is ``1 - Dice``; a failure is a Dice below a threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from fastcal.calibration import ranking
from fastcal.core.arrays import Floats
from fastcal.scores.cells import Order

RECALL = 0.95
"""Of FPR95: the share of failures that must be found."""


@dataclass(frozen=True)
class Rows:
    """Scores of structures and their Dice, none of them NaN."""

    unsure: Floats
    """``[n]``, the score, turned so that high values are unsure."""
    dice: Floats
    """``[n]``"""
    failure_dice: float

    @property
    def failed(self) -> Floats:
        """``[n]``, 1 for a Dice below the threshold and 0 elsewhere."""
        return (self.dice < self.failure_dice).astype(np.float64)

    @cached_property
    def by_uncertainty(self) -> Order:
        """The most uncertain structure last."""
        return Order.of(self.unsure)

    @cached_property
    def by_confidence(self) -> Order:
        """The most confident structure last, as the risk-coverage curves have it."""
        return Order.of(-self.unsure)

    @cached_property
    def by_dice(self) -> Order:
        """The best order that there is: by the Dice itself."""
        return Order.of(self.dice)


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure of a score, and how it is shown."""

    title: str
    better: Literal["high", "low"]
    read: Callable[[Rows, Floats], Floats]
    meaning: str
    needs: Literal["spread", "both", "rows"]
    """``"spread"``: scores and Dice that differ; ``"both"``: failures and others."""

    def missing(self, rows: Rows) -> str | None:
        """Say why the measure has no value for these rows; None where it has one."""
        n, failed = len(rows.dice), int(rows.failed.sum())
        if n == 0:
            return "there are no structures with a score and a Dice"
        if self.needs == "both" and failed in (0, n):
            which = "no structure has" if failed == 0 else "every structure has"
            return f"{which} a Dice below {rows.failure_dice:g}"
        if self.needs == "spread":
            if n < 2:
                return "there is only one structure"
            for name, values in (("score", rows.unsure), ("Dice", rows.dice)):
                if np.ptp(values) == 0:
                    return f"every structure has the same {name}"
        return None


def _pearson(rows: Rows, weights: Floats) -> Floats:
    return _correlation(rows.unsure, rows.dice, weights)


def _spearman(rows: Rows, weights: Floats) -> Floats:
    first, second = rows.by_uncertainty.ranks(weights), rows.by_dice.ranks(weights)
    return _correlation(first, second, weights)


def _correlation(x: Floats, y: Floats, weights: Floats) -> Floats:
    total = weights.sum(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        x = x - (weights * x).sum(1, keepdims=True) / total
        y = y - (weights * y).sum(1, keepdims=True) / total
        squares = (weights * x * x).sum(1) * (weights * y * y).sum(1)
        found = (weights * x * y).sum(1) / np.sqrt(squares)
    return np.where(squares > 0, np.clip(found, -1.0, 1.0), np.nan)


def _aurc(rows: Rows, weights: Floats) -> Floats:
    return ranking.aurc(rows.by_confidence.cells(rows.dice, weights))


def _e_aurc(rows: Rows, weights: Floats) -> Floats:
    best = ranking.aurc(rows.by_dice.cells(rows.dice, weights))
    return np.maximum(_aurc(rows, weights) - best, 0.0)


def _augrc(rows: Rows, weights: Floats) -> Floats:
    return ranking.augrc(rows.by_confidence.cells(rows.dice, weights))


def _auroc(rows: Rows, weights: Floats) -> Floats:
    return ranking.auroc(rows.by_uncertainty.cells(rows.failed, weights))


def _aupr(rows: Rows, weights: Floats) -> Floats:
    return ranking.average_precision(rows.by_uncertainty.cells(rows.failed, weights))


def _fpr95(rows: Rows, weights: Floats) -> Floats:
    cells = rows.by_uncertainty.cells(rows.failed, weights)
    return ranking.false_positive_rate(cells, RECALL)


def _failure_rate(rows: Rows, weights: Floats) -> Floats:
    found: Floats = (weights @ rows.failed) / weights.sum(1)
    return found


MEASURES: Mapping[str, Measure] = {
    "pearson": Measure(
        "Pearson r", "low", _pearson, "Correlation of uncertainty and Dice.", "spread"
    ),
    "spearman": Measure(
        "Spearman r", "low", _spearman, "Correlation of their ranks; ties share one.", "spread"
    ),
    "aurc": Measure(
        "AURC",
        "low",
        _aurc,
        "Mean risk of the k most confident structures, mean over k (Geifman and El-Yaniv, 2017).",
        "rows",
    ),
    "e_aurc": Measure(
        "E-AURC", "low", _e_aurc, "AURC less that of the order by Dice (Geifman, 2019).", "rows"
    ),
    "augrc": Measure(
        "AUGRC",
        "low",
        _augrc,
        "Risk that is let through undetected, mean over thresholds (Traub et al., 2024).",
        "rows",
    ),
    "auroc": Measure(
        "AUROC",
        "high",
        _auroc,
        "Chance that a failure is more uncertain than another structure.",
        "both",
    ),
    "aupr": Measure(
        "AUPR", "high", _aupr, "Average precision of the failures, the least sure first.", "both"
    ),
    "fpr95": Measure(
        "FPR95",
        "low",
        _fpr95,
        "Share of the others that are flagged where 95 % of the failures are.",
        "both",
    ),
    "failure_rate": Measure("Failures", "low", _failure_rate, "Share of failures.", "rows"),
}
"""The measures of a score by name."""
