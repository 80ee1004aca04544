"""Draws the pictures of docs/metrics.md, one per metric, from made-up cohorts and a phantom.

.venv/bin/python docs/draw_metrics.py
"""

from __future__ import annotations

import numpy as np
import torch
from draw_images import CLASSES, save
from matplotlib.axes import Axes
from torch import Tensor

from fastcal import CalibrationStatistics, regions
from fastcal.calibration import Measure, bootstrap, paired_bootstrap
from fastcal.report import plots, style

MEASURED = {"fine_bins": 65536, "entropy_bins": 24, "moments": True}


def cohorts(n_cases: int = 30, n_voxels: int = 6_000) -> dict[str, CalibrationStatistics]:
    """The same cases by a calibrated network and by one whose logits are twice too large."""
    generator = torch.Generator().manual_seed(4)
    found = {
        name: CalibrationStatistics(3, n_bins=10, **MEASURED) for name in ("calibrated", "sharp")
    }
    offset = torch.tensor([2.5, 0.0, 0.0])[:, None]
    for case in range(n_cases):
        logits = offset + 1.8 * torch.randn(3, n_voxels, generator=generator)
        target = torch.multinomial(logits.softmax(0).T, 1, generator=generator).T
        shift = 0.5 * torch.randn(3, 1, generator=generator)
        for name, factor in (("calibrated", 1.0), ("sharp", 2.0)):
            probs: Tensor = (factor * (logits + shift)).softmax(0)
            found[name].update(probs[None], target, case_id=[f"case {case:02d}"])
    return found


def cuts(stats: CalibrationStatistics) -> None:
    """Draw equal-width against equal-mass bins of one class's probability."""
    figure = style.new_figure(9.2, 3.6)
    width, mass = figure.subplots(1, 2, sharey=True)
    curve = stats.reliability(1)
    fine, edges = _class_cells(stats, 1)
    running = np.concatenate([[0], fine[:, 0].cumsum()])
    at = np.interp(np.linspace(0, running[-1], stats.n_bins + 1), running, edges)
    for ax, cut, title in (
        (width, curve.edges, f"Equal width: ECE {stats.classwise_ece()[1]:.4f}"),
        (mass, at, f"Equal mass: adaptive ECE {stats.classwise_adaptive_ece()[1]:.4f}"),
    ):
        cell = np.clip(np.searchsorted(cut, edges[:-1], side="right") - 1, 0, stats.n_bins - 1)
        count, hits = (np.bincount(cell, fine[:, k], stats.n_bins) for k in (0, 1))
        total = np.bincount(cell, fine[:, 0] * (edges[:-1] + edges[1:]) / 2, stats.n_bins)
        filled = count > 0
        colour = style.BLUE if ax is width else style.GREEN
        ax.plot(total[filled] / count[filled], hits[filled] / count[filled], "o-", color=colour)
        for edge in cut:
            ax.axvline(edge, color=style.FAINT, lw=0.8, zorder=0)
        ax.plot([0, 1], [0, 1], color=style.INK, lw=1, ls=(0, (4, 3)))
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="Probability of the ventricle")
        ax.set_title(title, loc="left")
    width.set_ylabel("Frequency")
    save(figure, "adaptive_bins.png")


def right_and_wrong(stats: CalibrationStatistics) -> None:
    """Draw confidence and entropy of right and wrong voxels, and the ROC curve."""
    figure = style.new_figure(11.4, 3.6)
    confidence, entropy, roc = figure.subplots(1, 3)
    for ax, found, what in (
        (confidence, stats.confidence_histogram(), "Confidence"),
        (entropy, stats.entropy_histogram(), "Entropy (nats)"),
    ):
        wide = np.diff(found.edges)
        for count, colour, name in (
            (found.right, style.BLUE, "right"),
            (found.wrong, style.VERMILION, "wrong"),
        ):
            share = count / count.sum() / wide
            ax.stairs(share, found.edges, fill=True, color=colour, alpha=0.35, label=name)
            ax.stairs(share, found.edges, color=colour, lw=1.4)
        ax.set(xlabel=what, ylabel="Density", xlim=(found.edges[0], found.edges[-1]))
        ax.legend()
    fine = stats.confidence_histogram(fine=True)
    rates = [np.concatenate([[0], k[::-1].cumsum()]) / k.sum() for k in (fine.wrong, fine.right)]
    roc.plot(*rates, color=style.BLUE, lw=2)
    roc.fill_between(*rates, color=style.BLUE, alpha=0.12, lw=0)
    roc.plot([0, 1], [0, 1], color=style.INK, lw=1, ls=(0, (4, 3)))
    roc.set(xlim=(0, 1), ylim=(0, 1), xlabel="Wrong voxels above", ylabel="Right voxels above")
    roc.set_title(f"AUROC {stats.auroc():.3f}", loc="left")
    save(figure, "right_and_wrong.png")


def risk(found: dict[str, CalibrationStatistics]) -> None:
    figure = style.new_figure(5.6, 3.9)
    plots.risk_coverage(found["sharp"], ax=figure.add_subplot(), title="Risk and coverage")
    save(figure, "risk_coverage.png")


