"""The file curves.png: a member's loss, validation scores and learning rate by epoch."""

from __future__ import annotations

import sys
from pathlib import Path

from fastcal.core.atomic import atomic_path
from fastcal.models.run import CURVES
from fastcal.train.log import read_log


def draw_curves(folder: Path) -> Path | None:
    """Write a member's curves.png from its log; return None, with a message, without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print(
            f"{folder.name}: {CURVES} needs matplotlib (pip install 'fastcal[report]')",
            file=sys.stderr,
        )
        return None
    rows = read_log(folder)
    epochs = [row.epoch for row in rows]
    figure = Figure(figsize=(7, 9), layout="constrained")
    panels = figure.subplots(5, 1, sharex=True)
    series = (
        ("loss", "training loss"),
        ("val_dice", "validation Dice"),
        ("val_nll", "validation NLL"),
        ("val_ece", "validation ECE"),
        ("learning_rate", "learning rate"),
    )
    for panel, (key, title) in zip(panels, series, strict=True):
        panel.plot(epochs, [getattr(row, key) for row in rows], linewidth=1.2)
        panel.set_ylabel(title)
        panel.grid(alpha=0.3)
    kept = [row for row in rows if row.best][-1:]
    panels[1].plot([row.epoch for row in kept], [row.val_dice for row in kept], "o", markersize=4)
    panels[-1].set_xlabel("epoch")
    panels[0].set_title(folder.name)
    with atomic_path(folder / CURVES) as temporary:
        figure.savefig(temporary, dpi=100)
    return folder / CURVES
