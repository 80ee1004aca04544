"""curves.png: a member's loss, validation scores and learning rate against epochs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fastcal.atomic import atomic_path
from fastcal.models.run import CURVES, LOG


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a member's log.jsonl, one dictionary an epoch."""
    return [json.loads(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]


def draw_curves(folder: Path) -> Path | None:
    """Write a member's curves.png from its log; None, and a message, without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print(
            f"{folder.name}: no {CURVES}, which needs matplotlib (pip install 'fastcal[report]')",
            file=sys.stderr,
        )
        return None
    rows = read_log(folder)
    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(7, 8), layout="constrained")
    panels = figure.subplots(4, 1, sharex=True)
    series = (
        ("loss", "training loss"),
        ("val_dice", "validation Dice"),
        ("val_nll", "validation NLL"),
        ("learning_rate", "learning rate"),
    )
    for panel, (key, title) in zip(panels, series, strict=True):
        values = [float("nan") if row[key] is None else row[key] for row in rows]
        panel.plot(epochs, values, linewidth=1.2)
        panel.set_ylabel(title)
        panel.grid(alpha=0.3)
    kept = [row for row in rows if row["best"]]
    if kept and kept[-1]["val_dice"] is not None:
        panels[1].plot(kept[-1]["epoch"], kept[-1]["val_dice"], "o", markersize=4)
    panels[-1].set_xlabel("epoch")
    panels[0].set_title(folder.name)
    with atomic_path(folder / CURVES) as temporary:
        figure.savefig(temporary, dpi=100)
    return folder / CURVES
