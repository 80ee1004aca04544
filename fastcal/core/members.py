"""The members of an ensemble as users give them, checked once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastcal.core.arguments import choice, flag, real_number, whole_number
from fastcal.core.arrays import Array, real_dtype, to_tensor
from fastcal.core.predictions import Predictions, memory_order

ACTIVATIONS = ("softmax", "sigmoid")
SPACES = ("prob", "logit")

COLDEST, HOTTEST = 1e-6, 1e6
"""Range of temperatures. Powers of 1 / T up to the sixth are coefficients of float32 series."""

MANY_CLASSES = 256
"""An axis with more entries than this is more likely a spatial axis than the class axis."""

_FEWEST_SPATIAL = 8
"""An axis of space with fewer entries could as well be one of classes."""


class Members(NamedTuple):
    """Tensors of one shape, type and device, with their weights and temperatures."""

    tensors: list[Tensor]
    weights: list[float]
    """Multiplied by the power of two that brings the largest into [1, 2)."""
    temperatures: list[float]
    class_dim: int
    """Not negative."""
    real: torch.dtype
    """The accumulation type."""
    numpy: bool
    """The first member was a NumPy array."""

    def predictions(self, *, multilabel: bool) -> Predictions:
        """The shape and kind of the members.

        Raises:
            ValueError: See `check_several_classes`.
        """
        first = self.tensors[0]
        found = Predictions(
            first.shape,
            first.device,
            self.real,
            self.class_dim,
            multilabel,
            order=memory_order(first),
        )
        check_several_classes(found)
        return found


def read_members(
    preds: Array | Sequence[Array],
    class_dim: int,
    weights: Sequence[float] | Array | None,
    temperature: float | Sequence[float] | Array,
    *,
    confirmed: bool = False,
) -> Members:
    """Check ``preds`` and what belongs to each member. A member of weight 0 is left out.

    Args:
        preds: The members.
        class_dim: Their class axis.
        weights: One per member.
        temperature: One for all, or one per member.
        confirmed: A target tells whether the axes are what they seem; without one, a single tensor
            whose classes look like an axis of space is refused.

    Raises:
        TypeError: An argument has a type that the public functions do not document.
        ValueError: An argument has such a value.
    """
    if isinstance(preds, list | tuple):
        numpy = len(preds) > 0 and isinstance(preds[0], np.ndarray)
        for index, member in enumerate(preds):
            check_batched(member, class_dim, f"preds[{index}]")
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
        if not confirmed and class_dim == 1:
            _check_lone(whole)
    if not tensors:
        raise ValueError("preds must hold at least one member, got none")
    first = tensors[0]
    axis = check_member(first, class_dim, "preds[0]", stacklevel=4)
    shape, dtype, device = first.shape, first.dtype, first.device
    for index, member in enumerate(tensors):
        if member.shape != shape:
            raise ValueError(
                f"preds[{index}] must have shape {tuple(shape)}, as preds[0], "
                f"got {tuple(member.shape)}"
            )
        if member.dtype != dtype or member.device != device:
            raise ValueError(
                f"preds[{index}] must be {dtype} on {device}, as preds[0], "
                f"got {member.dtype} on {member.device}"
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
            raise ValueError(f"weights must hold a positive number, got {chosen}")
        if len(kept) < n_members:
            tensors = [tensors[index] for index in kept]
            temperatures = [temperatures[index] for index in kept]
            chosen = [chosen[index] for index in kept]
        exponent = weight_exponent(max(chosen))
        chosen = [math.ldexp(weight, -exponent) for weight in chosen]
    return Members(tensors, chosen, temperatures, axis, real_dtype(first, "preds"), numpy)


def check_batched(member: Array, class_dim: int, name: str) -> None:
    """Refuse an item ``[C, *S]`` of a MONAI batch that would be read as ``[B, C, *S]``.

    A MetaTensor knows whether it is a batch; one that was made by hand does not, so that the axis
    read as classes must look like one of space, too.
    """
    if (
        getattr(member, "is_batch", None) is not False
        or class_dim != 1
        or member.ndim not in (3, 4)
    ):
        return
    batch, classes, *space = member.shape
    if classes > batch and classes >= _FEWEST_SPATIAL and 8 * classes >= min(space):
        raise ValueError(
            f"{name} must be a member [B, C, *S], got a MetaTensor of one item of a batch, of "
            f"shape {tuple(member.shape)}, which would be read as B = {batch}, C = {classes}; add "
            "the batch axis, item[None], or pass class_dim=0"
        )


def _check_lone(whole: Tensor) -> None:
    """Refuse one tensor ``[B, C, *S]`` that would be read as ``[M, B, C, *S]``.

    It is seen by classes that are as many as the voxels along one of the axes of space. Where they
    are only as many as such an axis could have, there is a warning.
    """
    if whole.dim() not in (4, 5) or whole.numel() == 0:
        return
    n_members, batch, classes, *space = whole.shape
    reading = f"M = {n_members}, B = {batch}, C = {classes}"
    advice = "put a single member into a list, [preds], or split the members, list(preds)"
    if classes >= _FEWEST_SPATIAL and classes in space:
        raise ValueError(
            "preds must be a list of members [B, C, *S] or one tensor [M, B, C, *S], got a tensor "
            f"of shape {tuple(whole.shape)}, which would be read as {reading}; {advice}"
        )
    if classes > 32 and 4 * classes >= min(space) and not torch.compiler.is_compiling():
        warnings.warn(
            f"preds of shape {tuple(whole.shape)} is read as {reading} classes along axis 2; if "
            f"that is a spatial axis, {advice}",
            stacklevel=4,
        )


def check_member(member: Tensor, class_dim: int, name: str, *, stacklevel: int = 3) -> int:
    """Check device and classes of one member, and give its class axis, counted from the front.

    Args:
        member: The tensor.
        class_dim: Its class axis as the user gave it, from the front or from the back.
        name: Name of the argument, for messages.
        stacklevel: Frames from here to the user's line, for a warning.

    Raises:
        TypeError: ``class_dim`` is not an integer.
        ValueError: The device, the axis or the number of classes does not fit.
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
        raise ValueError(
            f"{name} must have at least one class along class_dim {axis}, "
            f"got shape {tuple(member.shape)}"
        )
    if num_classes > MANY_CLASSES and not torch.compiler.is_compiling():
        warnings.warn(
            f"{name} of shape {tuple(member.shape)} has {num_classes} classes along axis {axis}; "
            "if that is a spatial axis, pass class_dim",
            stacklevel=stacklevel,
        )
    return axis


