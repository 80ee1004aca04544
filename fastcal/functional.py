"""One call a number: calibration errors, scores and entropies of tensors at hand.

Argument names are those of torchmetrics; the numbers are fastcal's own unless ``convention`` names
another library. ``preds`` are probabilities; logits need ``from_logits=True``, nothing is guessed.
For more than one volume, more than one number, or intervals over cases count once into
`fastcal.CalibrationStatistics`; for maps besides the entropies see `fastcal.ensemble_statistics`.

Results are float64 scalars or vectors: tensors on the CPU, or NumPy where ``preds`` are NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from fastcal.calibration import CalibrationKind, CalibrationStatistics, ConventionName, Norm, values
from fastcal.core.arguments import flag
from fastcal.core.arrays import Array, to_tensor
from fastcal.ensemble import ensemble_entropy, ensemble_statistics

Average = Literal["macro", "micro", "none"] | None
Task = Literal["binary", "multiclass", "multilabel"]

_UNNORMALISED = 0.05
"""How far from 1 the classes may sum, half precision included, before an axis is another."""


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
    """Top-label calibration error: confidence against correctness.

    Args:
        preds: ``[B, C, *S]``, probabilities.
        target: ``[B, *S]``, integers in [0, C).
        num_classes: C.
        n_bins: Bins of equal width.
        norm: ``"l1"`` (ECE), ``"l2"`` (RMSCE) or ``"max"`` (MCE); formulas in
            `CalibrationStatistics.ece`.
        ignore_index: Target value that is left out.
        validate_args: False leaves voxels without valid probabilities (NaN) out instead of raising.
        from_logits: ``preds`` are logits (softmax).
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
    counted = _count(
        preds,
        target,
        num_classes,
        n_bins,
        "top-label",
        False,
        ignore_index,
        from_logits,
        mask,
        convention,
        validate_args=validate_args,
    )
    return _result(counted.ece(norm, kind="top-label"), preds)


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
    """Calibration error of the positive class's probability against the target.

    Args:
        preds: ``[B, *S]`` (or ``[B, 1, *S]``), probabilities of the positive class.
        target: ``[B, *S]`` of 0 and 1.
        from_logits: ``preds`` are logits (sigmoid).

    The other arguments are those of `multiclass_calibration_error`.

    Example:
        >>> import torch
        >>> preds = torch.tensor([0.25, 0.25, 0.55, 0.75, 0.75])
        >>> target = torch.tensor([0, 0, 1, 1, 1])
        >>> round(binary_calibration_error(preds, target, n_bins=2, norm="max").item(), 4)
        0.3167
    """
    counted = _count(
        preds,
        target,
        1,
        n_bins,
        "classwise",
        False,
        ignore_index,
        from_logits,
        mask,
        convention,
        validate_args=validate_args,
    )
    return _result(counted.ece(norm, kind="positive"), preds)


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
    """Calibration error of each label's probability against its target.

    Args:
        preds: ``[B, L, *S]``, independent probabilities.
        target: ``[B, L, *S]`` of 0 and 1.
        num_labels: L.
        average: ``"macro"``: the mean over labels. ``"none"`` or None: one a label, ``[L]``.
            ``"micro"``: the labels' samples share one histogram, in which opposite gaps can cancel.
        ignore_index: A voxel is left out for all labels where any label's target is this.
        from_logits: ``preds`` are logits (sigmoid).

    The other arguments are those of `multiclass_calibration_error`.

    Example:
        >>> import torch
        >>> preds = torch.tensor([[0.75, 0.5], [0.75, 0.5]])
        >>> target = torch.tensor([[1, 0], [1, 0]])
        >>> multilabel_calibration_error(preds, target, num_labels=2, average="none")
        tensor([0.2500, 0.5000], dtype=torch.float64)
    """
    counted = _count(
        preds,
        target,
        num_labels,
        n_bins,
        "classwise",
        True,
        ignore_index,
        from_logits,
        mask,
        convention,
        validate_args=validate_args,
    )
    return _result(_averaged(counted, norm, average, ("macro", "micro", "none")), preds)


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
    """Calibration error of each class's probability against its presence, one-vs-rest.

    The macro average is the static calibration error (Nixon et al., CVPRW 2019).

    Args:
        average: ``"macro"``: the mean over classes. ``"none"`` or None: one a class, ``[C]``.

    The other arguments are those of `multiclass_calibration_error`.

    Example:
        >>> import torch
        >>> preds, target = torch.tensor([[0.75, 0.25], [0.75, 0.25]]), torch.tensor([0, 0])
        >>> classwise_calibration_error(preds, target, num_classes=2).item()
        0.25
    """
    counted = _count(
        preds,
        target,
        num_classes,
        n_bins,
        "classwise",
        False,
        ignore_index,
        from_logits,
        mask,
        convention,
        validate_args=validate_args,
    )
    return _result(_averaged(counted, norm, average, ("macro", "none")), preds)


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
    """Calibration error over bins of equal numbers of samples, off by 1.2e-4 at most and the cut
    cells; see `CalibrationStatistics.adaptive_ece`.

    Args:
        threshold: None: of the confidence. A number: `CalibrationStatistics.tace`, the mean over
            classes of the errors of the probabilities that reach it; 0 leaves none out.

    The other arguments are those of `multiclass_calibration_error`.

    Example:
        >>> import torch
        >>> preds = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
        >>> error = adaptive_calibration_error(preds, torch.tensor([0, 0, 1, 0]), 2, n_bins=2)
        >>> round(error.item(), 3)
        0.15
    """
    calibration: CalibrationKind = "top-label" if threshold is None else "classwise"
    counted = _ordered(
        preds, target, num_classes, n_bins, calibration, ignore_index, from_logits, mask
    )
    if threshold is None:
        return _result(counted.adaptive_ece(norm), preds)
    return _result(counted.tace(threshold, norm), preds)


