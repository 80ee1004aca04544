"""What every loss checks of its arguments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

HEADS = ("softmax", "sigmoid")


def check_head(head: str, name: str = "head") -> str:
    """``head``, if it is one of `HEADS`.

    Raises:
        ValueError: it is not; the message calls it ``name``.
    """
    if head not in HEADS:
        raise ValueError(f"{name}: got {head!r}, expected 'softmax' or 'sigmoid'")
    return head


def check_reduction(reduction: str, known: Sequence[str]) -> str:
    """``reduction``, if it is known.

    Raises:
        ValueError: it is not.
    """
    if reduction not in known:
        raise ValueError(f"reduction: got {reduction!r}, expected one of {tuple(known)}")
    return reduction


def class_weights(weight: Sequence[float] | Tensor | None) -> Tensor | None:
    """One number a class as float64, or None.

    Raises:
        ValueError: not one number >= 0 a class.
    """
    if weight is None:
        return None
    weights = torch.as_tensor(weight, dtype=torch.float64)
    if weights.ndim != 1 or not bool((weights >= 0).all()):
        raise ValueError(f"weight: got {weight!r}, expected one number >= 0 a class")
    return weights


def check_shapes(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
    """Logits ``[B, C, *S]``, integers ``[B, *S]`` and one weight a class.

    Raises:
        TypeError: the target holds no integers.
        ValueError: shapes that do not match, or a weight that is not one a class.
    """
    expected = (logits.shape[0], *logits.shape[2:])
    if tuple(target.shape) != expected:
        raise ValueError(
            f"target: got shape {tuple(target.shape)}, expected {expected} "
            f"for logits {tuple(logits.shape)}"
        )
    if target.is_floating_point():
        raise TypeError(f"target: got {target.dtype}, expected an integer type")
    if weight is not None and weight.numel() != logits.shape[1]:
        raise ValueError(
            f"weight: got {weight.numel()} numbers, expected one a class: {logits.shape[1]}"
        )


def check_logits(logits: Tensor, target: Tensor, weight: Tensor | None, head: str) -> None:
    """As `check_shapes`, and a type and number of classes that the fused passes take.

    Raises:
        TypeError: the target holds no integers, or the logits are no floating-point numbers.
        ValueError: shapes that do not match, or a softmax of one class.
    """
    check_shapes(logits, target, weight)
    if not logits.is_floating_point():
        raise TypeError(f"logits: got {logits.dtype}, expected a floating-point type")
    if head == "softmax" and logits.shape[1] == 1:
        raise ValueError("head: got 'softmax', but of one class it is 1; use 'sigmoid'")


def loss_value(value: Tensor, logits: Tensor) -> Tensor:
    """A loss as users get it: float32, or float64 for such logits."""
    return value if logits.dtype == torch.float64 else value.float()


def without_ignored(target: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor | None]:
    """Targets as int64 with class 0 where they are ignored, and the mask of what is kept.

    The mask is None where nothing can be ignored.
    """
    target = target.long()
    if ignore_index is None:
        return target, None
    kept = target != ignore_index
    return target.masked_fill(~kept, 0), kept


def one_hot(target: Tensor, like: Tensor) -> Tensor:
    """``target`` ``[B, *S]`` as zeros and ones of the shape and type of ``like`` ``[B, C, *S]``."""
    classes = torch.arange(like.shape[1], device=like.device)
    shape = (1, -1, *(1,) * (target.ndim - 1))
    return (target.unsqueeze(1) == classes.view(shape)).to(like.dtype)


def real_logits(logits: Tensor) -> Tensor:
    """Logits as float32, or float64 where they are: what losses reckon in."""
    return logits if logits.dtype == torch.float64 else logits.float()


def kept_mean(values: Tensor, kept: Tensor | None) -> Tensor:
    """Mean of ``values`` ``[B, *S]`` over the voxels kept; 0 where there are none."""
    if kept is None:
        return values.mean()
    return values.masked_fill(~kept, 0.0).sum() / kept.sum().clamp(min=1)
