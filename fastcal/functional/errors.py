"""Calibration errors, by task."""

from __future__ import annotations

from typing import Literal

from fastcal.calibration import CalibrationKind, CalibrationStatistics, ConventionName, Norm, values
from fastcal.core.arguments import whole_number
from fastcal.core.arrays import Array
from fastcal.functional.batch import Batch

Average = Literal["macro", "micro", "none"] | None


def multiclass_calibration_error(
    preds: Array,
    target: Array,
    num_classes: int,
    n_bins: int = 15,
    norm: Norm = "l1",
    ignore_index: int | None = None,
    validate_args: bool = True,
    *,
    from_logits: bool = False,
    mask: Array | None = None,
    convention: ConventionName = "default",
) -> Array:
    """Return the top-label calibration error: confidence against correctness.

    Args:
        preds: ``[B, C, *S]``, probabilities.
        target: ``[B, *S]``, integers in [0, C).
        num_classes: C.
        n_bins: Bins of equal width.
        norm: ``"l1"`` (ECE), ``"l2"`` (RMSCE) or ``"max"`` (MCE); formulas in
            `CalibrationStatistics.ece`.
        ignore_index: Target value that is left out.
        validate_args: False leaves voxels without valid probabilities (NaN) out instead of raising.
        from_logits: ``preds`` are logits, to which a softmax is applied.
        mask: bool ``[B, *S]``, True keeps.
        convention: Whose edges, zeros and ones; see `CalibrationStatistics.preset`.

    Raises:
        TypeError, ValueError: An argument does not fit; the message names it.

    Example:
        >>> import torch
        >>> preds = torch.tensor(
        ...     [[0.25, 0.20, 0.55], [0.55, 0.05, 0.40], [0.10, 0.30, 0.60], [0.90, 0.05, 0.05]]
        ... )
        >>> target = torch.tensor([0, 1, 2, 0])
        >>> error = multiclass_calibration_error(preds, target, num_classes=3, n_bins=3)
        >>> round(error.item(), 4)
        0.2
    """
    batch = Batch(preds, target, ignore_index, mask, from_logits, validate_args)
    counted = batch.counted(
        CalibrationStatistics.preset(
            convention, num_classes, n_bins=n_bins, calibration="top-label"
        )
    )
    return batch.result(counted.ece(norm, kind="top-label"))


def binary_calibration_error(
    preds: Array,
    target: Array,
    n_bins: int = 15,
    norm: Norm = "l1",
    ignore_index: int | None = None,
    validate_args: bool = True,
    *,
    from_logits: bool = False,
    mask: Array | None = None,
    convention: ConventionName = "default",
) -> Array:
    """Return the calibration error of the positive class's probability against the target.

    ``preds`` are ``[B, *S]`` (or ``[B, 1, *S]``), probabilities of the positive class, or logits,
    to which a sigmoid is applied, with ``from_logits=True``. ``target`` is ``[B, *S]`` of 0 and 1.
    The other arguments are those of `multiclass_calibration_error`.

    Example:
        >>> import torch
        >>> preds = torch.tensor([0.25, 0.25, 0.55, 0.75, 0.75])
        >>> target = torch.tensor([0, 0, 1, 1, 1])
        >>> round(binary_calibration_error(preds, target, n_bins=2, norm="max").item(), 4)
        0.3167
    """
    batch = Batch(preds, target, ignore_index, mask, from_logits, validate_args)
    counted = batch.counted(
        CalibrationStatistics.preset(convention, 1, n_bins=n_bins, calibration="classwise")
    )
    return batch.result(counted.ece(norm, kind="positive"))


