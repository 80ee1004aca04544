"""Regressions of logit Dice on scores: the paper's line, ridge and a forest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy import stats

from fastcal.core.arrays import Floats

ALPHAS = np.logspace(-3, 3, 13)
"""Penalties that ridge chooses from by leave-one-out errors, of standardised scores."""

LEAF = 3
"""Fewest structures in a leaf of the forest: one alone would be repeated, not predicted."""


class Regression(Protocol):
    """What a fit gives."""

    def predict(self, scores: Floats) -> Floats:
        """Return logit Dice ``[n]`` of scores ``[n, k]``."""
        ...


@dataclass(frozen=True, slots=True)
class Line:
    """Least squares of logit Dice on one score, as in the paper.

    Source: Mehrtash et al., IEEE TMI 39(12), 2020, section on segment uncertainty; the bands are
    those of the normal linear model with Student's t.
    """

    slope: float
    intercept: float
    r: float
    """Pearson's correlation of the score and logit Dice."""
    p_value: float
    """Of a slope of 0."""
    n: int
    mean: float
    """Of the score."""
    squares: float
    """Sum of the squared deviations of the score from its mean."""
    spread: float
    """Standard deviation of logit Dice about the line, with ``n - 2`` degrees of freedom."""

    @classmethod
    def fit(cls, scores: Floats, target: Floats) -> Line:
        """Fit to scores ``[n, 1]`` and logit Dice ``[n]``."""
        score = scores[:, 0]
        found = stats.linregress(score, target)
        rest = target - found.intercept - found.slope * score
        n = len(score)
        return cls(
            float(found.slope),
            float(found.intercept),
            float(found.rvalue),
            float(found.pvalue),
            n,
            float(score.mean()),
            float(((score - score.mean()) ** 2).sum()),
            float(np.sqrt((rest**2).sum() / (n - 2))),
        )

    def predict(self, scores: Floats) -> Floats:
        """Return logit Dice ``[n]`` of scores ``[n, 1]``."""
        found: Floats = self.intercept + self.slope * scores[:, 0]
        return found

    def half_band(self, scores: Floats, level: float, *, of_mean: bool = False) -> Floats:
        """Return half the width of the band ``[n]``, of one more structure or of the mean."""
        lever = 1 / self.n + (scores[:, 0] - self.mean) ** 2 / self.squares
        t = stats.t.ppf((1 + level) / 2, self.n - 2)
        found: Floats = t * self.spread * np.sqrt(lever + (0.0 if of_mean else 1.0))
        return found


def _ridge(scores: Floats, target: Floats, n_trees: int, seed: int) -> Regression:
    del n_trees, seed
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found: Any = make_pipeline(StandardScaler(), RidgeCV(alphas=ALPHAS)).fit(scores, target)
    return found  # type: ignore[no-any-return]


def _forest(scores: Floats, target: Floats, n_trees: int, seed: int) -> Regression:
    from sklearn.ensemble import RandomForestRegressor

    trees = RandomForestRegressor(n_trees, min_samples_leaf=LEAF, random_state=seed)
    found: Any = trees.fit(scores, target)
    return found  # type: ignore[no-any-return]


def _line(scores: Floats, target: Floats, n_trees: int, seed: int) -> Regression:
    del n_trees, seed
    return Line.fit(scores, target)


@dataclass(frozen=True, slots=True)
class Model:
    """A kind of regression."""

    fit: Callable[[Floats, Floats, int, int], Regression]
    """From scores ``[n, k]``, logit Dice ``[n]``, the number of trees and a seed."""
    fewest: Callable[[int], int]
    """Structures that a fit needs, from the number of scores."""


MODELS: Mapping[str, Model] = {
    "linear": Model(_line, lambda _: 3),
    "ridge": Model(_ridge, lambda k: k + 2),
    "forest": Model(_forest, lambda _: 2 * LEAF),
}
"""Regressions by name."""
