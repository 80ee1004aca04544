"""The members of an ensemble as users give them, checked once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastcal.core.arguments import flag, real_number, whole_number
from fastcal.core.arrays import Array, real_dtype, to_tensor

ACTIVATIONS = ("softmax", "sigmoid")
SPACES = ("prob", "logit")

MANY_CLASSES = 256
"""More classes than this are more likely a spatial axis taken for the class axis."""


@dataclass(slots=True)
class Members:
    """Tensors of one shape, type and device, with their weights and temperatures."""

    tensors: list[Tensor]
    weights: list[float]
    temperatures: list[float]
    class_dim: int
    """Not negative."""
    num_classes: int
    real: torch.dtype
    """The accumulation type."""
    numpy: bool
    """The first member was a NumPy array."""

    @property
    def voxel_shape(self) -> tuple[int, ...]:
        shape = self.tensors[0].shape
        return (*shape[: self.class_dim], *shape[self.class_dim + 1 :])


def read_members(
    preds: Array | Sequence[Array],
    class_dim: int,
    weights: Sequence[float] | Array | None,
    temperature: float | Sequence[float] | Array,
) -> Members:
    """Check ``preds`` and what belongs to each member; a member of weight 0 is left out.

    Raises:
        TypeError, ValueError: An argument is not what the public functions document.
    """
    if isinstance(preds, list | tuple):
        numpy = len(preds) > 0 and isinstance(preds[0], np.ndarray)
        tensors = [
            member
            if type(member) is Tensor
            and not member.requires_grad
            and member.layout is torch.strided
            else to_tensor(member, f"preds[{index}]")
            for index, member in enumerate(preds)
        ]
    else:
        whole = to_tensor(preds, "preds")
        numpy = isinstance(preds, np.ndarray)
        if whole.dim() < 2:
            raise ValueError(
                "preds must be a list of members [B, C, *S] or one tensor [M, B, C, *S], "
                f"got a tensor of shape {tuple(whole.shape)}"
            )
        tensors = list(whole.unbind(0))
    if not tensors:
        raise ValueError("preds must hold at least one member, got none")
    first = tensors[0]
    axis = check_member(first, class_dim, "preds[0]", stacklevel=4)
    for index, member in enumerate(tensors):
        if member.shape != first.shape:
            raise ValueError(
                f"members must have one shape: preds[0] has {tuple(first.shape)}, "
                f"preds[{index}] has {tuple(member.shape)}"
            )
        if member.dtype != first.dtype or member.device != first.device:
            raise ValueError(
                f"members must have one type and device: preds[0] is {first.dtype} on "
                f"{first.device}, preds[{index}] is {member.dtype} on {member.device}"
            )
    n_members = len(tensors)
    if isinstance(temperature, float | int) or getattr(temperature, "ndim", None) == 0:
        temperatures = [check_temperature(temperature, "temperature")] * n_members
    else:
        temperatures = [
            check_temperature(value, f"temperature[{index}]")
            for index, value in enumerate(_listed(temperature, "temperature", n_members))
        ]
    if weights is None:
        chosen = [1.0] * n_members
    else:
        chosen = [
            check_weight(value, f"weights[{index}]")
            for index, value in enumerate(_listed(weights, "weights", n_members))
        ]
        kept = [index for index, weight in enumerate(chosen) if weight > 0]
        if not kept:
            raise ValueError(f"weights must not all be 0, got {chosen}")
        if len(kept) < n_members:
            tensors = [tensors[index] for index in kept]
            temperatures = [temperatures[index] for index in kept]
            chosen = [chosen[index] for index in kept]
    return Members(
        tensors, chosen, temperatures, axis, first.shape[axis], real_dtype(first, "preds"), numpy
    )


def check_member(member: Tensor, class_dim: int, name: str, *, stacklevel: int = 3) -> int:
    """The class axis of one member, counted from the front; its device and classes checked.

    ``stacklevel`` leads a warning to the user's line.
    """
    if member.device.type not in ("cpu", "cuda"):
        raise ValueError(f"{name} must be on the CPU or a CUDA device, got {member.device}")
    dims, class_dim = member.dim(), whole_number(class_dim, "class_dim")
    if not -dims <= class_dim < dims:
        raise ValueError(
            f"class_dim must be an axis of a member, got {class_dim} for {name} of shape "
            f"{tuple(member.shape)}"
        )
    axis = class_dim % dims
    num_classes = member.shape[axis]
    if num_classes == 0:
        raise ValueError(f"{name} has no classes: shape {tuple(member.shape)}, class_dim {axis}")
    if num_classes > MANY_CLASSES and not torch.compiler.is_compiling():
        warnings.warn(
            f"{name} of shape {tuple(member.shape)} has {num_classes} classes along axis {axis}; "
            "if that axis is a spatial one, pass class_dim",
            stacklevel=stacklevel,
        )
    return axis


def check_weight(weight: object, name: str) -> float:
    number = real_number(weight, name)
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} must be finite and not negative, got {number:g}")
    return number


def check_temperature(temperature: object, name: str) -> float:
    number = real_number(temperature, name)
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be finite and positive, got {number:g}")
    return number


def check_reading(from_logits: bool, activation: str, multilabel: bool, space: str) -> str:
    """The activation in use: ``multilabel`` always means the sigmoid."""
    flag(from_logits, "from_logits")
    flag(multilabel, "multilabel")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {ACTIVATIONS}, got {activation!r}")
    if space not in SPACES:
        raise ValueError(f"space must be one of {SPACES}, got {space!r}")
    return "sigmoid" if multilabel else activation


def _listed(values: Sequence[float] | Array, name: str, n_members: int) -> Sequence[object]:
    listed = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(listed, list | tuple):
        raise TypeError(f"{name} must be numbers, one a member, got {type(values).__name__}")
    if len(listed) != n_members:
        raise ValueError(f"{name} must have one number a member: {n_members}, got {len(listed)}")
    return listed
