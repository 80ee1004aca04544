"""Figures of numbers: reliability diagrams and the scores of members against their ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastcal.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fastcal.calibration import CalibrationStatistics
    from fastcal.report.scores import ComparedLoss


def reliability_diagram(
    stats: CalibrationStatistics,
    *,
    ax: Axes | None = None,
    min_count: int = 0,
    title: str | None = None,
    class_index: int | None = None,
) -> Axes:
    """Accuracy against confidence, bin by bin, over a histogram of the counts.

    Each bar is a bin's accuracy; the hatched part spans accuracy to mean confidence, so that its
    height times the bin's share of the voxels, summed, is the expected calibration error.

    Args:
        stats: What was counted.
        ax: Axes to draw into; a new pyplot figure when None. The histogram is an inset below it.
        min_count: Bins with this many voxels or fewer are not drawn (the paper's figures use
            1000). The error printed in the corner counts every bin.
        title: Title of the axes.
        class_index: One class against the rest instead of the top label.

    Returns:
        The axes of the diagram.

    Raises:
        ValueError: `min_count` is negative, or `stats` did not count the mode asked for.

    Reference: Niculescu-Mizil and Caruana, ICML 2005; Guo et al., ICML 2017.

    Example:
        >>> import torch
        >>> from fastcal import CalibrationStatistics
        >>> stats = CalibrationStatistics(num_classes=2)
        >>> _ = stats.update(torch.tensor([[[0.2], [0.8]]]), torch.tensor([[1]]))
        >>> reliability_diagram(stats, title="Two classes").get_title()
        'Two classes'
    """
    if min_count < 0:
        raise ValueError(f"min_count: got {min_count}, expected 0 or more")
    curve = stats.reliability(class_index)
    error = stats.ece() if class_index is None else float(stats.classwise_ece()[class_index])
    with style.house_style():
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.figure(figsize=(4.2, 4.8), layout="constrained").add_subplot()
        edges = np.asarray(curve.edges, dtype=float)
        count = np.asarray(curve.count)
        _bars(
            ax,
            edges,
            np.asarray(curve.accuracy, dtype=float),
            np.asarray(curve.mean_confidence, dtype=float),
            count > min_count,
            error,
        )
        ax.set_ylabel("Accuracy" if class_index is None else "Frequency")
        if title is not None:
            ax.set_title(title)
        below = _histogram(ax, edges, count)
        below.set_xlabel("Confidence" if class_index is None else "Probability")
    return ax


def _bars(
    ax: Axes,
    edges: np.ndarray,
    accuracy: np.ndarray,
    confidence: np.ndarray,
    drawn: np.ndarray,
    error: float,
) -> None:
    left, width = edges[:-1][drawn], np.diff(edges)[drawn]
    accuracy, confidence = accuracy[drawn], confidence[drawn]
    ax.bar(left, accuracy, width, align="edge", color=style.BLUE, edgecolor="white", lw=0.8)
    gaps = (
        (confidence >= accuracy, "overconfident", style.VERMILION, "////"),
        (confidence < accuracy, "underconfident", style.ORANGE, "\\\\\\\\"),
    )
    for side, name, colour, hatch in gaps:
        if side.any():
            ax.bar(
                left[side],
                np.abs(confidence - accuracy)[side],
                width[side],
                bottom=np.minimum(confidence, accuracy)[side],
                align="edge",
                facecolor=(*_rgb(colour), 0.25),
                edgecolor=colour,
                hatch=hatch,
                lw=0.8,
                label=name,
            )
    ax.plot([0, 1], [0, 1], color=style.INK, lw=1, ls=(0, (4, 3)))
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.set_aspect("equal")
    ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    ax.tick_params(labelbottom=False)
    legend = ax.legend(
        *ax.get_legend_handles_labels(),
        loc="upper left",
        title=f"ECE {100 * error:.2f} %",
        title_fontproperties={"weight": "bold", "size": 11},
        alignment="left",
        handlelength=1.6,
        borderaxespad=0.3,
        frameon=True,
        facecolor="white",
        edgecolor="none",
        framealpha=0.85,
    )
    legend.set_zorder(4)


def _histogram(ax: Axes, edges: np.ndarray, count: np.ndarray) -> Axes:
    """Counts on a log scale, as an inset that moves and scales with `ax`."""
    below = ax.inset_axes((0.0, -0.27, 1.0, 0.22), sharex=ax)
    some = count > 0
    below.bar(
        edges[:-1][some],
        count[some],
        np.diff(edges)[some],
        align="edge",
        color=style.FAINT,
        edgecolor="white",
        lw=0.8,
    )
    below.set_yscale("log")
    top = max(10.0, 3.0 * float(count.max(initial=1)))
    below.set_ylim(0.7, top)
    decades = range(0, int(np.log10(top)) + 1)
    step = max(1, len(decades) // 2)
    below.set_yticks([10.0**d for d in decades[::step]])
    below.minorticks_off()
    below.set_ylabel("Voxels")
    below.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    below.tick_params(labelbottom=True)
    return below


def _rgb(colour: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(colour)


def reliability_figure(
    panels: Mapping[str, CalibrationStatistics], *, min_count: int = 0, columns: int = 4
) -> Figure:
    """Several reliability diagrams side by side, titled by their keys."""
    rows = -(-len(panels) // columns)
    columns = min(columns, len(panels))
    with style.house_style():
        figure = style.new_figure(3.4 * columns, 4.3 * rows)
        axes = figure.subplots(rows, columns, squeeze=False)
        for ax, (title, stats) in zip(axes.flat, panels.items(), strict=False):
            reliability_diagram(stats, ax=ax, min_count=min_count, title=title)
        for ax in list(axes.flat)[len(panels) :]:
            ax.set_visible(False)
    return figure


_MEASURES = (
    ("dice", "Dice", 1.0, "higher is better"),
    ("ece", "ECE (%)", 100.0, "lower is better"),
    ("nll", "NLL (nats)", 1.0, "lower is better"),
    ("brier", "Brier", 1.0, "lower is better"),
)


def scores_figure(losses: Sequence[ComparedLoss]) -> Figure:
    """Each loss's members as dots, their range as a bar and the ensemble as a diamond."""
    with style.house_style():
        figure = style.new_figure(11.5, 1.25 + 0.75 * len(losses))
        axes = figure.subplots(1, len(_MEASURES), sharey=True)
        for ax, (name, title, scale, better) in zip(axes, _MEASURES, strict=True):
            for row, loss in enumerate(losses):
                colour = style.LOSS_COLOURS.get(loss.loss, style.GREEN)
                members = scale * np.array([getattr(m.scores, name) for m in loss.members])
                ensemble = scale * getattr(loss.ensemble.scores, name)
                ax.hlines(
                    row, np.nanmin(members), np.nanmax(members), color=colour, lw=5, alpha=0.2
                )
                ax.plot(members, np.full(len(members), row), "o", color=colour, alpha=0.75, ms=6)
                ax.plot(ensemble, row, "D", color=colour, mec=style.INK, mew=1.1, ms=9, zorder=3)
            ax.set_title(title, loc="left")
            ax.set_xlabel(better, color=style.MUTED, fontsize=10)
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
