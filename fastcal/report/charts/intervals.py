"""Estimates with their intervals, a line per model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastcal.calibration.metrics import METRICS
from fastcal.report.charts import svg

_WIDTH, _ROW, _LEFT, _RIGHT = 440, 38, 6, 10


@dataclass(frozen=True, slots=True)
class Line:
    """An estimate of a model."""

    name: str
    estimate: float
    low: float
    high: float
    series: int
    """Place of its group, which gives the colour."""
    hollow: bool = False
    """A single model beside its ensemble."""


def intervals_chart(measure: str, lines: Sequence[Line], *, finding: str) -> str:
    """Draw a measure of every model.

    Args:
        measure: A name of `METRICS`.
        lines: The models.
        finding: What the figure shows, as a sentence.
    """
    metric = METRICS[measure]
    low, high = svg.padded([v for one in lines for v in (one.low, one.high, one.estimate)])
    if low < 0 <= min(one.estimate for one in lines):
        low = 0.0
    scale = svg.Scale(low, high, _LEFT, _WIDTH - _RIGHT)
    parts = []
    bottom = 8.0 + _ROW * len(lines)
    for tick in scale.ticks(4):
        x = scale(tick)
        parts.append(svg.element("line", x1=x, x2=x, y1=8, y2=bottom, class_="grid"))
    for place, one in enumerate(lines):
        y = 8.0 + _ROW * place
        colour = svg.series(one.series)
        parts.append(svg.text(one.name, _LEFT, y + 14, "label strong-halo"))
        parts.append(svg.text(metric.text(one.estimate), _WIDTH - _RIGHT, y + 14, "value", "end"))
        if one.low == one.low:
            ends = (scale(one.low), scale(one.high))
            parts.append(
                svg.element("line", x1=ends[0], x2=ends[1], y1=y + 27, y2=y + 27,
                            class_=f"whisker {colour}")
            )  # fmt: skip
        if one.estimate == one.estimate:
            parts.append(
                svg.element("circle", cx=scale(one.estimate), cy=y + 27, r=5,
                            class_=f"{'hollow' if one.hollow else 'dot'} {colour}")
            )  # fmt: skip
    percent = metric.unit == "%"
    parts.append(svg.horizontal_axis(scale, bottom, "", ticks=scale.ticks(4), percent=percent))
    return svg.figure(_WIDTH, bottom + 24, *parts, finding=finding)
