"""The risk-coverage curve: what is gained by keeping only the most confident voxels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcal.calibration.metrics import METRICS
from fastcal.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fastcal.calibration import CalibrationStatistics


def risk_coverage(
    stats: CalibrationStatistics,
    *,
    ax: Axes | None = None,
    title: str | None = None,
    label: str | None = None,
    colour: str = style.BLUE,
) -> Axes:
    """Draw the error rate of the most confident voxels against the share of voxels kept.

    The dashed line is what the same labels could reach if every wrong voxel had less confidence
    than every right one. The shaded area between the two is the excess (E-AURC). Call this again
    with the same axes and another colour to compare methods.

    Args:
        stats: What was counted, with ``fine_bins``.
        ax: Axes to draw into; a new pyplot figure when None.
        title: Title of the axes.
        label: Name in the legend, in front of the areas.
        colour: Of the curve.

    Returns:
        The axes.

    Raises:
        ValueError: `stats` kept no fine cells of the confidence, or counted nothing.

    Reference: Geifman and El-Yaniv, NeurIPS 2017; Geifman et al., ICLR 2019.

    Example:
        >>> import torch
        >>> from fastcal import CalibrationStatistics
        >>> stats = CalibrationStatistics(num_classes=2, fine_bins=1024)
        >>> stats.update(torch.tensor([[[0.2, 0.4], [0.8, 0.6]]]), torch.tensor([[1, 0]]))
        >>> risk_coverage(stats).get_xlabel()
        'Coverage'
    """
    curve = stats.risk_coverage()
    if curve.coverage.size == 0:
        raise ValueError("stats must have counted voxels to draw a curve, got none")
    area, excess = METRICS["aurc"], METRICS["e_aurc"]
    areas = f"{area.title} {area.text(stats.aurc())}, excess {excess.text(stats.e_aurc())}"
    with style.house_style():
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.figure(figsize=(4.8, 3.8), layout="constrained").add_subplot()
        # Below the first point the risk is that of the most confident cell.
        coverage = np.concatenate([[0.0], curve.coverage])
        risk, optimal = (np.concatenate([[line[0]], line]) for line in (curve.risk, curve.optimal))
        ax.fill_between(coverage, optimal, risk, color=colour, alpha=0.15, lw=0)
        ax.plot(coverage, optimal, color=colour, **_DASHED)
        ax.plot(
            coverage,
            risk,
            color=colour,
            lw=2,
            label=areas if label is None else f"{label}: {areas}",
        )
        top = max(ax.get_ylim()[1] if len(ax.lines) > 2 else 0.0, 1.3 * float(risk.max()), 1e-9)
        ax.set(xlim=(0, 1), ylim=(0, top), xlabel="Coverage", ylabel="Risk (share of wrong voxels)")
        _legend(ax)
        if title is not None:
            ax.set_title(title, loc="left")
    return ax


def risk_coverage_figure(panels: Mapping[str, Mapping[str, CalibrationStatistics]]) -> Figure:
    """Draw risk-coverage curves side by side on one scale.

    Args:
        panels: By title, what was counted of each method by name, at most two methods per panel.

    Raises:
        ValueError: There are no panels; see also `risk_coverage`.
    """
    if not panels:
        raise ValueError("panels must hold at least one panel, got none")
    with style.house_style():
        figure = style.new_figure(5.4 * len(panels), 3.9)
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, (title, methods) in zip(axes, panels.items(), strict=True):
            for (name, stats), colour in zip(methods.items(), _COLOURS, strict=False):
                risk_coverage(stats, ax=ax, title=title, label=name, colour=colour)
        top = max(ax.get_ylim()[1] for ax in axes)
        for ax in axes:
            ax.set_ylim(0, top)
    return figure


_COLOURS = (style.ORANGE, style.BLUE)
_DASHED: Any = {"lw": 1, "ls": (0, (4, 3))}


def _legend(ax: Axes) -> None:
    """A legend of the curves, and one entry for the dashed lines of all of them."""
    from matplotlib.lines import Line2D

    curves, names = ax.get_legend_handles_labels()
    dashed = Line2D([], [], color=style.MUTED, **_DASHED)
    ax.legend([*curves, dashed], [*names, "ideal: wrong voxels the least sure"], loc="upper left")
