"""Calibration errors, by task."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor
from torchmetrics import Metric

from fastcal.calibration import METRICS, CalibrationStatistics, ConventionName, Measure, Norm
from fastcal.core import bins
from fastcal.torchmetrics.base import CalibrationMetric, Task, check_several, checked_task, needed

Average = Literal["macro", "micro", "none"] | None


class _CalibrationError(CalibrationMetric):
    higher_is_better = METRICS["ece"].better == "higher"
    plot_upper_bound = 1.0

    # torch.jit.script reads every other property, and cannot convert what this one is read from.
    __jit_unused_properties__: ClassVar[list[str]] = [*Metric.__jit_unused_properties__, "n_bins"]

    def __init__(
        self,
        empty: CalibrationStatistics,
        norm: Norm,
        ignore_index: int | None,
        validate_args: bool,
        from_logits: bool,
        kwargs: dict[str, Any],
    ) -> None:
        measure = Measure("ece", norm)
        super().__init__(empty, measure, ignore_index, validate_args, from_logits, kwargs)
        self.norm: Norm = norm

    @property
    def n_bins(self) -> int:
        """Bins of equal width over [0, 1]."""
        return self._empty.n_bins


class BinaryCalibrationError(_CalibrationError):
    """Calibration error of the positive class's probability.

    Args:
        n_bins: Bins of equal width over [0, 1].
        norm: ``"l1"`` (ECE), ``"l2"`` (RMSCE) or ``"max"`` (MCE).
        ignore_index: Target value that is left out.
        validate_args: False leaves voxels without valid probabilities (NaN) out instead of raising.
        from_logits: ``preds`` are logits; False: probabilities. Never guessed.
        closed: ``"right"``: bins (lo, hi]; ``"left"``: [lo, hi). The end bins hold 0 and 1. None is
            ``"right"``, or what the convention has.
        convention: Whose edges, zeros and ones are used; ``"torchmetrics"`` reproduces its numbers
            bin by bin. See `CalibrationStatistics`.
        fine_bins: Fine cells, a power of two, for the measures of order that ``statistics()`` then
            has: ``adaptive_ece``, ``auroc``, ``aurc`` and their kin. 0 keeps none.
        kwargs: Arguments of `torchmetrics.Metric`.

    ``update(preds [N, ...] floating point, target [N, ...] of 0 and 1)``; ``compute()`` is a
    scalar of the metric's ``dtype`` (float32; ``set_dtype`` for more), NaN where nothing was
    counted.

    Raises:
        TypeError, ValueError: An argument is not one of these.

    Example:
        >>> from torch import tensor
        >>> metric = BinaryCalibrationError(n_bins=2)
        >>> metric(tensor([0.25, 0.25, 0.55, 0.75, 0.75]), tensor([0, 0, 1, 1, 1]))
        tensor(0.2900)
    """

    def __init__(
        self,
        n_bins: int = 15,
        norm: Norm = "l1",
        ignore_index: int | None = None,
        validate_args: bool = True,
        *,
        from_logits: bool = False,
        closed: bins.Closed | None = None,
        convention: ConventionName = "default",
        fine_bins: int = 0,
        **kwargs: Any,
    ) -> None:
        empty = CalibrationStatistics(
            1, n_bins, closed, "classwise", convention=convention, fine_bins=fine_bins
        )
        super().__init__(empty, norm, ignore_index, validate_args, from_logits, kwargs)


class MulticlassCalibrationError(_CalibrationError):
    """Top-label calibration error: the confidence of the label against its correctness.

    Args:
        num_classes: C.
        n_bins: See `BinaryCalibrationError`, also for the other arguments.

    ``update(preds [N, C, ...], target [N, ...] in [0, C))``; ``compute()`` is a scalar.

    Example:
        >>> from torch import tensor
        >>> preds = tensor(
        ...     [[0.25, 0.20, 0.55], [0.55, 0.05, 0.40], [0.10, 0.30, 0.60], [0.90, 0.05, 0.05]]
        ... )
        >>> metric = MulticlassCalibrationError(num_classes=3, n_bins=3)
        >>> metric(preds, tensor([0, 1, 2, 0]))
        tensor(0.2000)
    """

    def __init__(
        self,
        num_classes: int,
        n_bins: int = 15,
        norm: Norm = "l1",
        ignore_index: int | None = None,
        validate_args: bool = True,
        *,
        from_logits: bool = False,
        closed: bins.Closed | None = None,
        convention: ConventionName = "default",
        fine_bins: int = 0,
        **kwargs: Any,
    ) -> None:
        check_several(num_classes, "num_classes")
        empty = CalibrationStatistics(
            num_classes,
            n_bins,
            closed,
            "top-label",
            convention=convention,
            fine_bins=fine_bins,
        )
        super().__init__(empty, norm, ignore_index, validate_args, from_logits, kwargs)


class _EveryClassError(_CalibrationError):
    """Calibration error of each class's probability, averaged or not."""

    plot_legend_name = "Class"

    def __init__(
        self,
        empty: CalibrationStatistics,
        norm: Norm,
        average: Average,
        ignore_index: int | None,
        validate_args: bool,
        from_logits: bool,
        kwargs: dict[str, Any],
    ) -> None:
        allowed = ("macro", "micro", "none") if empty.multilabel else ("macro", "none")
        if average not in (*allowed, None):
            raise ValueError(f"average must be one of {allowed}, got {average!r}")
        super().__init__(empty, norm, ignore_index, validate_args, from_logits, kwargs)
        self.average: Average = average or "none"

    def compute(self) -> Tensor:
        """Return the error, averaged or for each class; NaN where nothing was counted."""
        statistics = self._statistics()
        if self.average == "micro":
            return self._value(statistics.micro_ece(self.norm))
        errors = statistics.classwise_ece(self.norm)
        return self._value(errors.mean() if self.average == "macro" else errors)


