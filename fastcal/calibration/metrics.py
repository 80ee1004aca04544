"""Reading calibration statistics: every metric, pooled or by case, from a state of integers."""

from __future__ import annotations

from fastcal.calibration import conventions, values
from fastcal.calibration.conventions import ConventionName
from fastcal.calibration.measures import (
    CalibrationKind,
    Kind,
    Measure,
    MeasureName,
    Norm,
    Reduction,
)
from fastcal.calibration.state import CalibrationState
from fastcal.calibration.values import BrierParts, Floats, Integers
from fastcal.core import bins
from fastcal.core.problem import StatisticsLayout


class CalibrationMetrics:
    """What can be read from a state; how it fills is `CalibrationStatistics`."""

    num_classes: int
    n_bins: int
    closed: bins.Closed
    calibration: CalibrationKind
    multilabel: bool
    eps: float | None
    convention: ConventionName
    fine_bins: int
    moments: bool
    entropy_bins: int
    regions: tuple[str, ...]
    _state: CalibrationState

    @property
    def n_voxels(self) -> int:
        """Voxels counted."""
        return self._count(StatisticsLayout.N_VOXELS)

    @property
    def n_invalid(self) -> int:
        """Voxels left out for want of valid probabilities (``nan_policy="omit"``)."""
        return self._count(StatisticsLayout.N_INVALID)

    @property
    def n_clipped(self) -> int:
        """Probabilities of the target that were below ``eps`` and clipped in the NLL."""
        return self._count(StatisticsLayout.N_CLIPPED)

    @property
    def percent(self) -> bool:
        """Whether calibration errors are in %, as in the paper's convention, not fractions."""
        return conventions.find(self.convention).percent

    @property
    def case_ids(self) -> tuple[str, ...]:
        """Every case seen, in the order of first appearance."""
        return self._state.case_ids

    @property
    def predicted(self) -> Integers:
        """Voxels predicted as each class, ``[C]``."""
        return self._state.total[self._state.layout.predicted].copy()

    @property
    def reference(self) -> Integers:
        """Voxels whose target is each class, ``[C]``."""
        return self._state.total[self._state.layout.reference].copy()

    @property
    def true_positive(self) -> Integers:
        """Voxels of each class that are predicted as it, ``[C]``."""
        return self._state.total[self._state.layout.true_positive].copy()

    def _count(self, word: int) -> int:
        return int(self._state.total[word])

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

        With D_b of N samples in bin b: ``l1`` is ``sum_b D_b / N |acc_b - conf_b|`` (Naeini et
        al., AAAI 2015; Guo et al., ICML 2017), ``l2`` its root-mean-square form, ``max`` the
        largest gap (MCE). Empty bins add nothing; nothing counted gives NaN.

        Args:
            norm: ``"l1"``, ``"l2"`` or ``"max"``.
            reduction: ``"pooled"`` over all voxels, or ``"case"``, the mean over cases.
            kind: ``"top-label"``, confidence against correctness, the default for more than one
                class; ``"positive"``, the probability of the positive class (the second of two)
                against the target, the default for binary data and defined for at most two
                classes. A convention may have another default.
            debias: With ``norm="l2"``, subtract the variance of each bin's accuracy, which few
                samples a bin inflate the error by: ``acc (1 - acc) / (D - 1)`` a bin, the sum not
                below 0 (Kumar et al., NeurIPS 2019). It treats voxels as independent.
            min_count: Bins with this many samples or fewer add nothing (the paper's code has the
                option); they stay in N.

        Returns:
            A fraction; % where `percent` is True.

        Raises:
            ValueError: The bins needed were not kept, or no case ids were given.
        """
        return self._scalar(Measure("ece", norm, debias, min_count, kind), reduction)

    def ace(self, reduction: Reduction = "pooled", *, kind: Kind | None = None) -> float:
        """Average calibration error: the mean gap of the bins that are not empty.

        Every bin weighs the same, whatever it holds (Neumann et al., NeurIPS workshop 2018;
        MONAI's ``"average"``). This is not the adaptive error of Nixon et al., whose bins hold
        equal numbers of samples. See `ece` for the arguments.
        """
        return self._scalar(Measure("ace", kind=kind), reduction)

    def classwise_ece(
        self,
        norm: Norm = "l1",
        reduction: Reduction = "pooled",
        *,
        debias: bool = False,
        min_count: int = 0,
    ) -> Floats:
        """Calibration error of each class's probability against its presence, ``[C]``.

        One-vs-rest; the static calibration error (Nixon et al., CVPRW 2019) is its mean. See
        `ece` for the arguments and for what is raised.
        """
        return self._vector(Measure("classwise_ece", norm, debias, min_count), reduction)

    def classwise_ace(self, reduction: Reduction = "pooled") -> Floats:
        """Average calibration error of each class, ``[C]``: `ace` of its probability against its
        presence. Barfoot et al. (MICCAI 2024) average it over classes and images (mL1-ACE)."""
        return self._vector(Measure("classwise_ace"), reduction)

    def micro_ece(self, norm: Norm = "l1", reduction: Reduction = "pooled") -> float:
        """Calibration error of all classes' probabilities in one histogram.

        Every voxel is C samples, the probability of each class against its presence; opposite gaps
        of two classes can cancel. See `ece` for the arguments and for what is raised.
        """
        return self._scalar(Measure("micro_ece", norm), reduction)

    def brier(self, reduction: Reduction = "pooled") -> float:
        """Brier score: squared error summed over classes, mean over voxels; in [0, 2] for
        normalised probabilities, in [0, C] otherwise."""
        return self._scalar(Measure("brier"), reduction)

    def brier_decomposition(self) -> BrierParts:
        """The pooled Brier score as reliability, resolution and uncertainty over the bins.

        ``brier = reliability - resolution + uncertainty + within_bins`` (Murphy, 1973; the last
        term Stephenson et al., Weather and Forecasting 2008), each summed over the classes'
        one-vs-rest histograms. The first three are exact, and so is the last as what is left of
        the score. Where ``moments=True`` kept the sums of p^2 and p y of every bin, its two halves
        are exact too: ``within_bins = within_variance - within_covariance``. For the parts of one
        case take ``case(case_id).brier_decomposition()``.

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
        self._need("classwise", "top-label")
        return values.brier_parts(self._state.total, self._state.layout)

    def nll(self, reduction: Reduction = "pooled") -> float:
        """Negative log-likelihood in nats, ``-ln max(p_target, eps)``, mean over voxels."""
        return self._scalar(Measure("nll"), reduction)

    def accuracy(self, reduction: Reduction = "pooled") -> float:
        """Share of voxels (of voxels and classes when multilabel) labelled as the target."""
        return self._scalar(Measure("accuracy"), reduction)

    def dice(self, reduction: Reduction = "pooled") -> Floats:
        """Dice coefficient of each class, ``[C]``; NaN where neither target nor prediction has it.

        With ``reduction="case"`` such cases are left out of the class's mean.
        """
        return self._vector(Measure("dice"), reduction)

    def volume_bias(self, reduction: Reduction = "pooled") -> Floats:
        """Soft volume less reference volume of each class, ``sum p - sum y`` in voxels, ``[C]``.

        A network can be well calibrated voxel by voxel in the mean and still over- or
        underestimate every structure (Popordanoska et al., MICCAI 2021). It
        is signed: with ``reduction="case"`` cases of opposite bias cancel.

        Raises:
            ValueError: Classwise bins were not kept, or no case ids were given.
        """
        return self._vector(Measure("volume_bias"), reduction)

    def per_case(self, measure: Measure | MeasureName = "ece") -> dict[str, float]:
        """A measure of each case, by case id in the order of first appearance.

        Raises:
            ValueError: No case ids were given, or the bins needed were not kept.

        Example:
            >>> import torch
            >>> from fastcal import CalibrationStatistics
            >>> statistics = CalibrationStatistics(num_classes=2)
            >>> probs = torch.tensor([[[0.75], [0.25]], [[0.5], [0.5]]])
            >>> statistics.update(probs, torch.tensor([[0], [0]]), case_id=["a", "b"])
            >>> statistics.per_case("ece")
            {'a': 0.25, 'b': 0.5}
        """
        found = self.measured(self._rows("case"), as_measure(measure))
        return dict(zip(self.case_ids, found.tolist(), strict=True))

    def measured(self, rows: Integers, measure: Measure) -> Floats:
        """One number a row of the state, ``[...]`` of rows ``[..., W]``."""
        found = self._of_rows(rows, measure)
        if not measure.of_classes:
            return found
        if measure.class_index is None:
            return values.mean_over_classes(found)
        self._check_class(measure.class_index)
        return found[..., measure.class_index]

    def words_of(self, measure: Measure) -> slice:
        """Which words of a row, beside those before the bins, a measure reads."""
        layout = self._state.layout
        if measure.name.startswith(("classwise", "micro", "volume")):
            return layout.classwise
        if measure.name in ("ece", "ace"):
            positive = self._kind(measure.kind) == "positive"
            return layout.classwise if positive else layout.top_label
        return slice(0, 0)

    def _of_rows(self, rows: Integers, measure: Measure) -> Floats:
        """``[...]``, or ``[..., C]`` for the measures of classes."""
        layout, name = self._state.layout, measure.name
        if name == "brier":
            return values.brier(rows, layout)
        if name == "nll":
            return values.nll(rows, layout)
        if name == "accuracy":
            return values.accuracy(rows, layout, self.num_classes if self.multilabel else 1)
        if name == "dice":
            return values.dice(rows, layout)
        if name in ("ece", "ace"):
            histograms = self._histogram(rows, measure.kind)
        else:
            self._need("classwise", "top-label")
            if name == "volume_bias":
                return values.volume_bias(rows, layout)
            micro = name == "micro_ece"
            histograms = (values.micro_bins if micro else values.classwise_bins)(rows, layout)
        return values.calibration_error(
            self._binned(histograms),
            "mean" if name.endswith("ace") else measure.norm,
            total=histograms[..., 0].sum(-1),
            debias=measure.debias,
            min_count=measure.min_count,
            scale=100 if self.percent else 1,
        )

    def _scalar(self, measure: Measure, reduction: str) -> float:
        return float(self._vector(measure, reduction))

    def _vector(self, measure: Measure, reduction: str) -> Floats:
        found = self._of_rows(self._rows(reduction), measure)
        return values.mean_over_cases(found) if reduction == "case" else found

    def _rows(self, reduction: str) -> Integers:
        """``[W]`` pooled, ``[n_cases, W]`` by case."""
        if reduction == "pooled":
            return self._state.total
        if reduction != "case":
            raise ValueError(f"reduction must be 'pooled' or 'case', got {reduction!r}")
        rows = self._state.case_rows
        if len(rows) == 0:
            raise ValueError("reduction='case' needs case ids: pass case_id with every update")
        without = self.n_voxels - int(rows[:, StatisticsLayout.N_VOXELS].sum())
        if without:
            raise ValueError(
                "reduction='case' needs case ids: pass case_id with every update; "
                f"{without} of {self.n_voxels} voxels came without"
            )
        return rows

    def _kind(self, kind: Kind | None) -> Kind:
        if kind is not None:
            return kind
        positive = conventions.find(self.convention).positive
        if self.num_classes in positive and self.calibration != "top-label":
            return "positive"
        return "top-label"

    def _histogram(self, rows: Integers, kind: Kind | None) -> Integers:
        """``[..., n_cells, 4]``"""
        if self._kind(kind) == "positive":
            self._check_positive()
            self._need("classwise", "top-label")
            return values.classwise_bins(rows, self._state.layout)[..., -1, :, :]
        self._need("top-label", "classwise")
        return values.top_label_bins(rows, self._state.layout)

    def _binned(self, histograms: Integers) -> Integers:
        """``[..., n_cells, 4]`` without the cell of the samples that are in no bin."""
        return histograms[..., int(conventions.find(self.convention).zeros_dropped) :, :]

    def _check_positive(self) -> None:
        if self.num_classes > 2:
            raise ValueError(f"kind='positive' is for 1 or 2 classes, got {self.num_classes}")

    def _check_class(self, class_index: int) -> None:
        if not 0 <= class_index < self.num_classes:
            raise ValueError(f"class_index must be in [0, {self.num_classes}), got {class_index}")

    def _need_fine(self) -> None:
        if self.fine_bins == 0:
            raise ValueError("fine cells were not kept: fine_bins is 0 (65536 is a good number)")

    def _need(self, what: str, missing_in: str) -> None:
        if self.calibration == missing_in:
            raise ValueError(f"{what} bins were not kept: calibration is {self.calibration!r}")


def as_measure(measure: Measure | MeasureName) -> Measure:
    """``measure``, made of its name where that is what was given."""
    return measure if isinstance(measure, Measure) else Measure(measure)
