"""Entropy of segments against their Dice, and which score finds poor segments and other data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastcal.study.scores import draws_of_cases, interval_of

if TYPE_CHECKING:
    from fastcal.core.arrays import Floats
    from fastcal.study.records import Streamed
    from fastcal.study.subsets import Subset

ENTROPY = "binary_entropy"
CLIP = 1e-3
"""A Dice of 0 or 1 has no logit; Dice are first moved into [0.001, 0.999]."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval over cases."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class EntropyFit:
    """The paper's line: logit of the Dice against the entropy of the segment, with its band."""

    loss: str
    model: str
    entropy: Floats
    """``[n]``, one for each case and structure that was predicted."""
    dice: Floats
    """``[n]``"""
    structure: tuple[str, ...]
    """``[n]``"""
    slope: float
    intercept: float
    r: Estimate
    p_value: float
    spread: float
    """Standard deviation of the residuals, with n - 2."""

    @property
    def logit(self) -> Floats:
        """The logits of the Dice, ``[n]``."""
        return logit(self.dice)

    def band(self, at: Floats, *, level: float = 0.95, new: bool = False) -> tuple[Floats, Floats]:
        """Return the bounds of the line, or of a new segment about it, at entropies ``[k]``."""
        from scipy import stats

        n = len(self.entropy)
        centre = self.entropy.mean()
        square = ((self.entropy - centre) ** 2).sum()
        share = 1.0 / n + (at - centre) ** 2 / square + (1.0 if new else 0.0)
        half = stats.t.ppf((1 + level) / 2, n - 2) * self.spread * np.sqrt(share)
        line = self.intercept + self.slope * at
        return line - half, line + half


def logit(dice: Floats) -> Floats:
    """Return ``ln(D / (1 - D))`` of Dice that are first moved into [0.001, 0.999]."""
    inside = np.clip(dice, CLIP, 1 - CLIP)
    found: Floats = np.log(inside / (1 - inside))
    return found


def entropy_fit(streamed: Streamed, subset: Subset, *, loss: str, model: str) -> EntropyFit:
    """Fit the line to every case and structure of a set.

    The interval of r draws cases, with all their structures.
    """
    from scipy import stats

    entropy, dice = streamed.score(subset, ENTROPY), streamed.dice(subset)
    known = ~(np.isnan(entropy) | np.isnan(dice))
    case = np.broadcast_to(np.arange(len(streamed.cases))[:, None], entropy.shape)[known]
    structure = np.broadcast_to(np.array(streamed.structures), entropy.shape)[known]
    x, y = entropy[known], logit(dice[known])
    value = _correlation(x, y, np.ones(len(x)))
    distribution = np.array(
        [_correlation(x, y, counts[case]) for counts in draws_of_cases(len(streamed.cases))]
    )
    slope = intercept = p_value = spread = float("nan")
    if len(x) > 2 and np.ptp(x) > 0:
        line = stats.linregress(x, y)
        slope, intercept, p_value = float(line.slope), float(line.intercept), float(line.pvalue)
        residuals = y - intercept - slope * x
        spread = float(np.sqrt((residuals**2).sum() / (len(x) - 2)))
    return EntropyFit(
        loss,
        model,
        x,
        dice[known],
        tuple(structure.tolist()),
        slope,
        intercept,
        Estimate(value, *interval_of(distribution)),
        p_value,
        spread,
    )


def _correlation(x: Floats, y: Floats, weights: Floats) -> float:
    total = weights.sum()
    if total == 0:
        return float("nan")
    x = x - (weights @ x) / total
    y = y - (weights @ y) / total
    squares = (weights @ (x * x)) * (weights @ (y * y))
    return float((weights @ (x * y)) / np.sqrt(squares)) if squares > 0 else float("nan")


@dataclass(frozen=True)
class Outside:
    """How well a score of cases tells cases of another distribution from held-out ones."""

    loss: str
    model: str
    name: str
    """The set of cases from outside, or the shift."""
    score: str
    auroc: Estimate
    within: float
    """Mean score of the held-out cases."""
    beyond: float
    """Mean score of the others."""
    dice_within: float
    dice_beyond: float
    paired: bool
    """Whether the others are the held-out cases after a shift: both are then drawn together."""


def case_scores(streamed: Streamed, subset: Subset, name: str) -> Floats:
    """Return the mean score over the structures that were predicted, ``[cases]``.

    A case without any predicted structure has NaN; detectors flag it before every other.
    """
    values = streamed.score(subset, name)
    known = ~np.isnan(values)
    counts = known.sum(1)
    sums = np.where(known, values, 0.0).sum(1)
    found: Floats = np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)
    return found


def detection(
    within: Streamed,
    beyond: Streamed,
    subset: Subset,
    score: str,
    *,
    labels: tuple[str, str, str],
    low_is_unsure: bool = False,
) -> Outside:
    """Measure how well a score detects a set of cases.

    Args:
        within: The held-out cases.
        beyond: The cases to detect.
        subset: The ensemble, which both were streamed through.
        score: Name of the score of segments.
        labels: Loss, model and name of the set.
        low_is_unsure: Low values speak for a case from outside.
    """
    sign = -1.0 if low_is_unsure else 1.0
    first, second = (case_scores(one, subset, score) for one in (within, beyond))
    ranked = [np.where(np.isnan(one), np.inf, sign * one) for one in (first, second)]
    paired = within.cases == beyond.cases

    # Cases and their shifted twins are drawn together, other data on their own.
    counts = draws_of_cases(len(first))
    others = counts if paired else draws_of_cases(len(second), seed=1)
    value = _auroc(*ranked, np.ones(len(first)), np.ones(len(second)))
    distribution = np.array([_auroc(*ranked, *pair) for pair in zip(counts, others, strict=True)])
    loss, model, name = labels
    dice = [float(np.nanmean(one.dice(subset))) for one in (within, beyond)]
    return Outside(
        loss,
        model,
        name,
        score,
        Estimate(value, *interval_of(distribution)),
        float(np.nanmean(first)),
        float(np.nanmean(second)),
        dice[0],
        dice[1],
        paired,
    )


def _auroc(within: Floats, beyond: Floats, counts: Floats, others: Floats) -> float:
    """Return the chance that a case from outside has the higher score, ties counting half."""
    if not counts.sum() or not others.sum():
        return float("nan")
    above = (beyond[:, None] > within[None, :]) + 0.5 * (beyond[:, None] == within[None, :])
    return float(others @ above @ counts / (others.sum() * counts.sum()))


UNSURE_IF_LOW: Sequence[str] = ("confidence", "pairwise_dice", "pooled_pairwise_dice")
DETECTORS = ("binary_entropy", "mutual_information", "pairwise_dice")
"""Scores that are tried as detectors: the paper's first."""