def check_several_classes(predictions: Predictions) -> None:
    """Check that classes which exclude each other are more than one.

    A single class always wins: its softmax is 1, its entropy 0 and every label 0. What is meant is
    the sigmoid of a yes-or-no question, which is ``multilabel=True``.

    Raises:
        ValueError: There is one class, and it is not read as multilabel.
    """
    if predictions.num_classes == 1 and not predictions.multilabel:
        raise ValueError(
            "multilabel must be True (a sigmoid per class) for one class, got False for class_dim "
            f"{predictions.class_dim} of shape {tuple(predictions.shape)}"
        )


def check_weight(weight: object, name: str) -> float:
    """Read the weight of a member: finite and not negative."""
    number = real_number(weight, name)
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} must be finite and not negative, got {number:g}")
    return number


def weight_exponent(weight: float) -> int:
    """Give e such that a positive ``weight`` divided by 2^e lies in [1, 2).

    Only the ratios of weights matter, and such a division rounds nothing. Without it the sums of
    large weights would overflow, and small ones would vanish.
    """
    return math.frexp(weight)[1] - 1


def check_temperature(temperature: object, name: str) -> float:
    """Read a temperature: positive, and no further from 1 than exponentials can be computed."""
    number = real_number(temperature, name)
    if not COLDEST <= number <= HOTTEST:
        raise ValueError(f"{name} must lie in [{COLDEST:g}, {HOTTEST:g}], got {number:g}")
    return number


def check_reading(from_logits: bool, activation: str, multilabel: bool, space: str) -> str:
    """Check how members are read, and give the activation in use.

    ``multilabel`` always means the sigmoid.
    """
    flag(from_logits, "from_logits")
    flag(multilabel, "multilabel")
    choice(activation, "activation", ACTIVATIONS)
    choice(space, "space", SPACES)
    return "sigmoid" if multilabel else activation


def _listed(values: Sequence[float] | Array, name: str, n_members: int) -> Sequence[object]:
    listed = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(listed, list | tuple):
        raise TypeError(
            f"{name} must be a list of numbers, one per member, got {type(values).__name__}"
        )
    if len(listed) != n_members:
        raise ValueError(f"{name} must hold one number per member: {n_members}, got {len(listed)}")
    return listed
