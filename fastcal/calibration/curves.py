"""Curves and histograms read from calibration statistics: plain arrays to draw or to save."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastcal.calibration import conventions, values
from fastcal.calibration.ordered import OrderedMetrics
from fastcal.calibration.values import Floats, Integers
from fastcal.core import bins
from fastcal.core.arguments import whole_number


@dataclass(frozen=True, slots=True)
class Reliability:
    """One reliability diagram; arrays over the bins, NaN for the means of an empty bin.

    With ``convention="torchmetrics"`` there is one bin more, [1, 1], for probabilities of 1.
    """

    edges: Floats
    """``[n_bins + 1]``"""
    count: Integers
    """``[n_bins]``"""
    mean_confidence: Floats
    """``[n_bins]``, mean confidence (or probability of the class) in the bin."""
    accuracy: Floats
    """``[n_bins]``, share of hits (or of the class) in the bin."""


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
    """The error rate of the most confident voxels, by how many these are.

    A point a fine cell that holds voxels, from the most confident on; nothing counted gives none.
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


class CurveMetrics(OrderedMetrics):
    """What a state gives to draw; all pooled."""

    def reliability(self, class_index: int | None = None) -> Reliability:
        """The reliability diagram, pooled: top-label (positive class for binary data), or of one
        class.

        Raises:
            ValueError: There is no such class, or the bins needed were not kept.
        """
        total = self._state.total
        if class_index is None:
            found = self._histogram(total, None)
        else:
            class_index = whole_number(class_index, "class_index")
            self._check_class(class_index)
            self._need("classwise", "top-label")
            found = values.classwise_bins(total, self._state.layout)[class_index]
        count, hits, whole, fraction = self._binned(found).T
        return Reliability(
            edges=conventions.find(self.convention).bin_edges(self.n_bins),
            count=count.copy(),
            mean_confidence=values.mean_of_sum(whole, fraction, count),
            accuracy=values.ratio(hits, count),
        )

    def confidence_histogram(self, *, fine: bool = False) -> OutcomeHistogram:
        """Right and wrong voxels by confidence, pooled, over the bins; exact.

        Every decision is one sample when multilabel, of confidence ``max(p, 1 - p)``.

        Args:
            fine: Over the fine cells, where ``fine_bins`` kept some.

        Raises:
            ValueError: The bins or cells were not kept.
        """
        self._need("top-label", "classwise")
        total, layout = self._state.total, self._state.layout
        if fine:
            self._need_fine()
            count, right = total[layout.fine_top_label].reshape(-1, 2).T
            return OutcomeHistogram(bins.fine_edges(self.fine_bins), right.copy(), count - right)
        count, right = self._binned(values.top_label_bins(total, layout))[:, :2].T
        edges = conventions.find(self.convention).bin_edges(self.n_bins)
        return OutcomeHistogram(edges, right.copy(), count - right)

    def entropy_histogram(self) -> OutcomeHistogram:
        """Right and wrong voxels by the entropy of their prediction, pooled.

        Equal bins over [0, ln C], the last one open above for probabilities that do not sum to 1;
        when multilabel every decision is one sample, over [0, ln 2]. Exact but for entropies
        within the rounding of their type (1e-6 for float32) of an edge.

        Raises:
            ValueError: ``entropy_bins`` is 0.

        Example:
            >>> import torch
            >>> from fastcal import CalibrationStatistics
            >>> statistics = CalibrationStatistics(num_classes=2, entropy_bins=2)
            >>> p = torch.tensor([[0.99, 0.98, 0.6, 0.5]])
            >>> statistics.update(torch.stack([p, 1 - p], 1), torch.tensor([[0, 0, 1, 0]]))
            >>> found = statistics.entropy_histogram()
            >>> found.right, found.wrong
            (array([2, 1]), array([0, 1]))
        """
        if self.entropy_bins == 0:
            raise ValueError("entropies were not kept: entropy_bins is 0")
        count, right = self._state.total[self._state.layout.entropy].reshape(-1, 2).T
        top = np.log(2 if self.multilabel else self.num_classes)
        edges = np.linspace(0.0, top, self.entropy_bins + 1)
        return OutcomeHistogram(edges, right.copy(), count - right)

    def risk_coverage(self) -> RiskCoverage:
        """The risk-coverage curve, pooled: error rate of the most confident voxels by their share.

        Exact at its points, the edges of cells.

        Example:
            >>> import torch
            >>> from fastcal import CalibrationStatistics
            >>> statistics = CalibrationStatistics(num_classes=2, fine_bins=1024)
            >>> p = torch.tensor([[0.9, 0.8, 0.7, 0.6]])
            >>> statistics.update(torch.stack([p, 1 - p], 1), torch.tensor([[0, 0, 1, 0]]))
            >>> curve = statistics.risk_coverage()
            >>> curve.coverage, curve.risk.round(2)
            (array([0.25, 0.5 , 0.75, 1.  ]), array([0.  , 0.  , 0.33, 0.25]))
        """
        cells = self._fine_top_label(self._state.total)[::-1]
        filled = cells[:, 0] > 0
        kept, right = cells[filled].cumsum(0).T
        total, n_right = (int(of_all[-1]) if len(kept) else 0 for of_all in (kept, right))
        return RiskCoverage(
            coverage=kept / max(total, 1),
            risk=(kept - right) / kept,
            confidence=bins.fine_edges(self.fine_bins)[:-1][::-1][filled],
            optimal=np.maximum(kept - n_right, 0) / kept,
        )
