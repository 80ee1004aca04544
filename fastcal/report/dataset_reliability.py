"""Where the reliability curves of all cases of a dataset run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastcal.calibration.case_curves import case_curves
from fastcal.calibration.curves import Reliability
from fastcal.calibration.values import Floats, Integers
from fastcal.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fastcal.calibration import CalibrationStatistics

COLOURMAP = "Blues"


def dataset_reliability(
    stats: CalibrationStatistics,
    *,
    ax: Axes | None = None,
    min_count: int = 0,
    title: str | None = None,
    class_index: int | None = None,
) -> Axes:
    """Draw a heat map of the cases' reliability curves: how many of them run through each cell.

    The largest volumes dominate a pooled diagram, which hides that half of the cases may lie above
    the diagonal and half below it. Here every case counts once in every bin that it fills. The
    lines are the mean over cases, bin by bin, and the pooled curve.

    Args:
        stats: Counted with case ids.
        ax: Axes to draw into; a new pyplot figure when None.
        min_count: Bins of a case with this many voxels or fewer are left out of the map and of the
            mean over cases.
        title: Title of the axes.
        class_index: One class against the rest instead of the top label.

    Returns:
        The axes of the map.

    Raises:
        ValueError: `min_count` is negative, there are no cases, or `stats` did not keep the bins
            asked for.

    Reference: Barfoot et al., arXiv 2506.03942 ("dataset reliability histogram").
    """
    if min_count < 0:
        raise ValueError(f"min_count must be at least 0, got {min_count}")
    curves = case_curves(stats, class_index)
    pooled = stats.reliability(class_index)
    from matplotlib.ticker import MaxNLocator

    with style.house_style():
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.figure(figsize=(5.2, 4.4), layout="constrained").add_subplot()
        cases = cases_in_cells(curves, min_count)
        mesh = ax.pcolormesh(
            curves.edges,
            curves.edges,
            np.ma.masked_equal(cases.T, 0),
            cmap=COLOURMAP,
            vmin=0,
            edgecolors="white",
            linewidth=0.3,
        )
        bar = ax.figure.colorbar(
            mesh, ax=ax, ticks=MaxNLocator(integer=True), shrink=0.85, pad=0.02
        )
        bar.set_label("Cases")
        bar.outline.set_visible(False)
        ax.plot([0, 1], [0, 1], color=style.INK, lw=1, ls=(0, (4, 3)))
        filled = pooled.count > 0
        ax.plot(
            pooled.mean_confidence[filled],
            pooled.accuracy[filled],
            "-",
            color=style.ORANGE,
            lw=2,
            label="All voxels pooled",
        )
        confidence, accuracy = mean_over_cases(curves, min_count)
        ax.plot(
            confidence, accuracy, "o-", color=style.VERMILION, lw=2, ms=5, label="Mean over cases"
        )
        ax.set(xlim=(0, 1), ylim=(0, 1))
        ax.set_aspect("equal")
        ax.set_xlabel("Confidence" if class_index is None else "Probability")
        ax.set_ylabel("Accuracy" if class_index is None else "Frequency")
        ax.legend(loc="upper left", title=f"{len(curves.count)} cases", alignment="left")
        if title is not None:
            ax.set_title(title)
    return ax


def cases_in_cells(curves: Reliability, min_count: int = 0) -> Integers:
    """Return the number of cases in each cell of confidence and accuracy, ``[n_bins, n_bins]``.

    Cells of accuracy are (lo, hi], the first closed at 0, like the bins.
    """
    n_bins = curves.count.shape[1]
    cells = np.zeros((n_bins, n_bins), np.int64)
    _, column = used = np.nonzero(curves.count > min_count)
    row = np.searchsorted(curves.edges[1:-1], curves.accuracy[used], side="left")
    np.add.at(cells, (column, row), 1)
    return cells


def mean_over_cases(curves: Reliability, min_count: int = 0) -> tuple[Floats, Floats]:
    """Return mean confidence and mean accuracy over cases, of every bin that a case fills."""
    used = curves.count > min_count
    some = used.any(0)
    weight = used[:, some] / used[:, some].sum(0)
    confidence, accuracy = (
        (np.where(used, values, 0.0)[:, some] * weight).sum(0)
        for values in (curves.mean_confidence, curves.accuracy)
    )
    return confidence, accuracy
