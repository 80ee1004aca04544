"""A reliability diagram over a strip of what each bin adds to the calibration error.

The strip is the picture of the number: its bars, added without their signs, are the error. The
diagram alone misleads, because a bin of nearly all voxels and a bin of a hundred look alike there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastcal.calibration.curves import Reliability
from fastcal.report.charts import svg
from fastcal.report.gaps import Gaps

_LEFT, _SIDE, _TOP, _STRIP = 46, 262, 26, 92
_GAP = 44
_WIDTH = _LEFT + _SIDE + 12
_HEIGHT = _TOP + _SIDE + _GAP + _STRIP + 40


def reliability_chart(
    gaps: Gaps,
    *,
    members: Sequence[Reliability] = (),
    series: int = 0,
    min_count: int = 0,
    largest: float,
    finding: str,
    of_class: bool = False,
) -> str:
    """Draw accuracy against confidence, and below it the signed part of each bin.

    Args:
        gaps: The bins of the model.
        members: Its members' curves, drawn thin behind it.
        series: Place of its group, which gives the colour.
        min_count: Bins of this many voxels or fewer are marked as such, for the page to hide.
        largest: Largest part of a bin of all figures beside this one, which share a scale.
        finding: What the figure shows, as a sentence.
        of_class: The diagram is that of one class: its probability and its frequency.
    """
    x = svg.Scale(0.0, 1.0, _LEFT, _LEFT + _SIDE)
    y = svg.Scale(0.0, 1.0, _TOP + _SIDE, _TOP)
    fifths = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    parts = [
        svg.vertical_axis(
            y, _LEFT, "Frequency" if of_class else "Accuracy", _LEFT + _SIDE, ticks=fifths
        ),
        svg.element("line", x1=x(0), y1=y(0), x2=x(1), y2=y(1), class_="diagonal"),
    ]
    colour = svg.series(series)
    parts += [_curve(member, x, y, min_count, f"member {colour}") for member in members]
    parts.append(_curve(gaps.curve, x, y, min_count, f"curve {colour}"))
    parts += _dots(gaps.curve, x, y, min_count, colour)
    parts.append(svg.horizontal_axis(x, _TOP + _SIDE, "", ticks=fifths))
    parts += _strip(gaps, x, min_count, largest)
    bottom = _TOP + _SIDE + _GAP + _STRIP
    parts.append(
        svg.text(
            "Probability" if of_class else "Confidence", _LEFT + _SIDE / 2, bottom + 34, "label",
            "middle",
        )
    )  # fmt: skip
    return svg.figure(_WIDTH, _HEIGHT, *parts, finding=finding)


def _curve(curve: Reliability, x: svg.Scale, y: svg.Scale, min_count: int, class_: str) -> str:
    """Return a line through all bins, and one through those that hold more than a few voxels."""
    found = []
    for least, kind in ((0, "all-bins"), (min_count, "full-bins")):
        held = curve.count > least
        points = [
            (x(float(confidence)), y(float(accuracy)))
            for confidence, accuracy in zip(
                curve.mean_confidence[held], curve.accuracy[held], strict=True
            )
        ]
        found.append(svg.path(points, f"{class_} {kind}"))
    return "".join(found)


def _dots(curve: Reliability, x: svg.Scale, y: svg.Scale, min_count: int, colour: str) -> list[str]:
    found = []
    for place in np.flatnonzero(curve.count > 0):
        few = " few" if curve.count[place] <= min_count else ""
        confidence, accuracy = (float(c[place]) for c in (curve.mean_confidence, curve.accuracy))
        label = (
            f"{curve.edges[place]:.2f} to {curve.edges[place + 1]:.2f}: {curve.count[place]:,} "
            f"voxels, confidence {confidence:.3f}, accuracy {accuracy:.3f}"
        )
        found.append(
            svg.element(
                "circle",
                svg.element("title", label),
                cx=x(confidence), cy=y(accuracy), r=4, class_=f"dot {colour}{few}",
            )
        )  # fmt: skip
    return found


def _strip(gaps: Gaps, x: svg.Scale, min_count: int, largest: float) -> list[str]:
    top = _TOP + _SIDE + _GAP
    limit = max(largest, 1e-6) * 1.45  # room for the number beyond the longest bar
    y = svg.Scale(-limit, limit, top + _STRIP, top)
    ticks = [tick for tick in svg.round_numbers(-limit, limit, 4) if abs(tick) <= limit]
    parts = [
        svg.vertical_axis(
            y, _LEFT, "Points of the error", _LEFT + _SIDE, ticks=ticks, percent=True
        ),
        svg.element("line", x1=_LEFT, x2=_LEFT + _SIDE, y1=y(0), y2=y(0), class_="axis"),
        svg.text("overconfident", _LEFT + 4, top + 11, "tick"),
        svg.text("underconfident", _LEFT + 4, top + _STRIP - 4, "tick"),
    ]
    main = gaps.main
    for place, part in enumerate(gaps.parts):
        if not gaps.curve.count[place]:
            continue
        left, right = (x(float(edge)) for edge in gaps.curve.edges[place : place + 2])
        high, low = sorted((y(float(part)), y(0.0)))
        few = " few-bar" if gaps.curve.count[place] <= min_count else ""
        parts.append(
            svg.element(
                "rect",
                svg.element("title", f"{gaps.range(place)}: {100 * part:+.3f} points"),
                x=left + 1, width=max(right - left - 2, 1.0), y=high, height=max(low - high, 0.6),
                class_=f"{'over' if part > 0 else 'under'}{few}",
            )
        )  # fmt: skip
        if gaps.low[place] == gaps.low[place]:
            middle = (left + right) / 2
            ends = (y(float(gaps.low[place])), y(float(gaps.high[place])))
            parts.append(
                svg.element("line", x1=middle, x2=middle, y1=ends[0], y2=ends[1], class_="range")
            )
        if place == main:
            end = y(float(part))
            parts.append(
                svg.text(
                    f"{100 * part:+.2f}".replace("-", "−"), min(right, _LEFT + _SIDE),
                    end - 6 if part > 0 else end + 14, "value", "end",
                )
            )  # fmt: skip
    ends = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    parts.append(svg.horizontal_axis(x, top + _STRIP, "", ticks=ends))
    return parts