def scores(found: dict[str, CalibrationStatistics]) -> None:
    """Draw the penalty of a voxel by its probability, and the parts of the Brier score."""
    figure = style.new_figure(10.2, 3.8)
    penalty, parts = figure.subplots(1, 2, width_ratios=(1, 1.3))
    p = np.linspace(0.002, 1, 500)
    penalty.plot(p, -np.log(p), color=style.VERMILION, lw=2, label="NLL")
    penalty.plot(p, 2 * (1 - p) ** 2, color=style.BLUE, lw=2, label="Brier, two classes")
    penalty.set(xlim=(0, 1), ylim=(0, 5), xlabel="Probability of the target", ylabel="Penalty")
    penalty.legend()
    names = ("reliability", "resolution", "uncertainty", "within_variance", "within_covariance")
    for k, (name, colour) in enumerate((("calibrated", style.GREEN), ("sharp", style.VERMILION))):
        decomposed = found[name].brier_decomposition()
        heights = [getattr(decomposed, part) for part in names]
        bars = parts.bar(np.arange(5) + 0.38 * (k - 0.5), heights, 0.36, color=colour)
        parts.bar_label(bars, [f"{height:.3f}" for height in heights], fontsize=8)
        bars.set_label(f"{name}: Brier {decomposed.brier:.3f}")
    shown = (
        "reliability",
        "− resolution",
        "uncertainty",
        "variance\nwithin",
        "− covariance\nwithin",
    )
    parts.set_xticks(range(5), shown)
    parts.set_ylim(0, 1.2 * parts.get_ylim()[1])
    parts.legend(loc="upper right")
    save(figure, "proper_scores.png")


def volumes(stats: CalibrationStatistics) -> None:
    """Draw soft volume less reference volume, one dot per case."""
    figure = style.new_figure(5.6, 3.4)
    ax = figure.add_subplot()
    jitter = np.random.default_rng(0).uniform(-0.16, 0.16, len(stats.case_ids))
    for k, name in enumerate(CLASSES):
        found = list(stats.per_case(Measure("volume_bias", class_index=k)).values())
        colour = style.segment_colour(k) if k else style.MUTED
        ax.plot(found, k + jitter, "o", color=colour, alpha=0.7, ms=5)
        ax.plot(np.mean(found), k, "D", color=style.INK, ms=8, label="mean" if k == 0 else None)
        ax.text(ax.get_xlim()[0], k + 0.28, name, color=style.INK)
    ax.axvline(0, color=style.INK, lw=1, ls=(0, (4, 3)))
    ax.set(yticks=[], xlabel="Soft volume less reference volume (voxels)", ylim=(-0.5, 2.6))
    ax.legend(loc="lower right")
    save(figure, "volume_bias.png")


def intervals(found: dict[str, CalibrationStatistics]) -> None:
    """Draw bootstrap distributions of an error, and of the difference between two methods."""
    figure = style.new_figure(9.2, 3.4)
    single, paired = figure.subplots(1, 2)
    both = [
        (single, bootstrap(found["calibrated"], method="bca"), "ECE, calibrated", style.BLUE),
        (
            paired,
            paired_bootstrap(found["sharp"], found["calibrated"], "nll"),
            "NLL, sharp less calibrated",
            style.VERMILION,
        ),
    ]
    for ax, interval, what, colour in both:
        ax.hist(interval.distribution, 60, color=colour, alpha=0.35)
        for bound in (interval.low, interval.high):
            ax.axvline(bound, color=colour, lw=1.4, ls=(0, (4, 3)))
        ax.axvline(interval.estimate, color=style.INK, lw=1.6)
        ax.set(yticks=[], xlabel=what)
        ax.spines["left"].set_visible(False)
        ax.set_title(f"95 %: {interval.low:.4f} to {interval.high:.4f}", loc="left")
    save(figure, "bootstrap.png")


def parts_of_a_volume() -> None:
    """Draw the regions of a phantom's middle slice."""
    labels, spacing = phantom()
    masks = {
        "dilated_box, 8 mm and 2 slices": regions.dilated_box(labels, spacing=spacing),
        "boundary_band, 3 mm": regions.boundary_band(labels, 3.0, spacing=spacing),
        "foreground": regions.foreground(labels),
    }
    figure = style.new_figure(10.2, 3.9)
    middle = labels.shape[2] // 2
    for ax, (name, mask) in zip(figure.subplots(1, 3), masks.items(), strict=True):
        _outline(ax, labels[:, :, middle], mask[:, :, middle])
        ax.set_title(name, loc="left", fontsize=11)
    save(figure, "regions.png")


def phantom() -> tuple[np.ndarray, tuple[float, float, float]]:
    """Labels of a ring around a pool, and the spacing in mm."""
    x, y, z = np.mgrid[-48:48, -48:48, -8:8] * np.array([1.5, 1.5, 6.0]).reshape(3, 1, 1, 1)
    distance = np.sqrt((x - 6) ** 2 + (1.2 * (y + 4)) ** 2 + (0.35 * z) ** 2)
    return (distance < 24).astype(np.uint8) + (distance < 34).astype(np.uint8), (1.5, 1.5, 6.0)


def _outline(ax: Axes, labels: np.ndarray, mask: np.ndarray) -> None:
    ax.imshow(labels.T, cmap="Greys", vmin=-0.4, vmax=4, interpolation="nearest")
    ax.imshow(
        np.where(mask, 1.0, np.nan).T, cmap="autumn", vmin=0, vmax=2, alpha=0.45,
        interpolation="nearest",
    )  # fmt: skip
    ax.set_axis_off()


def _class_cells(stats: CalibrationStatistics, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Fine cells of a class, ``[n, 2]``, and their edges."""
    from fastcal.core.bins import fine_edges

    return stats.rows().fine_classwise()[k], fine_edges(stats.fine_bins)


def main() -> None:
    """Draw every picture."""
    found = cohorts()
    with style.house_style():
        cuts(found["sharp"])
        right_and_wrong(found["sharp"])
        risk(found)
        scores(found)
        volumes(found["sharp"])
        intervals(found)
        parts_of_a_volume()


if __name__ == "__main__":
    main()