def multilabel_calibration_error(
    preds: Array,
    target: Array,
    num_labels: int,
    n_bins: int = 15,
    norm: Norm = "l1",
    average: Average = "macro",
    ignore_index: int | None = None,
    validate_args: bool = True,
    *,
    from_logits: bool = False,
    mask: Array | None = None,
    convention: ConventionName = "default",
) -> Array:
    """Return the calibration error of each label's probability against its target.

    Args:
        preds: ``[B, L, *S]``, independent probabilities.
        target: ``[B, L, *S]`` of 0 and 1.
        num_labels: L.
        n_bins: See `multiclass_calibration_error`.
        norm: See `multiclass_calibration_error`.
        average: ``"macro"``: the mean over labels. ``"none"`` or None: one number per label,
            ``[L]``. ``"micro"``: the samples of all labels share one histogram, in which opposite
            gaps can cancel.
        ignore_index: A voxel is left out for all labels where the target of any label is this.
        validate_args: See `multiclass_calibration_error`.
        from_logits: ``preds`` are logits, to which a sigmoid is applied.
        mask: See `multiclass_calibration_error`.
        convention: See `multiclass_calibration_error`.

    Raises:
        TypeError, ValueError: An argument does not fit; the message names it.

    Example:
        >>> import torch
        >>> preds = torch.tensor([[0.75, 0.5], [0.75, 0.5]])
        >>> target = torch.tensor([[1, 0], [1, 0]])
        >>> multilabel_calibration_error(preds, target, num_labels=2, average="none")
        tensor([0.2500, 0.5000], dtype=torch.float64)
    """
    if whole_number(num_labels, "num_labels") < 1:
        raise ValueError(f"num_labels must be at least 1, got {num_labels}")
    batch = Batch(preds, target, ignore_index, mask, from_logits, validate_args)
    counted = batch.counted(
        CalibrationStatistics.preset(
            convention, num_labels, n_bins=n_bins, calibration="classwise", multilabel=True
        )
    )
    return batch.result(_averaged(counted, norm, average, ("macro", "micro", "none")))


def classwise_calibration_error(
    preds: Array,
    target: Array,
    num_classes: int,
    n_bins: int = 15,
    norm: Norm = "l1",
    average: Literal["macro", "none"] | None = "macro",
    ignore_index: int | None = None,
    validate_args: bool = True,
    *,
    from_logits: bool = False,
    mask: Array | None = None,
    convention: ConventionName = "default",
) -> Array:
    """Return the calibration error of each class's probability against its presence.

    One-vs-rest; the macro average is the static calibration error (Nixon et al., CVPRW 2019).
    ``average`` is ``"macro"`` for the mean over classes, and ``"none"`` or None for one number per
    class, ``[C]``. The other arguments are those of `multiclass_calibration_error`.

    Example:
        >>> import torch
        >>> preds, target = torch.tensor([[0.75, 0.25], [0.75, 0.25]]), torch.tensor([0, 0])
        >>> classwise_calibration_error(preds, target, num_classes=2).item()
        0.25
    """
    batch = Batch(preds, target, ignore_index, mask, from_logits, validate_args)
    counted = batch.counted(
        CalibrationStatistics.preset(
            convention, num_classes, n_bins=n_bins, calibration="classwise"
        )
    )
    return batch.result(_averaged(counted, norm, average, ("macro", "none")))


def adaptive_calibration_error(
    preds: Array,
    target: Array,
    num_classes: int,
    n_bins: int = 15,
    norm: Norm = "l1",
    ignore_index: int | None = None,
    *,
    threshold: float | None = None,
    from_logits: bool = False,
    mask: Array | None = None,
) -> Array:
    """Return the calibration error over bins that hold equal numbers of samples.

    It is off by at most 1.2e-4 and what the cut cells cost; see
    `CalibrationStatistics.adaptive_ece`. With ``threshold=None`` it is the error of the confidence.
    With a number it is `CalibrationStatistics.tace`, the mean over classes of the errors of the
    probabilities that reach the threshold; 0 leaves none out. The other arguments are those of
    `multiclass_calibration_error`.

    Example:
        >>> import torch
        >>> preds = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
        >>> error = adaptive_calibration_error(preds, torch.tensor([0, 0, 1, 0]), 2, n_bins=2)
        >>> round(error.item(), 3)
        0.15
    """
    calibration: CalibrationKind = "top-label" if threshold is None else "classwise"
    batch = Batch(preds, target, ignore_index, mask, from_logits)
    counted = batch.ordered(num_classes, n_bins, calibration)
    if threshold is None:
        return batch.result(counted.adaptive_ece(norm))
    return batch.result(counted.tace(threshold, norm))


def _averaged(
    counted: CalibrationStatistics, norm: Norm, average: str | None, allowed: tuple[str, ...]
) -> Array:
    average = "none" if average is None else average
    if average not in allowed:
        raise ValueError(f"average must be one of {allowed}, got {average!r}")
    if average == "micro":
        return counted.micro_ece(norm)
    errors = counted.classwise_ece(norm)
    return errors if average == "none" else values.mean_over_classes(errors)
