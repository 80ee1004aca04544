"""Reading calibration statistics: every metric, pooled or by case, from a state of integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastcal import bins
from fastcal.arguments import whole_number
from fastcal.calibration import values
from fastcal.calibration.state import CalibrationState
from fastcal.calibration.values import NORMS, Floats, Integers, Norm
from fastcal.problem import StatisticsLayout

Mode = Literal["both", "top-label", "classwise"]
Reduction = Literal["pooled", "case"]
Kind = Literal["top-label", "positive"]


@dataclass(frozen=True, slots=True)
class Reliability:
    """One reliability diagram; arrays over the bins, NaN for the means of an empty bin."""

    edges: Floats
    """``[n_bins + 1]``"""
    count: Integers
    """``[n_bins]``"""
    mean_confidence: Floats
    """``[n_bins]``, mean confidence (or probability of the class) in the bin."""
    accuracy: Floats
    """``[n_bins]``, share of hits (or of the class) in the bin."""


class CalibrationMetrics:
    """What can be read from a state; how it fills is `CalibrationStatistics`."""

    num_classes: int
    n_bins: int
    closed: bins.Closed
    mode: Mode
    multilabel: bool
    eps: float | None
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
        self, norm: Norm = "l1", reduction: Reduction = "pooled", *, kind: Kind | None = None
    ) -> float:
        """Expected calibration error over the bins.

        With D_b of N samples in bin b: ``l1`` is ``sum_b D_b / N |acc_b - conf_b|`` (Naeini et
        al., AAAI 2015; Guo et al., ICML 2017), ``l2`` its root-mean-square form, ``max`` the
        largest gap (MCE). Empty bins add nothing; nothing counted gives NaN.

        Args:
            norm: ``"l1"``, ``"l2"`` or ``"max"``.
            reduction: ``"pooled"`` over all voxels, or ``"case"``, the mean over cases.
            kind: ``"top-label"``, confidence against correctness, the default for more than one
                class; ``"positive"``, the probability of the positive class against the target,
                the default for binary data and defined for them alone.

        Raises:
            ValueError: The bins needed were not kept, or no case ids were given.
        """
        _check_norm(norm)
        if kind is None:
            kind = "positive" if self.num_classes == 1 and self.mode != "top-label" else "top-label"
        rows = self._rows(reduction)
        error = values.calibration_error(self._bins(rows, kind), norm)
        return float(_reduced(error, reduction))

    def classwise_ece(self, norm: Norm = "l1", reduction: Reduction = "pooled") -> Floats:
        """Calibration error of each class's probability against its presence, ``[C]``.

        One-vs-rest; the static calibration error (Nixon et al., CVPRW 2019) is its mean. See
        `ece` for the norms and for what is raised.
        """
        _check_norm(norm)
        rows = self._rows(reduction)
        self._need("classwise", "top-label")
        histograms = values.classwise_bins(rows, self._state.layout)
        return _reduced(values.calibration_error(histograms, norm), reduction)

    def brier(self, reduction: Reduction = "pooled") -> float:
        """Brier score: squared error summed over classes, mean over voxels; in [0, 2] for
        normalised probabilities, in [0, C] otherwise."""
        rows = self._rows(reduction)
        return float(_reduced(values.brier(rows, self._state.layout), reduction))

    def nll(self, reduction: Reduction = "pooled") -> float:
        """Negative log-likelihood in nats, ``-ln max(p_target, eps)``, mean over voxels."""
        rows = self._rows(reduction)
        return float(_reduced(values.nll(rows, self._state.layout), reduction))

    def accuracy(self, reduction: Reduction = "pooled") -> float:
        """Share of voxels (of voxels and classes when multilabel) labelled as the target."""
        decisions = self.num_classes if self.multilabel else 1
        rows = self._rows(reduction)
        share = values.accuracy(rows, self._state.layout, decisions)
        return float(_reduced(share, reduction))

    def dice(self, reduction: Reduction = "pooled") -> Floats:
        """Dice coefficient of each class, ``[C]``; NaN where neither target nor prediction has it.

        With ``reduction="case"`` such cases are left out of the class's mean.
        """
        rows = self._rows(reduction)
        return _reduced(values.dice(rows, self._state.layout), reduction)

    def reliability(self, class_index: int | None = None) -> Reliability:
        """The reliability diagram, pooled: top-label (positive class for binary data), or of one
        class.

        Raises:
            ValueError: There is no such class, or the bins needed were not kept.
        """
        total = self._state.total
        if class_index is None:
            positive = self.num_classes == 1 and self.mode != "top-label"
            found = self._bins(total, "positive" if positive else "top-label")
        else:
            class_index = whole_number(class_index, "class_index")
            if not 0 <= class_index < self.num_classes:
                raise ValueError(
                    f"class_index must be in [0, {self.num_classes}), got {class_index}"
                )
            self._need("classwise", "top-label")
            found = values.classwise_bins(total, self._state.layout)[class_index]
        count, hits, whole, fraction = found.T
        return Reliability(
            edges=bins.edges(self.n_bins),
            count=count.copy(),
            mean_confidence=values.mean_of_sum(whole, fraction, count),
            accuracy=values.ratio(hits, count),
        )

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

    def _bins(self, rows: Integers, kind: str) -> Integers:
        if kind == "positive":
            if self.num_classes != 1:
                raise ValueError(f"kind='positive' is for 1 class, got {self.num_classes}")
            self._need("classwise", "top-label")
            return values.classwise_bins(rows, self._state.layout)[..., 0, :, :]
        if kind != "top-label":
            raise ValueError(f"kind must be 'top-label' or 'positive', got {kind!r}")
        self._need("top-label", "classwise")
        return values.top_label_bins(rows, self._state.layout)

    def _need(self, what: str, missing_in: str) -> None:
        if self.mode == missing_in:
            raise ValueError(f"{what} bins were not kept: mode is {self.mode!r}")


def _check_norm(norm: str) -> None:
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {NORMS}, got {norm!r}")


def _reduced(found: Floats, reduction: str) -> Floats:
    return values.mean_over_cases(found) if reduction == "case" else found