def confidence_auroc(
    preds: Array,
    target: Array,
    num_classes: int,
    ignore_index: int | None = None,
    *,
    from_logits: bool = False,
    mask: Array | None = None,
) -> Array:
    """Probability that a right voxel has more confidence than a wrong one; see
    `CalibrationStatistics.auroc`, and `multiclass_calibration_error` for the arguments.

    Example:
        >>> import torch
        >>> preds = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
        >>> confidence_auroc(preds, torch.tensor([0, 0, 1, 0]), num_classes=2).item()
        1.0
    """
    counted = _ordered(preds, target, num_classes, 1, "top-label", ignore_index, from_logits, mask)
    return _result(counted.auroc(kind="top-label"), preds)


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
    """Error rate of the k most confident voxels, mean over k; see `CalibrationStatistics.aurc`.

    Args:
        excess: Less that of the same labels in the best order, `CalibrationStatistics.e_aurc`.

    The other arguments are those of `multiclass_calibration_error`.

    Example:
        >>> import torch
        >>> preds = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
        >>> area = area_under_risk_coverage(preds, torch.tensor([0, 0, 1, 0]), num_classes=2)
        >>> round(area.item(), 4)
        0.0625
    """
    counted = _ordered(preds, target, num_classes, 1, "top-label", ignore_index, from_logits, mask)
    return _result(counted.e_aurc() if flag(excess, "excess") else counted.aurc(), preds)


def _ordered(
    preds: Array,
    target: Array,
    num_classes: int,
    n_bins: int,
    calibration: CalibrationKind,
    ignore_index: int | None,
    from_logits: bool,
    mask: Array | None,
) -> CalibrationStatistics:
    counted = CalibrationStatistics(num_classes, n_bins, calibration=calibration, fine_bins=65536)
    counted.update(preds, target, mask=mask, ignore_index=ignore_index, from_logits=from_logits)
    return counted


