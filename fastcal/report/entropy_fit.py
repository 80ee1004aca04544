"""How entropy and overlap go together over segments, with an interval over cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastcal.core.arrays import Floats
from fastcal.report.measured import draws_of_cases, interval_of

CLIP = 1e-3
"""Dice nearer to 0 or 1 are taken for that, since their logit has no bound."""


@dataclass(frozen=True, slots=True)
class Correlation:
    """Pearson's r of segment entropy and logit Dice."""

    r: float
    low: float
    high: float
    n: int
    """Segments."""


def correlation(entropy: Floats, dice: Floats) -> Correlation | None:
    """Return how entropy and logit Dice correlate; None with fewer than three segments.

    Args:
        entropy: ``[cases, K]`` in nats, NaN left out.
        dice: ``[cases, K]``, NaN left out.

    Returns:
        r over all segments, with the 95 % interval of a bootstrap over cases.

    Reference: Mehrtash et al., IEEE TMI 39(12):3868-3878, 2020.

    Example:
        >>> found = correlation(np.array([[0.1], [0.2], [0.3]]), np.array([[0.9], [0.8], [0.6]]))
        >>> round(found.r, 2), found.n
        (-0.99, 3)
    """
    known = ~(np.isnan(entropy) | np.isnan(dice))
    if known.sum() < 3:
        return None
    clipped = np.clip(dice, CLIP, 1 - CLIP)
    x, y = entropy[known], np.log(clipped / (1 - clipped))[known]
    x, y = x - x.mean(), y - y.mean()
    case = np.nonzero(known)[0]
    every = np.ones((1, len(entropy)))
    r = float(_weighted(every[:, case], x, y)[0])
    low = high = np.nan
    if len(entropy) > 1:
        low, high = interval_of(_weighted(draws_of_cases(len(entropy))[:, case], x, y))
    return Correlation(r, float(low), float(high), int(known.sum()))


def _weighted(weights: Floats, x: Floats, y: Floats) -> Floats:
    total = weights.sum(1)
    mean_x, mean_y = ((weights @ one) / total for one in (x, y))
    covariance = (weights @ (x * y)) / total - mean_x * mean_y
    spread = [(weights @ (one * one)) / total - mean**2 for one, mean in ((x, mean_x), (y, mean_y))]
    square = np.maximum(spread[0], 0) * np.maximum(spread[1], 0)
    found: Floats = np.divide(
        covariance, np.sqrt(square), out=np.full(len(total), np.nan), where=square > 1e-24
    )
    return found
