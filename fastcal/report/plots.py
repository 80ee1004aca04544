"""Figures of numbers: reliability of all kinds, risk and coverage, members against ensembles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastcal.calibration.metrics import METRICS
from fastcal.report import style
from fastcal.report.dataset_reliability import dataset_reliability
from fastcal.report.reliability import classwise_grid, reliability_diagram, reliability_figure
from fastcal.report.risk_coverage import risk_coverage, risk_coverage_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastcal.report.scores import ComparedLoss

__all__ = [
    "classwise_grid",
    "dataset_reliability",
    "reliability_diagram",
    "reliability_figure",
    "risk_coverage",
    "risk_coverage_figure",
    "scores_figure",
]

_BETTER = {
    "higher": "higher is better",
    "lower": "lower is better",
    "zero": "nearer to 0 is better",
}


def scores_figure(losses: Sequence[ComparedLoss]) -> Figure:
    """Draw each loss's members as dots, their range as a bar and the ensemble as a diamond.

    Args:
        losses: They share the metrics of `fastcal.calibration.METRICS` that have a panel.
    """
    shown = {name: metric for name, metric in METRICS.items() if metric.figure}
    with style.house_style():
        figure = style.new_figure(11.5, 1.25 + 0.75 * len(losses))
        axes = figure.subplots(1, len(shown), sharey=True)
        for ax, (name, metric) in zip(axes, shown.items(), strict=True):
            scale = 100.0 if metric.unit == "%" else 1.0
            for row, loss in enumerate(losses):
                colour = style.LOSS_COLOURS.get(loss.loss, style.GREEN)
                members = scale * np.array([m.scores[name] for m in loss.members])
                ensemble = scale * loss.ensemble.scores[name]
                ax.hlines(
                    row, np.nanmin(members), np.nanmax(members), color=colour, lw=5, alpha=0.2
                )
                ax.plot(members, np.full(len(members), row), "o", color=colour, alpha=0.75, ms=6)
                ax.plot(ensemble, row, "D", color=colour, mec=style.INK, mew=1.1, ms=9, zorder=3)
            unit = f" ({metric.unit})" if metric.unit else ""
            ax.set_title(metric.title + unit, loc="left")
            ax.set_xlabel(_BETTER[metric.better], color=style.MUTED, fontsize=10)
            ax.margins(x=0.12)
            ax.set_ylim(len(losses) - 0.5, -0.5)
            ax.grid(axis="x", color=style.FAINT, lw=0.8)
            ax.spines["left"].set_visible(False)
            ax.tick_params(axis="y", length=0)
            ax.locator_params(axis="x", nbins=4)
        axes[0].set_yticks(
            range(len(losses)), [style.LOSS_NAMES.get(loss.loss, loss.loss) for loss in losses]
        )
    return figure
