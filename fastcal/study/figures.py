"""The figures of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastcal.report import style
from fastcal.report.quality_fit import FitPanel, quality_figure
from fastcal.report.reliability import reliability_figure
from fastcal.study.comparison import DROPOUT, ENSEMBLE, IN_BOX, REGIONS, SINGLE, WHOLE, Quantity
from fastcal.study.design import LOSSES
from fastcal.study.quality import ENTROPY
from fastcal.study.sets import OUTSIDE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fastcal.study.found import Results

MIN_COUNT = 1000
"""The paper draws the bins of a reliability diagram that hold more voxels than this."""


def figures(results: Results) -> dict[str, Figure]:
    """Return every figure by its name."""
    found = {
        "members": members_figure(results),
        "reliability_box": reliability(results, IN_BOX),
        "reliability_whole": reliability(results, WHOLE),
    }
    if any(fit.model == ENSEMBLE for fit in results.fits):
        found["entropy_dice"] = entropy_figure(results)
    if results.detections:
        found["outside"] = outside_figure(results)
    if results.lengths:
        found["lengths"] = lengths_figure(results)
    return found


def members_figure(results: Results) -> Figure:
    """Draw NLL, Brier score and ECE in the box, and Dice, against the number of members."""
    quantities = (*(Quantity(one, IN_BOX) for one in ("nll", "brier", "ece")), Quantity("dice"))
    with style.house_style():
        figure = style.new_figure(13.0, 3.6)
        axes = figure.subplots(1, len(quantities))
        for ax, quantity in zip(axes, quantities, strict=True):
            scale = 100.0 if quantity.measure == "ece" else 1.0
            for loss in LOSSES:
                colour = style.LOSS_COLOURS[loss]
                models = results.comparison.by_size(loss)
                sizes = [model.size for model in models]
                found = [model.measured[quantity] for model in models]
                ends = scale * np.array([one.interval for one in found])
                ax.fill_between(sizes, ends[:, 0], ends[:, 1], color=colour, alpha=0.12, lw=0)
                values = [scale * one.estimate for one in found]
                ax.plot(sizes, values, "o-", color=colour, lw=2, label=style.LOSS_NAMES[loss])
                dropout = results.comparison.of(loss, DROPOUT).measured[quantity].estimate
                ax.axhline(scale * dropout, color=colour, lw=1, ls=":")
            ax.set_xscale("log")
            ax.set_xticks(sizes, [str(size) for size in sizes])
            ax.minorticks_off()
            ax.set(xlabel="Members", title=quantity.title + (", %" if scale > 1 else ""))
        axes[0].plot([], [], color=style.MUTED, lw=1, ls=":", label="MC dropout")
        axes[0].legend()
    return figure


def reliability(results: Results, region: str) -> Figure:
    """Draw reliability diagrams of single member, dropout and ensemble of each loss."""
    panels = {
        f"{style.LOSS_NAMES[model.loss]}, {model.kind}": dict(model.by_region)[region]
        for model in results.comparison.shown
    }
    return reliability_figure(panels, min_count=MIN_COUNT, columns=3)


def entropy_figure(results: Results) -> Figure:
    """Draw the entropy of segments against their logit Dice, with the line and its bands."""
    panels = []
    for fit in results.fits:
        if fit.model != ENSEMBLE:
            continue
        table = fit.table.rows(~fit.table.absent)
        assert table.dice is not None
        entropy = table.scores[ENTROPY]
        grid = np.linspace(entropy.min(), entropy.max(), 100)
        names = (table.structures[0],) * len(grid)  # the line is that of all structures
        r = fit.r
        panels.append(
            FitPanel(
                title=style.LOSS_NAMES[fit.loss],
                x_label="Entropy of the predicted segment, nats",
                points={
                    name.replace("_", " "): (table.of(name).scores[ENTROPY], table.of(name).dice)
                    for name in table.structures_present
                },
                grid=grid,
                line=fit.predictor.predict(grid, names),
                band=fit.predictor.predict_interval(grid, names),
                mean_band=fit.predictor.predict_band(grid, names),
                legend=f"r = {r.value:.2f} ({r.low:.2f} to {r.high:.2f})",
            )
        )
    return quality_figure(panels)


def outside_figure(results: Results) -> Figure:
    """Draw how well the segment entropy detects every set of cases from outside."""
    names = list(dict.fromkeys(one.name for one in results.detections))
    with style.house_style():
        figure = style.new_figure(7.6, 1.7 + 0.55 * len(names))
        ax = figure.subplots()
        for position, name in enumerate(reversed(names)):
            _detectors(ax, results, name, position)
        titles = [results.outside if name == OUTSIDE else name for name in reversed(names)]
        ax.set_yticks(range(len(names)), titles)
        ax.axvline(0.5, color=style.INK, lw=1, ls=(0, (4, 3)))
        ax.set(xlim=(0, 1.02), xlabel="AUROC of the mean segment entropy of a case")
        handles, labels = ax.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        figure.legend(unique.values(), unique, loc="outside upper center", ncols=2)
    return figure


def _detectors(ax: Axes, results: Results, name: str, position: int) -> None:
    marks: dict[str, Any] = {SINGLE: {"mfc": "white"}, ENSEMBLE: {}}
    for number, (loss, model) in enumerate((a, b) for a in LOSSES for b in (SINGLE, ENSEMBLE)):
        (one,) = (
            found
            for found in results.detections
            if (found.name, found.loss, found.model, found.score) == (name, loss, model, ENTROPY)
        )
        at = position + 0.24 - 0.16 * number
        colour = style.LOSS_COLOURS[loss]
        ax.plot([one.auroc.low, one.auroc.high], [at, at], color=colour, lw=1.5)
        label = f"{style.LOSS_NAMES[loss]}, {model}"
        ax.plot(one.auroc.value, at, "o", ms=6, color=colour, label=label, **marks[model])


def lengths_figure(results: Results) -> Figure:
    """Draw the ECE of members and of their ensemble against the length of training."""
    with style.house_style():
        figure = style.new_figure(10.5, 3.9)
        axes = figure.subplots(1, len(REGIONS))
        for ax, region in zip(axes, REGIONS, strict=True):
            for loss in LOSSES:
                points = [
                    one for one in results.lengths if (one.loss, one.region) == (loss, region)
                ]
                colour, steps = style.LOSS_COLOURS[loss], [point.steps for point in points]
                for name, dashes in (("single", (0, (4, 3))), ("ensemble", "-")):
                    values = [100 * getattr(point, name).estimate for point in points]
                    label = f"{style.LOSS_NAMES[loss]}, {name}"
                    ax.plot(steps, values, "o", ls=dashes, ms=4, lw=2, color=colour, label=label)
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.set(xlabel="Steps of training", ylabel="ECE, %", title=region)
        axes[0].legend()
    return figure
