"""What is read in the order of the probability: equal-mass errors, AUROC, risk and coverage."""

from __future__ import annotations

from fastcal.calibration import ranking, values
from fastcal.calibration.measures import FROM_FINE_CELLS, Kind, Measure, Norm, Reduction
from fastcal.calibration.metrics import CalibrationMetrics
from fastcal.calibration.values import Floats, Integers


class OrderedMetrics(CalibrationMetrics):
    """Metrics of the fine cells; every one is a ValueError where ``fine_bins`` is 0.

    Cells are the one thing that is not exact: what it costs is said with every metric, for R =
    ``fine_bins`` cells. Nothing else is rounded, and the state stays as large as it is.
    """

    def adaptive_ece(
        self, norm: Norm = "l1", reduction: Reduction = "pooled", *, kind: Kind | None = None
    ) -> float:
        """Calibration error over ``n_bins`` bins that hold equal numbers of samples.

        The samples sorted by confidence are cut in parts whose sizes differ by at most one (Nguyen
        and O'Connor, EMNLP 2015), where `ece` has bins of equal width. Against the sorted samples
        ``l1`` is off by at most ``8 / R``, and ``n_c / (2 N)`` for each of the cuts, which runs
        through a cell of n_c of N samples; samples of equal confidence are one cell for sure, and
        their order is arbitrary there too. See `ece` for the arguments.
        """
        return self._scalar(Measure("adaptive_ece", norm, kind=kind), reduction)

    def classwise_adaptive_ece(
        self, norm: Norm = "l1", reduction: Reduction = "pooled", *, threshold: float = 0.0
    ) -> Floats:
        """Equal-mass calibration error of each class's probability against its presence, ``[C]``.

        The mean over classes is the adaptive calibration error of Nixon et al. (CVPRW 2019). See
        `adaptive_ece` for what cells cost.

        Args:
            norm: ``"l1"``, ``"l2"`` or ``"max"``.
            reduction: ``"pooled"``, or ``"case"``, the mean over cases.
            threshold: Samples with a smaller probability are left out, to the nearest cell.
        """
        measure = Measure("classwise_adaptive_ece", norm, threshold=threshold)
        return self._vector(measure, reduction)

    def tace(
        self, threshold: float = 0.01, norm: Norm = "l1", reduction: Reduction = "pooled"
    ) -> float:
        """Thresholded adaptive calibration error (Nixon et al., CVPRW 2019).

        `classwise_adaptive_ece` of the probabilities of at least ``threshold``, mean over classes:
        the many voxels in which a class is out of the question no longer drown the others.
        """
        found = self._vector(Measure("tace", norm, threshold=threshold), reduction)
        return float(values.mean_over_classes(found))

    def auroc(self, reduction: Reduction = "pooled", *, kind: Kind | None = None) -> float:
        """Area under the ROC curve: does the confidence tell right voxels from wrong ones?

        The probability that a right voxel has more confidence than a wrong one, 1/2 for ties
        (Hendrycks and Gimpel, ICLR 2017); for binary data, and with ``kind="positive"``, that a
        voxel of the class has a higher probability than another. NaN without one of each. Voxels
        of one cell count as ties: with h right and m wrong ones a cell, H and M in all, off by at
        most ``sum h m / (2 H M)``.
        """
        return self._scalar(Measure("auroc", kind=kind), reduction)

    def classwise_auroc(self, reduction: Reduction = "pooled") -> Floats:
        """`auroc` of each class's probability against its presence, one-vs-rest, ``[C]``."""
        return self._vector(Measure("classwise_auroc"), reduction)

    def aurc(self, reduction: Reduction = "pooled") -> float:
        """Area under the risk-coverage curve: the error rate of the k most confident voxels, mean
        over all k (Geifman and El-Yaniv, NeurIPS 2017).

        It falls with better confidence and with better labels alike: `e_aurc` takes the second
        off. Within a cell errors are spread evenly: with n voxels a cell, e of them wrong and K
        more confident ones, off by at most ``sum e (n - e) / n ln(1 + n / K) / N`` (``ln n + 1``
        for the first cell).
        """
        return self._scalar(Measure("aurc"), reduction)

    def e_aurc(self, reduction: Reduction = "pooled") -> float:
        """Excess of `aurc` over that of the same labels in the best order, every wrong voxel behind
        every right one (Geifman et al., ICLR 2019)."""
        return self._scalar(Measure("e_aurc"), reduction)

    def words_of(self, measure: Measure) -> slice:
        if measure.name not in FROM_FINE_CELLS:
            return super().words_of(measure)
        layout = self._state.layout
        top_label = not measure.of_fine_classes and (
            measure.name in ("aurc", "e_aurc") or self._kind(measure.kind) == "top-label"
        )
        return layout.fine_top_label if top_label else layout.fine_classwise

    def _of_rows(self, rows: Integers, measure: Measure) -> Floats:
        name = measure.name
        if name not in FROM_FINE_CELLS:
            return super()._of_rows(rows, measure)
        if name in ("aurc", "e_aurc"):
            return ranking.aurc(self._fine_top_label(rows), excess=name == "e_aurc")
        if measure.of_fine_classes:
            cells = self._fine_classwise(rows)
        elif self._kind(measure.kind) == "positive":
            self._check_positive()
            cells = self._fine_classwise(rows)[..., -1, :, :]
        else:
            cells = self._fine_top_label(rows)
        if name.endswith("auroc"):
            return ranking.auroc(cells)
        return ranking.adaptive_error(
            cells,
            self.n_bins,
            measure.norm,
            threshold=measure.lowest,
            scale=100 if self.percent else 1,
        )

    def _fine_top_label(self, rows: Integers) -> Integers:
        """``[..., fine_bins, 2]``"""
        self._need_fine()
        self._need("top-label", "classwise")
        return rows[..., self._state.layout.fine_top_label].reshape(*rows.shape[:-1], -1, 2)

    def _fine_classwise(self, rows: Integers) -> Integers:
        """``[..., C, fine_bins, 2]``"""
        self._need_fine()
        self._need("classwise", "top-label")
        shape = (*rows.shape[:-1], self.num_classes, -1, 2)
        return rows[..., self._state.layout.fine_classwise].reshape(shape)
