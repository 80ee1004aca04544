"""Writes the table of docs/metrics.md from the rows of `fastcal.calibration.METRICS`.

.venv/bin/python docs/write_metrics.py
"""

from __future__ import annotations

import re
from pathlib import Path

from fastcal.calibration import METRICS

PAGE = Path(__file__).with_name("metrics.md")
BLOCK = re.compile(r"(?<=<!-- metrics -->\n).*?(?=<!-- end of metrics -->)", re.DOTALL)
NEEDS = {
    "counts": "",
    "bins": "bins",
    "classwise bins": "classwise bins",
    "fine cells": "`fine_bins`",
    "top-label fine cells": "`fine_bins`",
    "classwise fine cells": "`fine_bins`, classwise",
}
BETTER = {"lower": "lower", "higher": "higher", "zero": "near 0"}


def table() -> str:
    """Return the Markdown table of all metrics."""
    lines = ["| metric | says | of | unit | better | needs |", "|---|---|---|---|---|---|"]
    for name, metric in METRICS.items():
        of = "each class" if metric.per_class else "all"
        cells = [f"`{name}`", metric.sentence, of, metric.unit or "-"]
        cells += [BETTER[metric.better], NEEDS[metric.words] or "-"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the table into the page."""
    PAGE.write_text(BLOCK.sub(table(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