class ClasswiseCalibrationError(_EveryClassError):
    """Calibration error of every class's probability against its presence, one-vs-rest.

    Args:
        num_classes: C.
        n_bins: See `BinaryCalibrationError`, also for the arguments not listed here.
        average: ``"macro"``, the mean over classes (the static calibration error of Nixon et al.,
            CVPRW 2019), or ``"none"`` (or None), one number per class.

    ``update(preds [N, C, ...], target [N, ...] in [0, C))``; ``compute()`` is a scalar, or
    ``[C]``.

    Example:
        >>> from torch import tensor
        >>> metric = ClasswiseCalibrationError(num_classes=2, average="none")
        >>> metric(tensor([[0.75, 0.25], [0.5, 0.5]]), tensor([0, 0]))
        tensor([0.3750, 0.3750])
    """

    def __init__(
        self,
        num_classes: int,
        n_bins: int = 15,
        norm: Norm = "l1",
        average: Literal["macro", "none"] | None = "macro",
        ignore_index: int | None = None,
        validate_args: bool = True,
        *,
        from_logits: bool = False,
        closed: bins.Closed | None = None,
        convention: ConventionName = "default",
        fine_bins: int = 0,
        **kwargs: Any,
    ) -> None:
        check_several(num_classes, "num_classes")
        empty = CalibrationStatistics(
            num_classes,
            n_bins,
            closed,
            "classwise",
            convention=convention,
            fine_bins=fine_bins,
        )
        super().__init__(empty, norm, average, ignore_index, validate_args, from_logits, kwargs)


class MultilabelCalibrationError(_EveryClassError):
    """Calibration error of every label's probability against its presence.

    Args:
        num_labels: Labels, each a Bernoulli of its own.
        n_bins: See `BinaryCalibrationError`, also for the arguments not listed here.
        average: ``"macro"``, the mean over labels; ``"none"`` (or None), one number per label; or
            ``"micro"``, the samples of all labels in one histogram, in which opposite gaps can
            cancel.
        ignore_index: A voxel with this target in any of its labels is left out.

    ``update(preds [N, L, ...], target [N, L, ...] of 0 and 1)``; ``compute()`` is a scalar, or
    ``[L]``.

    Example:
        >>> from torch import tensor
        >>> metric = MultilabelCalibrationError(num_labels=2, average="none")
        >>> metric(tensor([[0.75, 0.25], [0.5, 0.5]]), tensor([[1, 1], [1, 0]]))
        tensor([0.3750, 0.6250])
    """

    def __init__(
        self,
        num_labels: int,
        n_bins: int = 15,
        norm: Norm = "l1",
        average: Average = "macro",
        ignore_index: int | None = None,
        validate_args: bool = True,
        *,
        from_logits: bool = False,
        closed: bins.Closed | None = None,
        convention: ConventionName = "default",
        fine_bins: int = 0,
        **kwargs: Any,
    ) -> None:
        check_several(num_labels, "num_labels")
        empty = CalibrationStatistics(
            num_labels,
            n_bins,
            closed,
            "classwise",
            multilabel=True,
            convention=convention,
            fine_bins=fine_bins,
        )
        super().__init__(empty, norm, average, ignore_index, validate_args, from_logits, kwargs)


class CalibrationError(Metric):
    """`BinaryCalibrationError`, `MulticlassCalibrationError` or `MultilabelCalibrationError`.

    Args:
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.
        n_bins: See `BinaryCalibrationError`.
        norm: See `BinaryCalibrationError`.
        num_classes: For ``"multiclass"``.
        ignore_index: See `BinaryCalibrationError`.
        validate_args: See `BinaryCalibrationError`.
        num_labels: For ``"multilabel"``.
        kwargs: Other arguments of the metric of that task.

    Raises:
        ValueError: The task is unknown, or lacks its number of classes.
    """

    def __new__(  # type: ignore[misc]
        cls,
        task: Task,
        n_bins: int = 15,
        norm: Norm = "l1",
        num_classes: int | None = None,
        ignore_index: int | None = None,
        validate_args: bool = True,
        *,
        num_labels: int | None = None,
        **kwargs: Any,
    ) -> Metric:
        """Make the metric of the task."""
        shared: dict[str, Any] = {
            **kwargs,
            "n_bins": n_bins,
            "norm": norm,
            "ignore_index": ignore_index,
            "validate_args": validate_args,
        }
        match checked_task(task):
            case "binary":
                return BinaryCalibrationError(**shared)
            case "multiclass":
                return MulticlassCalibrationError(needed(num_classes, "num_classes"), **shared)
            case _:
                return MultilabelCalibrationError(needed(num_labels, "num_labels"), **shared)
