"""Entropy against Dice, a dot per case; a dot leads to its case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fastcal.report.charts import svg

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 420, 330, 50, 28, 46


@dataclass(frozen=True, slots=True)
class Dot:
    """A case."""

    name: str
    link: str
    """Anchor of the case in the page; empty where it has no pictures."""
    entropy: float
    dice: float

    @property
    def known(self) -> bool:
        """Whether it has both numbers."""
        return not (math.isnan(self.entropy) or math.isnan(self.dice))


def scatter_chart(dots: Sequence[Dot], *, series: int, finding: str) -> str:
    """Draw the cases whose entropy and Dice are known.

    Args:
        dots: The cases.
        series: Place of the model's group, which gives the colour.
        finding: What the figure shows, as a sentence.
    """
    known = [dot for dot in dots if dot.known]
    x_low, x_high = svg.padded([dot.entropy for dot in known])
    y_low, y_high = svg.padded([dot.dice for dot in known])
    x = svg.Scale(max(0.0, x_low), x_high, _LEFT, _WIDTH - 12)
    y = svg.Scale(max(0.0, y_low), min(1.0, y_high), _HEIGHT - _BOTTOM, _TOP)
    parts = [
        svg.vertical_axis(y, _LEFT, "Dice", _WIDTH - 12),
        svg.horizontal_axis(x, _HEIGHT - _BOTTOM, "Entropy of the segments, nats"),
    ]
    for dot in known:
        label = f"{dot.name}: Dice {dot.dice:.3f}, entropy {dot.entropy:.3f}"
        drawn = svg.element(
            "circle",
            svg.element("title", label),
            cx=x(dot.entropy), cy=y(dot.dice), r=5.5, class_=f"dot {svg.series(series)}",
        )  # fmt: skip
        if dot.link:
            drawn = svg.element(
                "a", drawn, href=f"#{dot.link}", aria_label=label, class_="open-case"
            )
        parts.append(drawn)
    return svg.figure(_WIDTH, _HEIGHT, *parts, finding=finding, interactive=True)
