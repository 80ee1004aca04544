"""Small pieces of SVG: elements, scales and axes. Colours come from the style sheet of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

SERIES = 6
"""Colours of models in the style sheet; they repeat."""


def element(tag: str, *children: str, **attributes: object) -> str:
    """Return an element; underscores in names become hyphens, a trailing one is dropped.

    Example:
        >>> element("line", x1=0, y2=1.25, class_="axis")
        '<line x1="0" y2="1.25" class="axis"/>'
    """
    given = "".join(
        f" {name.rstrip('_').replace('_', '-')}={quoteattr(_text(value))}"
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{given}>{''.join(children)}</{tag}>" if children else f"<{tag}{given}/>"


def text(content: str, x: float, y: float, class_: str = "label", anchor: str = "start") -> str:
    """Return a line of text."""
    return element("text", escape(content), x=x, y=y, class_=class_, text_anchor=anchor)


def figure(
    width: float, height: float, *parts: str, finding: str, interactive: bool = False
) -> str:
    """Return a figure that says what it shows to those who do not see it.

    Args:
        width: Of its coordinates, which are CSS pixels at most.
        height: Likewise.
        parts: Elements.
        finding: What it shows, as a sentence.
        interactive: It holds links, which are then reachable one by one.
    """
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {_text(width)} {_text(height)}",
        role="group" if interactive else "img",
        aria_label=finding,
        style=f"max-width:{_text(width)}px",
    )


def series(number: int) -> str:
    """Return the class that gives an element the colour of a model.

    Args:
        number: Place of the model's group.
    """
    return f"s{number % SERIES}"


@dataclass(frozen=True, slots=True)
class Scale:
    """Numbers from `low` to `high`, drawn from `start` to `stop`."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """Return where a number is drawn; those beyond the ends are drawn there."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.stop - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        """Return round numbers within the scale."""
        return round_numbers(self.low, self.high, most)


def round_numbers(low: float, high: float, most: int = 5) -> list[float]:
    """Return at most ``most`` round numbers from ``low`` to ``high``.

    Example:
        >>> round_numbers(0.0, 1.0), round_numbers(0.013, 0.047, 4)
        ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.02, 0.03, 0.04])
    """
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * one for one in (1, 2, 2.5, 5, 10) if power * one >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * k, 12) for k in range(first, last + 1)]


def padded(values: Sequence[float], share: float = 0.08) -> tuple[float, float]:
    """Return the ends of a scale that holds numbers with a margin; NaN are left out.

    Example:
        >>> padded([1.0, 2.0, math.nan], share=0.5)
        (0.5, 2.5)
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    margin = share * (high - low) or max(abs(low), 1e-6) * share
    return low - margin, high + margin


def short(value: float) -> str:
    """Return a number of an axis.

    Example:
        >>> short(0.30000000000000004), short(-0.0), short(2.0)
        ('0.3', '0', '2')
    """
    return f"{value + 0.0:.6g}" if value else "0"


def horizontal_axis(
    scale: Scale,
    y: float,
    title: str,
    *,
    ticks: Sequence[float] | None = None,
    percent: bool = False,
) -> str:
    """Return an axis along the bottom, with its title below."""
    found = [element("line", x1=scale.start, x2=scale.stop, y1=y, y2=y, class_="axis")]
    for tick in scale.ticks() if ticks is None else ticks:
        x = scale(tick)
        found.append(element("line", x1=x, x2=x, y1=y, y2=y + 4, class_="axis"))
        shown = short(100 * tick) if percent else short(tick)
        found.append(text(shown, x, y + 17, "tick", "middle"))
    if title:
        found.append(text(title, (scale.start + scale.stop) / 2, y + 34, "label", "middle"))
    return "".join(found)


def vertical_axis(
    scale: Scale,
    x: float,
    title: str,
    right: float,
    *,
    ticks: Sequence[float] | None = None,
    percent: bool = False,
) -> str:
    """Return an axis along the left with faint lines to ``right``, its title above it."""
    found = []
    for tick in scale.ticks() if ticks is None else ticks:
        y = scale(tick)
        found.append(element("line", x1=x, x2=right, y1=y, y2=y, class_="grid"))
        found.append(
            text(short(100 * tick) if percent else short(tick), x - 6, y + 4, "tick", "end")
        )
    found.append(text(title, max(x - 34, 0), min(scale.start, scale.stop) - 10, "label"))
    return "".join(found)


def path(points: Sequence[tuple[float, float]], class_: str) -> str:
    """Return a line through points."""
    if not points:
        return ""
    steps = "L".join(f"{_text(x)} {_text(y)}" for x, y in points)
    return element("path", d=f"M{steps}", class_=class_)


def _text(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
