"""The risk-coverage curve, over the coverage where it lives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastcal.calibration.curves import RiskCoverage
from fastcal.report.charts import svg

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 420, 310, 56, 28, 46
_ALIVE = 0.02
"""The axis begins where the risk exceeds this share of its value at full coverage: below lie the
voxels, often 95 % of them, about which no model is ever wrong."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The curve of a model."""

    name: str
    found: RiskCoverage
    series: int


def coverage_chart(curves: Sequence[Curve], *, finding: str) -> str:
    """Draw the error rate of the voxels kept against the share that is kept.

    Args:
        curves: One per model, none empty.
        finding: What the figure shows, as a sentence.
    """
    start = min(first_coverage(one.found) for one in curves)
    top = max(float(one.found.risk[-1]) for one in curves) * 1.1 or 1e-6
    x = svg.Scale(start, 1.0, _LEFT, _WIDTH - 12)
    y = svg.Scale(0.0, top, _HEIGHT - _BOTTOM, _TOP)
    parts = [
        svg.vertical_axis(y, _LEFT, "Wrong among the voxels kept, %", _WIDTH - 12, percent=True),
        svg.horizontal_axis(
            x, _HEIGHT - _BOTTOM, "Coverage: most confident voxels kept, %", percent=True
        ),
    ]
    for one in curves:
        colour = svg.series(one.series)
        for values, class_ in ((one.found.optimal, "ideal"), (one.found.risk, "curve")):
            points = [
                (x(float(c)), y(float(v))) for c, v in _thinned(one.found.coverage, values, start)
            ]
            parts.append(svg.path(points, f"{class_} {colour}"))
    return svg.figure(_WIDTH, _HEIGHT, *parts, finding=finding)


def first_coverage(curve: RiskCoverage) -> float:
    """Return where the axis of a curve begins, a round number at most 0.99.

    Example:
        >>> coverage, risk = np.array([0.5, 0.96, 1.0]), np.array([0.0, 0.0001, 0.02])
        >>> first_coverage(RiskCoverage(coverage, risk, coverage, risk))
        0.95
    """
    alive = curve.risk > _ALIVE * curve.risk[-1]
    first = int(np.argmax(alive)) if alive.any() else len(alive) - 1
    begin = float(curve.coverage[max(first - 1, 0)])
    grid = 0.1 if begin < 0.9 else 0.01
    return min(float(round(np.floor(begin / grid + 1e-9) * grid, 4)), 0.99) if first else 0.0


def _thinned(coverage: np.ndarray, values: np.ndarray, start: float) -> list[tuple[float, float]]:
    """Points of a curve from ``start`` on, at most 200 of them."""
    places = np.linspace(start, 1.0, 200)
    drawn = np.interp(places, coverage, values)
    return list(zip(places.tolist(), drawn.tolist(), strict=True))