def brier_score(
    preds: Array,
    target: Array,
    task: Task = "multiclass",
    ignore_index: int | None = None,
    *,
    from_logits: bool = False,
    mask: Array | None = None,
) -> Array:
    """Brier score: squared error summed over classes, mean over voxels (Brier, 1950).

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
    counted = _score(preds, target, task, ignore_index, from_logits, mask, None)
    return _result(counted.brier(), preds)


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
    """Negative log-likelihood in nats, ``-ln max(p_target, eps)``, mean over voxels.

    Args:
        eps: Lower clip; the smallest normal number of the accumulation type if None.

    The other arguments are those of `brier_score`; labels are summed for ``task="multilabel"``.

    Example:
        >>> import torch
        >>> round(negative_log_likelihood(torch.tensor([[0.5, 0.5]]), torch.tensor([1])).item(), 4)
        0.6931
    """
    counted = _score(preds, target, task, ignore_index, from_logits, mask, eps)
    return _result(counted.nll(), preds)


def predictive_entropy(
    preds: Array | Sequence[Array], *, from_logits: bool = False, multilabel: bool = False
) -> Array:
    """Entropy of a prediction, or of the mean of M members, in nats, ``[B, *S]``.

    Args:
        preds: One prediction ``[B, C, *S]``, or a list of M members of that shape: probabilities.
        from_logits: They are logits.
        multilabel: Every class is a Bernoulli of its own; entropies are summed.

    Returns:
        float32 (float64 for float64 members); NaN for invalid voxels.

    Raises:
        TypeError, ValueError: An argument does not fit; an array of probabilities whose classes do
            not sum to 1, such as one of stacked members.

    Example:
        >>> import torch
        >>> predictive_entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
        tensor([0.6931, 0.0000])
        >>> predictive_entropy([torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])])
        tensor([0.6931])
    """
    if not isinstance(preds, list | tuple):
        if not from_logits and not multilabel:
            _check_classes(preds, 1, "one prediction [B, C, *S]; members go in a list")
        preds = [preds]
    return ensemble_entropy(preds, from_logits=from_logits, multilabel=multilabel)


def expected_entropy(
    preds: Array | Sequence[Array], *, from_logits: bool = False, multilabel: bool = False
) -> Array:
    """Mean entropy of M members, in nats, ``[B, *S]``: what no further member would take away.

    Args:
        preds: List of M members ``[B, C, *S]``, or one tensor ``[M, B, C, *S]``: probabilities.

    The other arguments and the result are those of `predictive_entropy`.

    Example:
        >>> import torch
        >>> expected_entropy([torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])])
        tensor([0.])
    """
    _check_members(preds, from_logits, multilabel)
    found = ensemble_statistics(
        preds, maps="expected_entropy", from_logits=from_logits, multilabel=multilabel
    )
    return found.expected_entropy


def mutual_information(
    preds: Array | Sequence[Array], *, from_logits: bool = False, multilabel: bool = False
) -> Array:
    """Predictive less expected entropy, in nats, ``[B, *S]``: how much the members disagree.

    Arguments and result are those of `expected_entropy` (Houlsby et al., 2011: BALD).

    Example:
        >>> import torch
        >>> mutual_information([torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])])
        tensor([0.6931])
    """
    _check_members(preds, from_logits, multilabel)
    found = ensemble_statistics(
        preds, maps="mutual_information", from_logits=from_logits, multilabel=multilabel
    )
    return found.mutual_information


def _check_members(preds: Array | Sequence[Array], from_logits: bool, multilabel: bool) -> None:
    if not isinstance(preds, list | tuple) and not from_logits and not multilabel:
        _check_classes(preds, 2, "members [M, B, C, *S]")


def _check_classes(preds: Array, axis: int, what: str) -> None:
    """Raise a ValueError where an array of another layout is taken for ``what``."""
    values = to_tensor(preds, "preds")
    if values.dim() <= axis:
        raise ValueError(f"preds must be {what}; got shape {tuple(values.shape)}")
    excess = (values.sum(axis, dtype=torch.float32) - 1).abs()
    if bool((excess > _UNNORMALISED).any()):
        raise ValueError(
            f"preds of shape {tuple(values.shape)} do not sum to 1 over axis {axis}, the classes "
            f"of {what}"
        )


def _count(
    preds: Array,
    target: Array,
    num_classes: int,
    n_bins: int,
    calibration: CalibrationKind,
    multilabel: bool,
    ignore_index: int | None,
    from_logits: bool,
    mask: Array | None,
    convention: ConventionName,
    eps: float | None = None,
    validate_args: bool = True,
) -> CalibrationStatistics:
    counted = CalibrationStatistics.preset(
        convention,
        num_classes,
        n_bins=n_bins,
        calibration=calibration,
        multilabel=multilabel,
        eps=eps,
    )
    counted.update(
        preds,
        target,
        mask=mask,
        ignore_index=ignore_index,
        from_logits=from_logits,
        nan_policy="raise" if flag(validate_args, "validate_args") else "omit",
    )
    return counted


def _score(
    preds: Array,
    target: Array,
    task: str,
    ignore_index: int | None,
    from_logits: bool,
    mask: Array | None,
    eps: float | None,
) -> CalibrationStatistics:
    if task not in ("binary", "multiclass", "multilabel"):
        raise ValueError(f"task must be 'binary', 'multiclass' or 'multilabel', got {task!r}")
    shape = to_tensor(preds, "preds").shape
    if task != "binary" and len(shape) < 2:
        raise ValueError(f"preds must have shape [B, C, *S], got {tuple(shape)}")
    num_classes = 1 if task == "binary" else shape[1]
    if task == "multiclass" and num_classes == 1:
        raise ValueError("preds have one class: pass task='binary'")
    return _count(
        preds,
        target,
        num_classes,
        1,
        "top-label",
        task == "multilabel",
        ignore_index,
        from_logits,
        mask,
        "default",
        eps,
    )


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


def _result(found: Array, preds: Array) -> Array:
    numbers = np.array(found, dtype=np.float64)
    return numbers[()] if isinstance(preds, np.ndarray) else torch.from_numpy(numbers)
