"""Draws docs/images/*.png: one picture of each plot, from a made-up cohort.

    .venv/bin/python docs/draw_images.py

Forty cases of three classes, whose networks are overconfident by different amounts.
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure

from fastcal import CalibrationStatistics
from fastcal.report import plots, style

IMAGES = Path(__file__).parent / "images"
CLASSES = ("background", "ventricle", "wall")


def cohort(seed: int = 4, n_cases: int = 40, n_voxels: int = 8_000) -> CalibrationStatistics:
    """Targets drawn from known probabilities, and predictions that are sharper than these."""
    generator = torch.Generator().manual_seed(seed)
    offset = torch.tensor([2.0, 0.0, 0.0])[:, None]
    stats = CalibrationStatistics(len(CLASSES), n_bins=10)
    for case in range(n_cases):
        logits = offset + 1.6 * torch.randn(len(CLASSES), n_voxels, generator=generator)
        target = torch.multinomial(logits.softmax(0).T, 1, generator=generator).T
        sharpness = 0.8 + 1.8 * torch.rand((), generator=generator)
        shift = 0.8 * torch.randn(len(CLASSES), 1, generator=generator)
        probs = (sharpness * logits + shift).softmax(0)
        stats.update(probs[None], target, case_id=[f"case {case:02d}"])
    return stats


def save(figure: Figure, name: str) -> None:
    """Write the figure as a PNG."""
    (IMAGES / name).write_bytes(style.png_bytes(figure, dpi=110))


def main() -> None:
    """Draw every picture."""
    stats = cohort()
    with style.house_style():
        figure = style.new_figure(4.6, 5.6)
        plots.reliability_diagram(
            stats, ax=figure.add_subplot(), min_count=100, interval=0.95, title="Top label"
        )
        save(figure, "reliability_diagram.png")
        figure = style.new_figure(10.2, 4.4)
        plots.classwise_grid(stats, class_names=CLASSES, min_count=100, figure=figure)
        save(figure, "classwise_grid.png")
        figure = style.new_figure(5.6, 4.6)
        plots.dataset_reliability(
            stats, ax=figure.add_subplot(), min_count=20, class_index=1, title="Ventricle"
        )
        save(figure, "dataset_reliability.png")


if __name__ == "__main__":
    main()
