"""A score against logit Dice, with the fit and its bands: what a quality prediction rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastcal.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TICKS = (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99)
_MARKERS = "osD^vPX"


@dataclass(frozen=True)
class FitPanel:
    """One panel: structures as points, a line with bands, and structures without a Dice.

    Dice are given as such, and drawn on a logit axis.
    """

    title: str
    x_label: str
    points: Mapping[str, tuple[Any, Any]]
    """Score and Dice of structures ``[n]``, by the name of the structure."""
    grid: NDArray[np.float64]
    """``[G]``, scores at which the line is given."""
    line: NDArray[np.float64]
    """``[G]``, Dice."""
    band: NDArray[np.float64] | None = None
    """``[G, 2]``, within which one more structure lies."""
    mean_band: NDArray[np.float64] | None = None
    """``[G, 2]``, within which the line lies."""
    unknown: NDArray[np.float64] | None = None
    """``[m]``, scores of structures without a reference, as ticks along the axis."""
    legend: str = "fit"
    x_is_dice: bool = False
    """Whether the scores are predicted Dice, drawn on a logit axis too."""


def quality_figure(panels: Sequence[FitPanel], *, clip: float = 1e-3) -> Figure:
    """Draw the panels side by side.

    Args:
        panels: At least one.
        clip: Dice nearer to 0 or 1 are drawn there.

    Raises:
        ValueError: There are no panels.
    """
    if not panels:
        raise ValueError("panels must hold at least one panel, got none")
    with style.house_style():
        figure = style.new_figure(5.4 * len(panels), 4.2)
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for ax, panel in zip(axes, panels, strict=True):
            _draw(ax, panel, clip)
        axes[0].set_ylabel("Dice (logit scale)")
    return figure


def _draw(ax: Axes, panel: FitPanel, clip: float) -> None:
    def place(dice: Any) -> NDArray[np.float64]:
        inside = np.clip(np.asarray(dice, np.float64), clip, 1 - clip)
        return np.asarray(np.log(inside / (1 - inside)))

    def along(score: Any) -> NDArray[np.float64]:
        return place(score) if panel.x_is_dice else np.asarray(score, np.float64)

    grid = along(panel.grid)
    if panel.band is not None:
        low, high = place(panel.band).T
        ax.fill_between(grid, low, high, color=style.BLUE, alpha=0.10, lw=0)
    if panel.mean_band is not None:
        low, high = place(panel.mean_band).T
        ax.fill_between(grid, low, high, color=style.BLUE, alpha=0.25, lw=0)
    ax.plot(grid, place(panel.line), color=style.BLUE, lw=2, label=panel.legend)
    for number, (name, (score, dice)) in enumerate(panel.points.items(), start=1):
        ax.scatter(
            along(score),
            place(dice),
            s=26,
            marker=_MARKERS[(number - 1) % len(_MARKERS)],
            color=style.segment_colour(number),
            edgecolor=style.INK,
            lw=0.5,
            alpha=0.9,
            label=name or None,
            zorder=3,
        )
    if panel.unknown is not None and len(panel.unknown):
        ax.plot(
            along(panel.unknown),
            np.full(len(panel.unknown), 0.015),
            "|",
            transform=ax.get_xaxis_transform(),
            color=style.VERMILION,
            ms=9,
            label="without a reference",
        )
    ticks = [one for one in _TICKS if clip <= one <= 1 - clip]
    ax.set_yticks(place(ticks), [f"{one:g}" for one in ticks])
    if panel.x_is_dice:
        ax.set_xticks(place(ticks), [f"{one:g}" for one in ticks])
    ax.set_title(panel.title, loc="left")
    ax.set_xlabel(panel.x_label)
    ax.grid(color=style.FAINT, lw=0.8)
    ax.legend(loc="best")
