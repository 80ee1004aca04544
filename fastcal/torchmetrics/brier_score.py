"""Brier scores, by task."""

from __future__ import annotations

from typing import Any

from torchmetrics import Metric

from fastcal.calibration import METRICS, CalibrationStatistics, Measure
from fastcal.torchmetrics.base import CalibrationMetric, Task, check_several, checked_task, needed


class _BrierScore(CalibrationMetric):
    higher_is_better = METRICS["brier"].better == "higher"

    def __init__(
        self,
        num_classes: int,
        multilabel: bool,
        ignore_index: int | None,
        validate_args: bool,
        from_logits: bool,
        kwargs: dict[str, Any],
    ) -> None:
        empty = CalibrationStatistics(
            num_classes, 1, calibration="top-label", multilabel=multilabel
        )
        super().__init__(empty, Measure("brier"), ignore_index, validate_args, from_logits, kwargs)


class BinaryBrierScore(_BrierScore):
    """Mean squared error of the positive class's probability, in [0, 1].

    Args:
        ignore_index: See `BinaryCalibrationError`, also for the other arguments.

    ``update(preds [N, ...], target [N, ...] of 0 and 1)``; ``compute()`` is a scalar.

    Example:
        >>> from torch import tensor
        >>> metric = BinaryBrierScore()
        >>> metric(tensor([0.5, 1.0]), tensor([1, 1]))
        tensor(0.1250)
    """

    def __init__(
        self,
        ignore_index: int | None = None,
        validate_args: bool = True,
        *,
        from_logits: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(1, True, ignore_index, validate_args, from_logits, kwargs)


class MulticlassBrierScore(_BrierScore):
    """Squared error of the probabilities summed over classes, mean over voxels, in [0, 2].

    Args:
        num_classes: C.
        ignore_index: See `BinaryCalibrationError`, also for the other arguments.

    ``update(preds [N, C, ...], target [N, ...] in [0, C))``; ``compute()`` is a scalar.

    Source: Brier, Monthly Weather Review 78, 1950.

    Example:
        >>> from torch import tensor
        >>> metric = MulticlassBrierScore(num_classes=2)
        >>> metric(tensor([[0.2, 0.8], [0.4, 0.6]]), tensor([1, 0]))
        tensor(0.4000)
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int | None = None,
        validate_args: bool = True,
        *,
        from_logits: bool = False,
        **kwargs: Any,
    ) -> None:
        check_several(num_classes, "num_classes")
        super().__init__(num_classes, False, ignore_index, validate_args, from_logits, kwargs)


class MultilabelBrierScore(_BrierScore):
    """Squared error of every label's probability, summed over labels, mean over voxels.

    Args:
        num_labels: L.
        ignore_index: See `MultilabelCalibrationError`, also for the other arguments.

    ``update(preds [N, L, ...], target [N, L, ...] of 0 and 1)``; ``compute()`` is a scalar in
    [0, L].
    """

    def __init__(
        self,
        num_labels: int,
        ignore_index: int | None = None,
        validate_args: bool = True,
        *,
        from_logits: bool = False,
        **kwargs: Any,
    ) -> None:
        check_several(num_labels, "num_labels")
        super().__init__(num_labels, True, ignore_index, validate_args, from_logits, kwargs)


class BrierScore(Metric):
    """`BinaryBrierScore`, `MulticlassBrierScore` or `MultilabelBrierScore`.

    Args:
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.
        num_classes: For ``"multiclass"``.
        num_labels: For ``"multilabel"``.
        kwargs: Other arguments of the metric of that task.

    Raises:
        ValueError: The task is another, or lacks its number of classes.
    """

    def __new__(  # type: ignore[misc]
        cls,
        task: Task,
        num_classes: int | None = None,
        num_labels: int | None = None,
        **kwargs: Any,
    ) -> Metric:
        """Make the metric of the task."""
        match checked_task(task):
            case "binary":
                return BinaryBrierScore(**kwargs)
            case "multiclass":
                return MulticlassBrierScore(needed(num_classes, "num_classes"), **kwargs)
            case _:
                return MultilabelBrierScore(needed(num_labels, "num_labels"), **kwargs)
