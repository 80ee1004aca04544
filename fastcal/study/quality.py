"""Entropy of segments against their Dice, and which score finds poor segments and other data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastcal.calibration import ranking, values
from fastcal.quality import Line, QualityPredictor
from fastcal.quality.logit import logit
from fastcal.report.measured import (
    LEVEL,
    N_RESAMPLES,
    draws_of_cases,
    interval_of,
    mean_of_known,
)
from fastcal.scores import Draws, Estimate, ScoreTable, score_measures, unsure_end
from fastcal.scores.cells import Order
from fastcal.scores.estimates import mean_of_rows

if TYPE_CHECKING:
    from fastcal.core.arrays import Floats
    from fastcal.study.records import Streamed
    from fastcal.study.subsets import Subset

ENTROPY = "binary_entropy"
FAILURE_DICE = 0.7
"""A structure with a lower Dice is a failure."""
COVERAGE = 0.9
"""Share of Dice that the conformal intervals are to hold."""
RANDOM, ORACLE = "random order", "order by Dice"


@dataclass(frozen=True)
class EntropyFit:
    """The paper's line: logit of the Dice against the entropy of the segment."""

    loss: str
    model: str
    table: ScoreTable
    """Every case and structure, with scores and Dice."""
    predictor: QualityPredictor
    """The line with its bands, pooled over structures."""
    r: Estimate
    """Pearson's r of entropy and logit Dice."""

    @property
    def line(self) -> Line:
        """Slope, intercept, p-value and spread of the fit."""
        return self.predictor.line()


def score_table(streamed: Streamed, subset: Subset) -> ScoreTable:
    """Return the scores of an ensemble with the Dice, a row for each case and structure."""
    cases, structures = streamed.cases, streamed.structures
    return ScoreTable(
        tuple(case for case in cases for _ in structures),
        structures * len(cases),
        {name: streamed.score(subset, name).ravel() for name in streamed.score_names},
        streamed.dice(subset).ravel(),
    )


def entropy_fit(streamed: Streamed, subset: Subset, *, loss: str, model: str) -> EntropyFit | None:
    """Fit the line to every case and structure of a set; None where there is too little to fit.

    The interval of r draws cases, with all their structures.
    """
    table = score_table(streamed, subset)
    predictor = QualityPredictor("linear", scores=(ENTROPY,))
    try:
        predictor.fit(table)
    except ValueError:  # fewer structures than a line needs, or all of one entropy
        return None
    assert table.dice is not None
    r = score_measures(
        np.where(table.absent, np.nan, table.scores[ENTROPY]),
        logit(table.dice, predictor.clip),
        cases=table.cases,
        measures=["pearson"],
        n_resamples=N_RESAMPLES,
    )["pearson"]
    return EntropyFit(loss, model, table, predictor, r)


@dataclass(frozen=True, slots=True)
class Detector:
    """How well a score finds the structures that are segmented poorly."""

    loss: str
    score: str
    measures: Mapping[str, Estimate]
    """``aurc``, ``augrc`` and ``auroc``, by name."""


def failure_detection(table: ScoreTable, loss: str) -> tuple[Detector, ...]:
    """Measure every score that has a direction, beside a random order and that of the Dice."""
    assert table.dice is not None
    present = table.rows(~table.absent)
    assert present.dice is not None
    columns = {
        name: (values, unsure_end(name))
        for name, values in present.scores.items()
        if not np.isnan(values).all()
    }
    columns |= {RANDOM: (np.zeros(len(present)), "high"), ORACLE: (present.dice, "low")}
    return tuple(
        Detector(
            loss,
            name,
            score_measures(
                values,
                present.dice,
                unsure=unsure,
                cases=present.cases,
                failure_dice=FAILURE_DICE,
                measures=MEASURED,
                n_resamples=N_RESAMPLES,
            ),
        )
        for name, (values, unsure) in columns.items()
        if unsure is not None
    )


MEASURED = ("aurc", "augrc", "auroc", "failure_rate")


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many Dice the conformal intervals of the paper's line hold."""

    loss: str
    level: float
    """What they are to hold."""
    covered: Estimate
    """What they hold, of cases that neither fit nor calibration has seen."""
    width: float
    """Mean width in Dice."""
    reason: str = ""
    """Why there is no coverage."""


def coverage(table: ScoreTable, loss: str, *, folds: int = 2) -> Coverage:
    """Fit and calibrate on all folds but one, and count on that one, in turn.

    Args:
        table: Scores with Dice.
        loss: Of the models.
        folds: Cases are dealt to so many folds, in the order of their names.
    """
    assert table.dice is not None
    names = sorted(table.cases_present)
    fold_of = {name: number % folds for number, name in enumerate(names)}
    fold = np.array([fold_of[name] for name in table.cases])
    inside = np.full(len(table), np.nan)
    width = np.full(len(table), np.nan)
    for number in range(folds):
        rest, held = table.rows(fold != number), table.rows(fold == number)
        predictor = QualityPredictor(
            "linear", scores=(ENTROPY,), interval="split", level=COVERAGE, mondrian=False
        )
        try:
            bounds = predictor.fit(rest).predict_interval(held)
        except ValueError as error:
            return Coverage(loss, COVERAGE, Estimate(np.nan, np.nan, np.nan, 0), np.nan, str(error))
        assert held.dice is not None
        known = ~(held.absent | np.isnan(held.dice))
        within = (bounds[:, 0] <= held.dice) & (held.dice <= bounds[:, 1])
        inside[fold == number] = np.where(known, within, np.nan)
        width[fold == number] = np.where(known, bounds[:, 1] - bounds[:, 0], np.nan)
    found = mean_of_rows(inside, table.cases, Draws(LEVEL, N_RESAMPLES))
    return Coverage(loss, COVERAGE, found, values.mean_of_defined(width.tolist()))


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
    return mean_of_known(streamed.score(subset, name))


def detection(
    within: Streamed,
    beyond: Streamed,
    subset: Subset,
    score: str,
    *,
    labels: tuple[str, str, str],
) -> Outside:
    """Measure how well a score detects a set of cases.

    Args:
        within: The held-out cases.
        beyond: The cases to detect.
        subset: The ensemble, which both were streamed through.
        score: Name of the score of segments.
        labels: Loss, model and name of the set.
    """
    sign = -1.0 if unsure_end(score) == "low" else 1.0
    first, second = (case_scores(one, subset, score) for one in (within, beyond))
    ranked = [np.where(np.isnan(one), np.inf, sign * one) for one in (first, second)]
    paired = within.cases == beyond.cases

    # Cases and their shifted twins are drawn together, other data on their own.
    counts = draws_of_cases(len(first))
    others = counts if paired else draws_of_cases(len(second), seed=1)
    order = Order.of(np.concatenate(ranked))
    from_outside = np.repeat([0.0, 1.0], [len(first), len(second)])
    value = float(ranking.auroc(order.cells(from_outside, np.ones((1, len(from_outside)))))[0])
    weights = np.concatenate([counts, others], axis=1)
    distribution = ranking.auroc(order.cells(from_outside, weights))
    loss, model, name = labels
    dice = [values.mean_of_defined(one.dice(subset).ravel()) for one in (within, beyond)]
    return Outside(
        loss,
        model,
        name,
        score,
        Estimate(value, *interval_of(distribution), len(first) + len(second)),
        values.mean_of_defined(first),
        values.mean_of_defined(second),
        dice[0],
        dice[1],
        paired,
    )


DETECTORS = ("binary_entropy", "mutual_information", "pairwise_dice")
"""Scores that are tried as detectors: the paper's first."""
