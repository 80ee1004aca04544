"""How results show themselves at a prompt and in a notebook: a heading and a few rows."""

from __future__ import annotations

import html
from collections.abc import Sequence

Rows = Sequence[tuple[str, str]]
"""What something is called, and what it is."""


def as_text(heading: str, rows: Rows) -> str:
    """Return a heading with one indented line per row.

    Example:
        >>> print(as_text("Interval", [("estimate", "0.5"), ("cases", "12")]))
        Interval
          estimate  0.5
          cases     12
    """
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join([heading, *(f"  {name:<{width}}  {value}" for name, value in rows)])


def as_html(heading: str, rows: Rows) -> str:
    """Return a table of the rows, with everything escaped.

    Example:
        >>> as_html("A", [("b", "1 < 2")])
        '<table><caption>A</caption><tr><th scope="row">b</th><td>1 &lt; 2</td></tr></table>'
    """
    cells = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>'
        for name, value in rows
    )
    return f"<table><caption>{html.escape(heading)}</caption>{cells}</table>"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 case``, ``2 cases``."""
    return f"{number:,} {noun}" + "s" * (number != 1)
