"""Reliability diagrams: of the top label, of one class, and of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastcal.calibration.case_curves import reliability_band
from fastcal.calibration.metrics import METRICS
from fastcal.calibration.resampling import MOST_RESAMPLES
from fastcal.core.doors import bounded
from fastcal.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axes._base import _AxesBase
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

    from fastcal.calibration import CalibrationStatistics


def reliability_diagram(
    stats: CalibrationStatistics,
    *,
    ax: Axes | None = None,
    min_count: int = 0,
    title: str | None = None,
    class_index: int | None = None,
    interval: float | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Axes:
    """Draw accuracy against confidence, bin by bin, over a histogram of the counts.

    Each bar is a bin's accuracy. The hatched part spans accuracy to mean confidence: its height
    times the bin's share of the voxels, summed, is the expected calibration error. The band says
    how much the accuracies would move with other patients.

    Args:
        stats: What was counted.
        ax: Axes to draw into; a new pyplot figure when None. Diagram and histogram share their
            place; ``layout="constrained"`` keeps the labels of a grid of axes apart.
        min_count: Bins with this many voxels or fewer are not drawn (the paper's figures use
            1000). The error printed in the corner counts every bin.
        title: Title of the axes.
        class_index: One class against the rest instead of the top label.
        interval: Confidence level of a band around each accuracy, 0.95 for 95 %: see
            `fastcal.calibration.reliability_band`, for which `stats` needs case ids. None draws no
            band.
        n_resamples: Sets of cases drawn for the band.
        seed: Of the draws.

    Returns:
        The axes of the diagram.

    Raises:
        ValueError: `min_count` is negative, `stats` did not keep the bins asked for, or `interval`
            is no level or lacks cases.

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
        raise ValueError(f"min_count must be at least 0, got {min_count}")
    if interval is not None and not 0 < interval < 1:
        raise ValueError(f"interval must lie between 0 and 1, got {interval:g}")
    bounded(n_resamples, "n_resamples", MOST_RESAMPLES)
    curve = stats.reliability(class_index)
    error = stats.ece() if class_index is None else float(stats.classwise_ece()[class_index])
    band = None
    if interval is not None:
        band = reliability_band(
            stats, class_index, level=interval, n_resamples=n_resamples, seed=seed
        )
    with style.house_style():
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.figure(figsize=(4.2, 4.8), layout="constrained").add_subplot()
        edges, count = curve.edges, curve.count
        _bars(ax, edges, curve.accuracy, curve.mean_confidence, count > min_count)
        if band is not None and interval is not None:
            _band(ax, edges, band, count > min_count, interval)
        _legend(ax, error / 100 if stats.percent else error)
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


def _band(
    ax: Axes,
    edges: np.ndarray,
    band: tuple[np.ndarray, np.ndarray],
    drawn: np.ndarray,
    level: float,
) -> None:
    low, high = band[0][drawn], band[1][drawn]
    width = np.diff(edges)[drawn]
    ax.bar(
        edges[:-1][drawn] + 0.3 * width,
        high - low,
        0.4 * width,
        bottom=low,
        align="edge",
        facecolor=(*_rgb(style.INK), 0.45),
        edgecolor=style.INK,
        lw=0.8,
        label=f"{100 * level:g} % interval over cases",
        zorder=3,
    )


def _legend(ax: Axes, error: float) -> None:
    metric = METRICS["ece"]
    legend = ax.legend(
        *ax.get_legend_handles_labels(),
        loc="upper left",
        title=f"{metric.title} {metric.text(error)}",
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
    """Counts on a log scale, in an inset that moves and scales with `ax`, which makes room."""
    below = ax.inset_axes((0.0, -_BELOW, 1.0, _BELOW - 0.05), sharex=ax)
    ax.set_axes_locator(_upper_part)
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


_BELOW = 0.27
"""Height of the histogram and the gap above it, as a share of the height of the diagram."""


def _upper_part(ax: _AxesBase, renderer: object) -> Bbox:
    """The place of a diagram, so that its histogram ends where its place in the figure ends."""
    del renderer
    from matplotlib.transforms import Bbox

    place = ax.get_position(original=True)
    bottom = place.y1 - place.height / (1 + _BELOW)
    return Bbox.from_extents(place.x0, bottom, place.x1, place.y1)


def _rgb(colour: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(colour)


def reliability_figure(
    panels: Mapping[str, CalibrationStatistics], *, min_count: int = 0, columns: int = 4
) -> Figure:
    """Draw several reliability diagrams side by side, titled by their keys."""
    with style.house_style():
        figure = style.new_figure(*_size(len(panels), columns))
        axes = _grid(figure, len(panels), columns)
        for ax, (title, stats) in zip(axes, panels.items(), strict=True):
            reliability_diagram(stats, ax=ax, min_count=min_count, title=title)
    return figure


def classwise_grid(
    stats: CalibrationStatistics,
    *,
    class_names: Sequence[str] | None = None,
    min_count: int = 0,
    interval: float | None = None,
    columns: int = 4,
    figure: Figure | None = None,
) -> list[Axes]:
    """Draw one reliability diagram per class: its probability against its frequency.

    Args:
        stats: What was counted.
        class_names: Titles, one per class; numbers by default.
        min_count: See `reliability_diagram`.
        interval: See `reliability_diagram`.
        columns: Diagrams side by side.
        figure: Figure to draw into; a new pyplot figure when None.

    Returns:
        The axes, one per class.

    Raises:
        ValueError: There is not one name per class, or no column; see also `reliability_diagram`.
    """
    names = range(stats.num_classes) if class_names is None else class_names
    if len(names) != stats.num_classes:
        raise ValueError(
            f"class_names must hold one name per class: {stats.num_classes}, got {len(names)}"
        )
    with style.house_style():
        if figure is None:
            import matplotlib.pyplot as plt

            figure = plt.figure(figsize=_size(stats.num_classes, columns), layout="constrained")
        axes = _grid(figure, stats.num_classes, columns)
        for k, (ax, name) in enumerate(zip(axes, names, strict=True)):
            title = f"Class {name}" if class_names is None else str(name)
            reliability_diagram(
                stats, ax=ax, min_count=min_count, title=title, class_index=k, interval=interval
            )
    return axes


def _size(n: int, columns: int) -> tuple[float, float]:
    """Inches for ``n`` diagrams in rows of ``columns``."""
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    return 3.4 * min(columns, n), 4.3 * -(-n // columns)


def _grid(figure: Figure, n: int, columns: int) -> list[Axes]:
    """Axes for ``n`` diagrams in rows of ``columns``."""
    columns = min(columns, n)
    axes = list(figure.subplots(-(-n // columns), columns, squeeze=False).flat)
    for ax in axes[n:]:
        ax.set_visible(False)
    return axes[:n]
