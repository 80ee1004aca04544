"""Proper scores, and how well the confidence orders right and wrong voxels."""

from __future__ import annotations

from typing import Literal

from fastcal.calibration import CalibrationStatistics
from fastcal.core.arguments import flag
from fastcal.core.arrays import Array, to_tensor
from fastcal.functional.batch import Batch

Task = Literal["binary", "multiclass", "multilabel"]


def brier_score(
    preds: Array,
    target: Array,
    task: Task = "multiclass",
    ignore_index: int | None = None,
    *,
    from_logits: bool = False,
    mask: Array | None = None,
) -> Array:
    """Return the Brier score: squared error summed over classes, mean over voxels (Brier, 1950).

    Args:
        preds: ``[B, C, *S]``, probabilities; ``[B, *S]`` for ``task="binary"``.
        target: ``[B, *S]``; ``[B, C, *S]`` of 0 and 1 for ``task="multilabel"``.
        task: ``"multiclass"``: in [0, 2]. ``"binary"``: of the positive class alone, in [0, 1].
            ``"multilabel"``: summed over labels, in [0, C].
        ignore_index: Target value that is left out.
        from_logits: ``preds`` are logits.
        mask: bool ``[B, *S]``, True keeps.

    Raises:
        TypeError, ValueError: An argument does not fit; the message names it.

    Example:
        >>> import torch
        >>> preds = torch.tensor([[0.2, 0.8], [0.4, 0.6]])
        >>> round(brier_score(preds, torch.tensor([1, 0])).item(), 4)
        0.4
    """
    batch = Batch(preds, target, ignore_index, mask, from_logits)
    return batch.result(_counted(batch, task).brier())


def negative_log_likelihood(
    preds: Array,
    target: Array,
    task: Task = "multiclass",
    ignore_index: int | None = None,
    *,
    from_logits: bool = False,
    mask: Array | None = None,
    eps: float | None = None,
) -> Array:
    """Return the negative log-likelihood in nats, ``-ln max(p_target, eps)``, mean over voxels.

    ``eps`` is the lower clip; None is the smallest normal number of the accumulation type. The
    other arguments are those of `brier_score`; labels are summed for ``task="multilabel"``.

    Example:
        >>> import torch
        >>> round(negative_log_likelihood(torch.tensor([[0.5, 0.5]]), torch.tensor([1])).item(), 4)
        0.6931
    """
    batch = Batch(preds, target, ignore_index, mask, from_logits)
    return batch.result(_counted(batch, task, eps).nll())


def confidence_auroc(
    preds: Array,
    target: Array,
    num_classes: int,
    ignore_index: int | None = None,
    *,
    from_logits: bool = False,
    mask: Array | None = None,
) -> Array:
    """Return the probability that a right voxel has more confidence than a wrong one.

    See `CalibrationStatistics.auroc`, and `multiclass_calibration_error` for the arguments.

    Example:
        >>> import torch
        >>> preds = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
        >>> confidence_auroc(preds, torch.tensor([0, 0, 1, 0]), num_classes=2).item()
        1.0
    """
    batch = Batch(preds, target, ignore_index, mask, from_logits)
    return batch.result(batch.ordered(num_classes).auroc(kind="top-label"))


def area_under_risk_coverage(
    preds: Array,
    target: Array,
    num_classes: int,
    ignore_index: int | None = None,
    *,
    excess: bool = False,
    from_logits: bool = False,
    mask: Array | None = None,
) -> Array:
    """Return the error rate of the k most confident voxels, mean over k.

    See `CalibrationStatistics.aurc`. ``excess`` subtracts that of the same labels in the best order
    (`CalibrationStatistics.e_aurc`). The other arguments are those of
    `multiclass_calibration_error`.

    Example:
        >>> import torch
        >>> preds = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
        >>> area = area_under_risk_coverage(preds, torch.tensor([0, 0, 1, 0]), num_classes=2)
        >>> round(area.item(), 4)
        0.0625
    """
    batch = Batch(preds, target, ignore_index, mask, from_logits)
    counted = batch.ordered(num_classes)
    return batch.result(counted.e_aurc() if flag(excess, "excess") else counted.aurc())


def _counted(batch: Batch, task: str, eps: float | None = None) -> CalibrationStatistics:
    if task not in ("binary", "multiclass", "multilabel"):
        raise ValueError(f"task must be 'binary', 'multiclass' or 'multilabel', got {task!r}")
    shape = to_tensor(batch.preds, "preds").shape
    if task != "binary" and len(shape) < 2:
        raise ValueError(f"preds must have shape [B, C, *S], got {tuple(shape)}")
    num_classes = 1 if task == "binary" else shape[1]
    if task == "multiclass" and num_classes == 1:
        raise ValueError("task must be 'binary' for preds of one class, got 'multiclass'")
    return batch.counted(
        CalibrationStatistics(
            num_classes, 1, calibration="top-label", multilabel=task == "multilabel", eps=eps
        )
    )
