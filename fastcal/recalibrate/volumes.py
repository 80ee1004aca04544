"""Volumes of a fit, checked once and then read in blocks, so that nothing large is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fastcal.core.arrays import Array, real_dtype, to_tensor
from fastcal.core.likelihood import finite_logits, valid
from fastcal.core.members import check_member
from fastcal.core.predictions import Predictions
from fastcal.core.problem import Activation
from fastcal.core.targets import GivenTarget, read_targets

Volumes: TypeAlias = Iterable[tuple[Any, ...]]
"""``(preds, target)`` or ``(preds, target, mask)`` of each volume."""

BLOCK = 1 << 15
"""Voxels of a block. Float64 copies of 4 classes take 1 MB, which fits into a core's cache."""

_TINY = {
    torch.float16: 2.0**-24,
    torch.bfloat16: 2.0**-126,
    torch.float32: 2.0**-126,
    torch.float64: 2.0**-1022,
}


@dataclass(frozen=True, slots=True)
class PredictionReading:
    """How the numbers of a prediction are read.

    Softmax probabilities are read as logits ``ln p``, Bernoulli ones as ``ln p - ln (1 - p)``. A
    probability of 0 becomes ``eps``, by default the smallest number that its type can hold. A
    Bernoulli probability of 1 becomes ``1 - eps``, by default half a step of its type below 1. A
    logit of -inf becomes the largest logit of its voxel plus ``ln eps``, which is the same
    probability.
    """

    from_logits: bool = True
    activation: Activation = "softmax"
    multilabel: bool = False
    eps: float | None = None

    @property
    def bernoulli(self) -> bool:
        """Whether every class has a likelihood of its own."""
        return self.multilabel or self.activation == "sigmoid"

    def valid(self, values: Tensor) -> Tensor:
        """Return which voxels of ``values`` ``[C, n]`` are valid, bool ``[n]``.

        Logits must be numbers, and probabilities must lie in [0, 1].
        """
        return valid(values, from_logits=self.from_logits, bernoulli=self.bernoulli)

    def logits(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        """Compute finite float64 logits of valid ``values`` ``[C, n]``, originally of ``dtype``."""
        tiny, rest = self.floor(dtype)
        return finite_logits(
            values,
            from_logits=self.from_logits,
            bernoulli=self.bernoulli,
            tiny=tiny,
            rest=rest,
        )

    def floor(self, dtype: torch.dtype) -> tuple[float, float]:
        """Return what replaces p = 0 in type ``dtype``, and 1 - p = 0 of a Bernoulli variable."""
        if self.eps is None:
            return _TINY[dtype], torch.finfo(dtype).eps / 4
        normal = torch.float64 if dtype == torch.float64 else torch.float32
        return max(self.eps, _TINY[normal]), self.eps

    def probabilities(self, values: Tensor) -> Tensor:
        """Compute probabilities of valid ``values`` ``[C, n]``, in float64 if these are logits."""
        if not self.from_logits:
            return values
        return self.activated(values.double())

    def activated(self, logits: Tensor) -> Tensor:
        """Compute the softmax over the classes of ``[C, n]``, or the sigmoid of each class."""
        return logits.sigmoid() if self.bernoulli else logits.softmax(0)


@dataclass(frozen=True, slots=True)
class Block:
    """The voxels of a block that count."""

    values: Tensor
    """Predictions ``[C, n]`` as they were given."""
    target: Tensor
    """Class indices ``[n]``; float64 of 0 and 1, ``[C, n]``, where every class is a Bernoulli."""


@dataclass(frozen=True, slots=True)
class Slab:
    """The voxels of a block before any are left out."""

    values: Tensor
    """Predictions ``[C, n]``, a view where the memory allows."""
    target: Tensor
    """Targets ``[1, n]``, or ``[C, n]`` if multilabel."""
    mask: Tensor | None
    """Which voxels count, ``[n]``; None for all."""

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return self.target.shape[1]


@dataclass(frozen=True, slots=True)
class FitVolume:
    """One batch of predictions with its target; classes come first, other axes as in memory."""

    values: Tensor
    target: Tensor
    mask: Tensor | None
    ignore_index: int | None
    reading: PredictionReading
    omit_invalid: bool

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return self.values.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the predictions."""
        return self.values.dtype

    @property
    def n_positions(self) -> int:
        """Number of voxels, including those that are left out."""
        return self.target[0].numel()

    def slabs(self) -> Iterator[Slab]:
        """Yield all voxels of the volume in blocks."""
        for values, target, mask in _walk(self.values, self.target, self.mask):
            flat = values.reshape(values.shape[0], -1)
            kept = None if mask is None else mask.reshape(-1)
            yield Slab(flat, target.reshape(target.shape[0], -1), kept)

    def scattered(self, positions: Tensor) -> Slab:
        """Take the voxels at ``positions`` ``[n]``, counted in the order of `slabs`."""
        where = torch.unravel_index(positions.to(self.values.device), self.values.shape[1:])
        mask = None if self.mask is None else self.mask[where]
        places: tuple[slice | Tensor, ...] = (slice(None), *where)
        return Slab(self.values[places], self.target[places], mask)

    def blocks(self) -> Iterator[Block]:
        """Yield the voxels that count in blocks.

        Raises:
            ValueError: Targets lie outside [0, C), or voxels are invalid and not to be omitted. It
                is raised at the end.
        """
        check = Check(self)
        for slab in self.slabs():
            kept = check.kept(slab)
            yield self.block(slab, None if bool(kept.all()) else kept)
        check.close()

    def block(self, slab: Slab, chosen: Tensor | None) -> Block:
        """Take the ``chosen`` voxels of a slab, a bool mask, positions, or None for all."""
        values, target = slab.values, slab.target
        if chosen is not None:
            values, target = values[:, chosen], target[:, chosen]
        return Block(values, self._wanted(target.long()))

    def _wanted(self, target: Tensor) -> Tensor:
        if not self.reading.bernoulli:
            return target[0]
        if self.reading.multilabel:
            return target.double()
        classes = torch.arange(self.num_classes, device=target.device)[:, None]
        return (target == classes).double()


class Check:
    """Decides which voxels of a volume count, and counts the bad ones among them.

    Args:
        volume: The volume.
    """

    def __init__(self, volume: FitVolume) -> None:
        self._volume = volume
        self._outside = self._invalid = 0
        self._example: int | None = None

    def kept(self, slab: Slab) -> Tensor:
        """Return which voxels of a slab count, bool ``[n]``."""
        volume, target = self._volume, slab.target
        top = 2 if volume.reading.multilabel else volume.num_classes
        if target.dtype in (torch.uint16, torch.uint32, torch.uint64):
            target = target.long()
        inside = ((target >= 0) & (target < top)).all(0)
        kept = torch.ones_like(inside) if slab.mask is None else slab.mask
        if volume.ignore_index is not None:
            kept = kept & (target != volume.ignore_index).all(0)
        bad = kept & ~inside
        if bool(bad.any()):
            self._outside += int(bad.sum())
            columns = target[:, bad]
            self._example = int(columns[(columns < 0) | (columns >= top)][0])
        kept = kept & inside
        valid = volume.reading.valid(slab.values)
        self._invalid += int((kept & ~valid).sum())
        return kept & valid

    def close(self) -> None:
        """Raise a ValueError if there were bad voxels."""
        top = 2 if self._volume.reading.multilabel else self._volume.num_classes
        if self._outside:
            raise ValueError(
                f"target must lie in [0, {top}), got {self._outside} voxels outside, such as "
                f"{self._example}"
            )
        if self._invalid and not self._volume.omit_invalid:
            what = (
                "a NaN, a +inf, or -inf for all classes"
                if self._volume.reading.from_logits
                else "NaN, or outside [0, 1]; logits need from_logits=True"
            )
            raise ValueError(
                f"preds must hold valid values, got {self._invalid} voxels without ({what})"
            )


def read_volume(
    preds: Array,
    target: Array,
    mask: Array | None = None,
    *,
    reading: PredictionReading,
    class_dim: int = 1,
    ignore_index: int | None = None,
    nan_policy: str = "raise",
) -> FitVolume:
    """Check one batch without copying it.

    Args:
        preds: ``[B, C, *S]``, with any strides.
        target: Integers in [0, C), ``[B, *S]``; ``[B, C, *S]`` of 0 and 1 if multilabel.
        mask: Bool ``[B, *S]``; True keeps a voxel.
        reading: How ``preds`` are read.
        class_dim: Axis of the classes in ``preds``.
        ignore_index: Voxels with this target are left out.
        nan_policy: ``"raise"`` or ``"omit"``, for voxels without valid values.

    Raises:
        TypeError, ValueError: An argument does not fit; the message names it.
    """
    values = to_tensor(preds, "preds")
    real = real_dtype(values, "preds")
    axis = check_member(values, class_dim, "preds")
    if values.shape[axis] == 1 and not reading.multilabel:
        raise ValueError(
            f"preds must have at least two exclusive classes along axis {axis}, got shape "
            f"{tuple(values.shape)}: pass multilabel=True for binary data"
        )
    checked = read_targets(
        GivenTarget(target, mask, ignore_index, nan_policy=nan_policy),
        Predictions(values.shape, values.device, real, axis, reading.multilabel),
    )
    first = values.movedim(axis, 0)
    labels = checked.target.movedim(axis, 0) if reading.multilabel else checked.target[None]
    order = memory_order(first)
    return FitVolume(
        first.permute(0, *(one + 1 for one in order)),
        labels.permute(0, *(one + 1 for one in order)),
        None if checked.mask is None else checked.mask.permute(order),
        checked.ignore_index,
        reading,
        nan_policy == "omit",
    )


def memory_order(values: Tensor) -> list[int]:
    """Return all axes but the first, counted without it, with the slowest in memory first."""
    strides = values.stride()[1:]
    return sorted(range(len(strides)), key=lambda axis: -strides[axis])


def walk_pairs(values: Tensor, out: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield blocks of two tensors ``[C, *S]`` of one shape, in the memory order of the first."""
    order = [0, *(axis + 1 for axis in memory_order(values))]
    for one, other, _ in _walk(values.permute(order), out.permute(order), None):
        yield one, other


def _walk(
    values: Tensor, target: Tensor, mask: Tensor | None
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Cut ``[C, *S]`` tensors along their slowest axes into blocks of at most `BLOCK` voxels."""
    voxels = target[0].numel()
    if voxels <= BLOCK:
        if voxels:
            yield values, target, mask
        return
    extent = target.shape[1]
    if extent == 1:
        inner = None if mask is None else mask[0]
        yield from _walk(values[:, 0], target[:, 0], inner)
        return
    step = max(1, BLOCK * extent // voxels)
    for start in range(0, extent, step):
        part = slice(start, start + step)
        yield from _walk(values[:, part], target[:, part], None if mask is None else mask[part])
