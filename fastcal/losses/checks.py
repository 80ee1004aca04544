"""Checks of arguments and conversions that the losses share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

HEADS = ("softmax", "sigmoid")


def check_head(head: str, name: str = "head") -> str:
    """Return ``head`` if it is one of `HEADS`.

    Raises:
        ValueError: It is not; the message calls the argument ``name``.
    """
    if head not in HEADS:
        raise ValueError(f"{name} must be 'softmax' or 'sigmoid', got {head!r}")
    return head


def check_reduction(reduction: str, known: Sequence[str]) -> str:
    """Return ``reduction`` if it is known.

    Raises:
        ValueError: It is not.
    """
    if reduction not in known:
        *others, last = map(repr, known)
        raise ValueError(f"reduction must be {', '.join(others)} or {last}, got {reduction!r}")
    return reduction


def class_weights(weight: Sequence[float] | Tensor | None) -> Tensor | None:
    """Return one number per class as a float64 tensor, or None.

    Raises:
        ValueError: The numbers are negative, or not in one axis.
    """
    if weight is None:
        return None
    weights = torch.as_tensor(weight, dtype=torch.float64)
    if weights.ndim != 1 or not bool((weights >= 0).all()):
        raise ValueError(f"weight must hold one number of at least 0 per class, got {weight!r}")
    return weights


def check_shapes(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
    """Check logits ``[B, C, *S]``, an integer target ``[B, *S]`` and one weight per class.

    Raises:
        TypeError: The target does not hold integers.
        ValueError: Shapes do not match, or there is not one weight per class.
    """
    expected = (logits.shape[0], *logits.shape[2:])
    if tuple(target.shape) != expected:
        raise ValueError(
            f"target must have shape {expected} for logits of shape {tuple(logits.shape)}, "
            f"got {tuple(target.shape)}"
        )
    if target.is_floating_point():
        raise TypeError(f"target must hold integers, got {target.dtype}")
    if weight is not None and weight.numel() != logits.shape[1]:
        raise ValueError(
            f"weight must hold one number per class: {logits.shape[1]}, got {weight.numel()}"
        )


def check_logits(logits: Tensor, target: Tensor, weight: Tensor | None, head: str) -> None:
    """Check shapes as `check_shapes` does, and that the fused passes take the logits.

    Raises:
        TypeError: The target does not hold integers, or the logits are not floating-point numbers.
        ValueError: Shapes do not match, or there is a softmax of one class.
    """
    check_shapes(logits, target, weight)
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating-point numbers, got {logits.dtype}")
    if head == "softmax" and logits.shape[1] == 1:
        raise ValueError("head must be 'sigmoid' for logits of one class, got 'softmax'")


def outside_classes(target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Return what to add to a loss: 0, or NaN where a target is neither a class nor ignored.

    On a GPU the question whether there is one would wait for the device, as in the fused passes.

    Args:
        target: Integers ``[B, *S]``, as they were given.
        num_classes: C; one class is binary.
        ignore_index: See the losses.

    Raises:
        ValueError: There is such a target, on the CPU and outside of `torch.func.vmap`.
    """
    labels, top = target.long(), max(num_classes, 2)
    wrong = (labels < 0) | (labels >= top)
    if ignore_index is not None:
        wrong &= labels != ignore_index
    mapped = is_functorch_wrapped_tensor(wrong)  # in vmap nothing can be asked of the values
    if wrong.device.type == "cpu" and not mapped and bool(wrong.any()):
        found = labels[wrong]
        which = f"the value {int(found[0])}" if len(found) == 1 else f"{len(found)} other values"
        raise ValueError(f"target must hold 0 to {top - 1} or the ignore_index, got {which}")
    return torch.where(wrong.any(), torch.nan, 0.0)


def check_several_classes(logits: Tensor) -> None:
    """Refuse a softmax of one class, which is 1 everywhere, for a loss that has no other head.

    Raises:
        ValueError: There is one class.
    """
    if logits.ndim > 1 and logits.shape[1] == 1:
        raise ValueError(
            f"logits must have at least two classes for a softmax, got shape {tuple(logits.shape)}"
        )


def loss_value(value: Tensor, logits: Tensor) -> Tensor:
    """Return a loss as users get it: float32, or float64 for float64 logits."""
    return value if logits.dtype == torch.float64 else value.float()


def without_ignored(target: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor | None]:
    """Return int64 targets, with class 0 where they are ignored, and the mask of what is kept.

    The mask is None without an ``ignore_index``.
    """
    target = target.long()
    if ignore_index is None:
        return target, None
    kept = target != ignore_index
    return target.masked_fill(~kept, 0), kept


def one_hot(target: Tensor, like: Tensor) -> Tensor:
    """Encode a target ``[B, *S]`` as zeros and ones, with shape and type of ``like``."""
    classes = torch.arange(like.shape[1], device=like.device)
    shape = (1, -1, *(1,) * (target.ndim - 1))
    return (target.unsqueeze(1) == classes.view(shape)).to(like.dtype)


def real_logits(logits: Tensor) -> Tensor:
    """Return logits in the type in which losses are computed: float32, or float64 if they are."""
    return logits if logits.dtype == torch.float64 else logits.float()


def kept_mean(values: Tensor, kept: Tensor | None) -> Tensor:
    """Return the mean of ``values`` ``[B, *S]`` over the voxels kept; 0 where there are none."""
    if kept is None:
        return values.mean()
    return values.masked_fill(~kept, 0.0).sum() / kept.sum().clamp(min=1)
