"""Curves and histograms read from calibration statistics: plain arrays to draw or to save."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastcal.calibration import values
from fastcal.calibration.metrics import check_class
from fastcal.calibration.rows import Rows
from fastcal.calibration.values import Floats, Histogram, Integers
from fastcal.core import bins
from fastcal.core.arguments import whole_number


@dataclass(frozen=True, slots=True)
class Reliability:
    """One reliability diagram, or one for each case; NaN for the means of an empty bin.

    With ``convention="torchmetrics"`` there is one bin more, [1, 1], for probabilities of 1.
    """

    edges: Floats
    """``[n_bins + 1]``"""
    count: Integers
    """``[n_bins]``, or ``[n_cases, n_bins]``"""
    mean_confidence: Floats
    """As ``count``: mean confidence (or probability of the class) in the bin."""
    accuracy: Floats
    """As ``count``: share of hits (or of the class) in the bin."""


@dataclass(frozen=True, slots=True)
class OutcomeHistogram:
    """Right and wrong voxels by their confidence, or by their entropy."""

    edges: Floats
    """``[n + 1]``, of the confidence, or of the entropy in nats."""
    right: Integers
    """``[n]``, voxels labelled as the target."""
    wrong: Integers
    """``[n]``"""


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """The error rate of the most confident voxels, by how many of them are kept.

    There is one point for each fine cell that holds voxels, from the most confident on, and none
    where nothing was counted.
    """

    coverage: Floats
    """``[n]``, share of the voxels that are kept, ascending; the last is 1."""
    risk: Floats
    """``[n]``, share of the kept voxels whose label is wrong; the last is 1 - accuracy."""
    confidence: Floats
    """``[n]``, the lowest confidence that is kept (the lower edge of the cell)."""
    optimal: Floats
    """``[n]``, the risk at this coverage if every right voxel were more confident than every wrong
    one."""


def histogram_of(rows: Rows, class_index: int | None) -> Histogram:
    """Return the bins of a reliability diagram: of the default kind, or of one class.

    Raises:
        TypeError, ValueError: There is no such class, or the bins needed were not kept.
    """
    if class_index is None:
        return rows.bins(None)
    class_index = whole_number(class_index, "class_index")
    check_class(class_index, rows.settings.num_classes)
    every = rows.classwise()
    return Histogram(every.cells[..., class_index, :, :], every.total[..., class_index])


def reliability(rows: Rows, class_index: int | None) -> Reliability:
    """Return the reliability diagram of each row.

    Raises:
        TypeError, ValueError: See `histogram_of`.
    """
    count, hits, whole, fraction = np.moveaxis(histogram_of(rows, class_index).cells, -1, 0)
    return Reliability(
        edges=rows.settings.rules.bin_edges(rows.settings.n_bins),
        count=count.copy(),
        mean_confidence=values.mean_of_sum(whole, fraction, count),
        accuracy=values.ratio(hits, count),
    )


def confidence_histogram(rows: Rows, *, fine: bool) -> OutcomeHistogram:
    """Return right and wrong voxels of one row by confidence, over the bins or the fine cells.

    Raises:
        ValueError: They were not kept.
    """
    settings = rows.settings
    if fine:
        count, right = rows.fine_top_label().T
        return OutcomeHistogram(bins.fine_edges(settings.fine_bins), right.copy(), count - right)
    count, right = rows.top_label().cells[:, :2].T
    return OutcomeHistogram(settings.rules.bin_edges(settings.n_bins), right.copy(), count - right)


def entropy_histogram(rows: Rows) -> OutcomeHistogram:
    """Return right and wrong voxels of one row by the entropy of their prediction.

    Raises:
        ValueError: ``entropy_bins`` is 0.
    """
    settings = rows.settings
    if settings.entropy_bins == 0:
        raise ValueError(
            "entropy_bins must be set for a histogram of entropies, got 0: they were not kept"
        )
    count, right = rows.words[settings.layout.entropy].reshape(-1, 2).T
    top = np.log(2 if settings.multilabel else settings.num_classes)
    edges = np.linspace(0.0, top, settings.entropy_bins + 1)
    return OutcomeHistogram(edges, right.copy(), count - right)


def risk_coverage(rows: Rows) -> RiskCoverage:
    """Return the risk-coverage curve of one row.

    Raises:
        ValueError: Fine cells of the confidence were not kept.
    """
    cells = rows.fine_top_label()[::-1]
    filled = cells[:, 0] > 0
    kept, right = cells[filled].cumsum(0).T
    total, n_right = (int(of_all[-1]) if len(kept) else 0 for of_all in (kept, right))
    return RiskCoverage(
        coverage=kept / max(total, 1),
        risk=(kept - right) / kept,
        confidence=bins.fine_edges(rows.settings.fine_bins)[:-1][::-1][filled],
        optimal=np.maximum(kept - n_right, 0) / kept,
    )
