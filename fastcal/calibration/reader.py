"""What can be read from calibration statistics: one method for each metric and each curve.

The methods hold names, arguments and explanations. What they compute is a row of
`fastcal.calibration.metrics.METRICS`, or a function of `fastcal.calibration.curves`.
"""

from __future__ import annotations

from fastcal.calibration import curves, values
from fastcal.calibration.brier import BrierParts, brier_parts
from fastcal.calibration.curves import OutcomeHistogram, Reliability, RiskCoverage
from fastcal.calibration.metrics import (
    Measure,
    Norm,
    Reduction,
    as_measure,
    check_class,
    mean_of_classes,
    measured,
)
from fastcal.calibration.rows import Kind, Rows
from fastcal.calibration.settings import CalibrationSettings
from fastcal.calibration.state import CalibrationState
from fastcal.calibration.values import Floats, Integers
from fastcal.core.problem import StatisticsLayout


class MetricReader:
    """The metrics and curves of `CalibrationStatistics`.

    Nothing counted gives NaN. Metrics of the fine cells are a ValueError where ``fine_bins`` is 0.
    Cells are the only thing about them that is not exact: each docstring says what that costs, for
    R = ``fine_bins`` cells.
    """

    settings: CalibrationSettings
    """What is counted."""
    state: CalibrationState
    """The integers."""

    @property
    def n_voxels(self) -> int:
        """Voxels counted."""
        return int(self.state.total[StatisticsLayout.N_VOXELS])

    @property
    def n_invalid(self) -> int:
        """Voxels left out because they lack valid probabilities (``nan_policy="omit"``)."""
        return int(self.state.total[StatisticsLayout.N_INVALID])

    @property
    def n_clipped(self) -> int:
        """Probabilities of the target that were below ``eps`` and clipped in the NLL."""
        return int(self.state.total[StatisticsLayout.N_CLIPPED])

    @property
    def percent(self) -> bool:
        """Whether calibration errors are in per cent, as in the paper's convention."""
        return self.settings.rules.percent

    @property
    def case_ids(self) -> tuple[str, ...]:
        """Every case seen, in the order of first appearance."""
        return self.state.case_ids

    @property
    def predicted(self) -> Integers:
        """Voxels predicted as each class, ``[C]``."""
        return self.state.total[self.state.layout.predicted].copy()

    @property
    def reference(self) -> Integers:
        """Voxels whose target is each class, ``[C]``."""
        return self.state.total[self.state.layout.reference].copy()

    @property
    def true_positive(self) -> Integers:
        """Voxels of each class that are predicted as it, ``[C]``."""
        return self.state.total[self.state.layout.true_positive].copy()

    def rows(self, reduction: Reduction = "pooled") -> Rows:
        """Return the integers: one row ``[W]`` of everything, or the rows ``[n_cases, W]``.

        Raises:
            ValueError: ``reduction`` is neither ``"pooled"`` nor ``"case"``; no case ids were
                given, or not with every update.
        """
        if reduction not in ("pooled", "case"):
            raise ValueError(f"reduction must be 'pooled' or 'case', got {reduction!r}")
        state = self.state
        return Rows(state.total if reduction == "pooled" else state.case_rows, self.settings)

    def measure(self, measure: Measure | str = "ece", reduction: Reduction | None = None) -> float:
        """Return any row of `METRICS` as one number.

        Args:
            measure: A metric's name, or a `Measure` with its options. A metric of classes gives
                the mean over the classes that are defined, or one class (``class_index``).
            reduction: ``"pooled"`` over all voxels, or ``"case"``, the mean over cases. None is
                ``"case"`` for Dice and ``"pooled"`` for all others.

        Raises:
            ValueError: There is no such metric, the words needed were not kept, or no case ids were
                given.

        Example:
            >>> import torch
            >>> from fastcal import CalibrationStatistics
            >>> statistics = CalibrationStatistics(num_classes=2)
            >>> statistics.update(torch.tensor([[[0.75], [0.25]]]), torch.tensor([[0]]))
            >>> statistics.measure("mce") == statistics.ece("max") == 0.25
            True
        """
        chosen = as_measure(measure)
        reduction = reduction or chosen.metric.reduction
        if reduction == "pooled" or not chosen.metric.per_class:
            found = measured(self.rows(reduction), chosen)
            return float(values.mean_over_cases(found) if reduction == "case" else found)
        of_classes = self.per_class(chosen, reduction)
        if chosen.class_index is None:
            return float(mean_of_classes(of_classes, chosen, self.settings))
        check_class(chosen.class_index, len(of_classes))
        return float(of_classes[chosen.class_index])

    def per_class(
        self, measure: Measure | str = "classwise_ece", reduction: Reduction | None = None
    ) -> Floats:
        """Return a metric of classes for each class, ``[C]``; see `measure` for ``reduction``.

        Raises:
            ValueError: See `measure`; or the metric is one number.
        """
        chosen = as_measure(measure)
        if not chosen.metric.per_class:
            raise ValueError(f"measure must be a metric of classes, got {chosen.name!r}")
        reduction = reduction or chosen.metric.reduction
        found = chosen.metric.read(self.rows(reduction), chosen)
        return values.mean_over_cases(found) if reduction == "case" else found

    def per_case(self, measure: Measure | str = "ece") -> dict[str, float]:
        """Return a measure of each case, by case id in the order of first appearance.

        Raises:
            ValueError: See `measure`.

        Example:
            >>> import torch
            >>> from fastcal import CalibrationStatistics
            >>> statistics = CalibrationStatistics(num_classes=2)
            >>> probs = torch.tensor([[[0.75], [0.25]], [[0.5], [0.5]]])
            >>> statistics.update(probs, torch.tensor([[0], [0]]), case_id=["a", "b"])
            >>> statistics.per_case("ece")
            {'a': 0.25, 'b': 0.5}
        """
        found = measured(self.rows("case"), as_measure(measure))
        return dict(zip(self.case_ids, found.tolist(), strict=True))

    # Calibration errors

    def ece(
        self,
        norm: Norm = "l1",
        reduction: Reduction = "pooled",
        *,
        kind: Kind | None = None,
        debias: bool = False,
        min_count: int = 0,
    ) -> float:
        """Expected calibration error over the bins.

        With D_b of N samples in bin b, ``l1`` is ``sum_b D_b / N |acc_b - conf_b|`` (Naeini et
        al., AAAI 2015; Guo et al., ICML 2017), ``l2`` its root-mean-square form, and ``max`` the
        largest gap (MCE). Empty bins add nothing.

        Args:
            norm: ``"l1"``, ``"l2"`` or ``"max"``.
            reduction: ``"pooled"`` over all voxels, or ``"case"``, the mean over cases.
            kind: ``"top-label"``: confidence against correctness, the default for more than one
                class. ``"positive"``: the probability of the positive class (the second of two)
                against the target, the default for binary data and defined for at most two
                classes. A convention may have another default.
            debias: With ``norm="l2"``, subtract the variance of each bin's accuracy,
                ``acc (1 - acc) / (D - 1)``, by which few samples per bin inflate the error; the sum
                does not fall below 0 (Kumar et al., NeurIPS 2019). Voxels count as independent.
            min_count: Bins with this many samples or fewer add nothing (the paper's code has the
                option). They still count in N.

        Returns:
            A fraction, or per cent where `CalibrationStatistics.percent` is True.

        Raises:
            ValueError: The bins needed were not kept, or no case ids were given.
        """
        return self.measure(Measure("ece", norm, debias, min_count, kind), reduction)

    def ace(self, reduction: Reduction = "pooled", *, kind: Kind | None = None) -> float:
        """Average calibration error: the mean gap of the bins that are not empty.

        Every bin has the same weight, whatever it holds (Neumann et al., NeurIPS workshop 2018;
        MONAI's ``"average"``). This is not the adaptive error of Nixon et al., whose bins hold
        equal numbers of samples. See `ece` for the arguments.
        """
        return self.measure(Measure("ace", kind=kind), reduction)

    def classwise_ece(
        self,
        norm: Norm = "l1",
        reduction: Reduction = "pooled",
        *,
        debias: bool = False,
        min_count: int = 0,
    ) -> Floats:
        """Calibration error of each class's probability against its presence, ``[C]``.

        One-vs-rest; its mean is the static calibration error (Nixon et al., CVPRW 2019). See
        `ece` for the arguments and for what is raised.
        """
        return self.per_class(Measure("classwise_ece", norm, debias, min_count), reduction)

    def classwise_ace(self, reduction: Reduction = "pooled") -> Floats:
        """Average calibration error of each class's probability against its presence, ``[C]``.

        Barfoot et al. (MICCAI 2024) average it over classes and images (mL1-ACE). See `ace`.
        """
        return self.per_class("classwise_ace", reduction)

    def micro_ece(self, norm: Norm = "l1", reduction: Reduction = "pooled") -> float:
        """Calibration error of all classes' probabilities in one histogram.

        Every voxel is C samples, the probability of each class against its presence. Opposite gaps
        of two classes can cancel. See `ece` for the arguments and for what is raised.
        """
        return self.measure(Measure("micro_ece", norm), reduction)

    def adaptive_ece(
        self, norm: Norm = "l1", reduction: Reduction = "pooled", *, kind: Kind | None = None
    ) -> float:
        """Calibration error over ``n_bins`` bins that hold equal numbers of samples.

        The samples are sorted by confidence and cut in parts whose sizes differ by at most one
        (Nguyen and O'Connor, EMNLP 2015), where `ece` has bins of equal width. Against the sorted
        samples, ``l1`` is off by at most ``8 / R`` plus ``n_c / (2 N)`` for each cut that runs
        through a cell of n_c of N samples. Samples of equal confidence always share a cell; their
        order is arbitrary there too. See `ece` for the arguments.
        """
        return self.measure(Measure("adaptive_ece", norm, kind=kind), reduction)

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
        return self.per_class(measure, reduction)

    def tace(
        self, threshold: float = 0.01, norm: Norm = "l1", reduction: Reduction = "pooled"
    ) -> float:
        """Thresholded adaptive calibration error (Nixon et al., CVPRW 2019).

        The mean over classes of `classwise_adaptive_ece` of the probabilities of at least
        ``threshold``: the many voxels in which a class is out of the question no longer drown the
        others.
        """
        return self.measure(Measure("tace", norm, threshold=threshold), reduction)

    # Scores

    def brier(self, reduction: Reduction = "pooled") -> float:
        """Brier score: squared error summed over classes, mean over voxels (Brier, 1950).

        In [0, 2] for normalised probabilities, in [0, C] otherwise.
        """
        return self.measure("brier", reduction)

    def brier_decomposition(self) -> BrierParts:
        """The pooled Brier score as reliability, resolution and uncertainty over the bins.

        ``brier = reliability - resolution + uncertainty + within_bins`` (Murphy, 1973; the last
        term Stephenson et al., Weather and Forecasting 2008), each summed over the classes'
        one-vs-rest histograms. The first three are exact, and so is the last as what is left of
        the score. With ``moments=True``, which keeps the sums of p^2 and p y of every bin, its two
        halves are exact too: ``within_bins = within_variance - within_covariance``. The parts of
        one case are ``case(case_id).brier_decomposition()``.

        Raises:
            ValueError: Classwise bins were not kept.

        Example:
            >>> import torch
            >>> from fastcal import CalibrationStatistics
            >>> statistics = CalibrationStatistics(num_classes=1, n_bins=2)
            >>> probs = torch.tensor([[0.25, 0.25, 0.75, 0.75]])
            >>> statistics.update(probs, torch.tensor([[0, 1, 1, 1]]))
            >>> statistics.brier_decomposition()  # doctest: +NORMALIZE_WHITESPACE
            BrierParts(brier=0.1875, reliability=0.0625, resolution=0.0625, uncertainty=0.1875,
                       within_bins=0.0, within_variance=None, within_covariance=None)
        """
        return brier_parts(self.rows())

    def nll(self, reduction: Reduction = "pooled") -> float:
        """Negative log-likelihood in nats, ``-ln max(p_target, eps)``, mean over voxels."""
        return self.measure("nll", reduction)

    def accuracy(self, reduction: Reduction = "pooled") -> float:
        """Share of voxels (of voxels and classes when multilabel) labelled as the target."""
        return self.measure("accuracy", reduction)

    def dice(self, reduction: Reduction = "case", *, background: bool = False) -> float:
        """Dice coefficient: the mean over cases, then over the classes but the background.

        ``per_class("dice")`` gives each class, ``[C]``. It is NaN where neither target nor
        prediction has the class; such cases are left out of the class's mean, and a class without
        any case out of the mean over classes.

        Args:
            reduction: ``"case"``, or ``"pooled"`` for the Dice of all voxels as one volume.
            background: Whether class 0 counts among the classes.

        Raises:
            ValueError: No case ids were given for ``reduction="case"``.
        """
        return self.measure(Measure("dice", background=background), reduction)

    def volume_bias(self, reduction: Reduction = "pooled") -> Floats:
        """Soft volume less reference volume of each class, ``sum p - sum y`` in voxels, ``[C]``.

        A network can be well calibrated voxel by voxel in the mean and still over- or
        underestimate every structure (Popordanoska et al., MICCAI 2021). The number is signed: with
        ``reduction="case"`` cases of opposite bias cancel.

        Raises:
            ValueError: Classwise bins were not kept, or no case ids were given.
        """
        return self.per_class("volume_bias", reduction)

    # Order

    def auroc(self, reduction: Reduction = "pooled", *, kind: Kind | None = None) -> float:
        """Area under the ROC curve: does the confidence tell right voxels from wrong ones?

        The probability that a right voxel has more confidence than a wrong one, with 1/2 for ties
        (Hendrycks and Gimpel, ICLR 2017). For binary data, and with ``kind="positive"``, it is the
        probability that a voxel of the class has a higher p than another. NaN without one of each.
        Voxels of one cell count as ties: with h right and m wrong voxels in a cell, and H and M in
        all, it is off by at most ``sum h m / (2 H M)``.
        """
        return self.measure(Measure("auroc", kind=kind), reduction)

    def classwise_auroc(self, reduction: Reduction = "pooled") -> Floats:
        """`auroc` of each class's probability against its presence, one-vs-rest, ``[C]``."""
        return self.per_class("classwise_auroc", reduction)

    def aurc(self, reduction: Reduction = "pooled") -> float:
        """Area under the risk-coverage curve (Geifman and El-Yaniv, NeurIPS 2017).

        The error rate of the k most confident voxels, mean over all k. It falls with better
        confidence and with better labels alike: `e_aurc` takes off the second. Within a cell errors
        are spread evenly: with n voxels in a cell, e of them wrong, and K more confident ones, it
        is off by at most ``sum e (n - e) / n ln(1 + n / K) / N`` (``ln n + 1`` for the first cell).
        """
        return self.measure("aurc", reduction)

    def e_aurc(self, reduction: Reduction = "pooled") -> float:
        """Excess of `aurc` over that of the same labels in the best order.

        In that order every wrong voxel comes after every right one (Geifman et al., ICLR 2019).
        """
        return self.measure("e_aurc", reduction)

    # Curves, all pooled

    def reliability(self, class_index: int | None = None) -> Reliability:
        """The reliability diagram, pooled.

        Args:
            class_index: One class against the rest, instead of the top label (of the positive class
                for binary data).

        Raises:
            TypeError, ValueError: There is no such class, or the bins needed were not kept.
        """
        return curves.reliability(self.rows(), class_index)

    def confidence_histogram(self, *, fine: bool = False) -> OutcomeHistogram:
        """Right and wrong voxels by confidence, pooled, over the bins; exact.

        Every decision is one sample when multilabel, of confidence ``max(p, 1 - p)``.

        Args:
            fine: Over the fine cells instead, where ``fine_bins`` kept some.

        Raises:
            ValueError: The bins or cells were not kept.
        """
        return curves.confidence_histogram(self.rows(), fine=fine)

    def entropy_histogram(self) -> OutcomeHistogram:
        """Right and wrong voxels by the entropy of their prediction, pooled.

        Equal bins over [0, ln C]; the last one is open above for probabilities that do not sum to
        1. When multilabel every decision is one sample, over [0, ln 2]. Exact except for entropies
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
        return curves.entropy_histogram(self.rows())

    def risk_coverage(self) -> RiskCoverage:
        """The risk-coverage curve, pooled: error rate of the most confident voxels by their share.

        Exact at its points, the edges of cells.

        Raises:
            ValueError: Fine cells of the confidence were not kept.

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
        return curves.risk_coverage(self.rows())
