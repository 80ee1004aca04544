"""The fused passes of the losses, differentiable: sums over voxels for each image and class.

A loss is a few operations on such sums, which are small and float64. The logits are read once
forward and once backward. Neither probabilities nor one-hot targets are ever in memory.

The functions may be differentiated once, compiled, and mapped over members (`torch.func.vmap`), in
which case the members become the leading axis of the same pass.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from fastcal import ops
from fastcal.core.problem import SUM_ROWS, GapBins


class ClassSums(NamedTuple):
    """Sums over the voxels that count, float64 ``[B, C]``; see `fastcal.core.problem.SUM_ROWS`."""

    overlap: Tensor
    predicted: Tensor
    squared: Tensor
    reference: Tensor
    nll: Tensor
    rest: Tensor
    voxels: Tensor
    """Number of voxels that count, ``[B]``."""


def class_sums(
    logits: Tensor,
    target: Tensor,
    *,
    head: str,
    ignore_index: int | None = None,
    overlaps: bool = False,
    likelihood: bool = False,
    rest: bool = False,
) -> ClassSums:
    """Sum probabilities and likelihoods for each image and class; rows not asked for are 0.

    Args:
        logits: ``[B, C, *S]``, any strides.
        target: ``[B, *S]`` of any integer type. Class k has the label k; a single class has 1.
        head: ``"softmax"`` or ``"sigmoid"``.
        ignore_index: Voxels with this target do not count.
        overlaps: Compute the rows ``overlap``, ``predicted`` and ``squared``.
        likelihood: Compute the row ``nll``.
        rest: Compute the row ``rest``; needs ``likelihood``.

    Raises:
        ValueError: A target is not a class (on a GPU, the sums become NaN instead).
    """
    wanted = (overlaps, likelihood, rest)
    sums = _apply(_ClassSums, logits.unsqueeze(0), target.unsqueeze(0), head, ignore_index, *wanted)
    rows = sums.squeeze(0).unbind(1)
    # Rows that were not asked for, and numbers of voxels, have no gradient.
    moves = (overlaps, overlaps, overlaps, False, likelihood, rest)
    found = [row if it else row.detach() for row, it in zip(rows, moves, strict=True)]
    overlap, predicted, squared, reference, nll, other = found
    if logits.shape[1] > 1:
        voxels = reference.sum(1)
    elif ignore_index is None:
        voxels = reference.new_full((len(target),), target[:1].numel())
    else:
        voxels = (target != ignore_index).flatten(1).sum(1).double()
    return ClassSums(overlap, predicted, squared, reference, nll, other, voxels)


class BinGaps(NamedTuple):
    """Sums by bins over the voxels that count, in float64."""

    gap: Tensor
    """Sum of p - y in each bin, ``[B, C, n_bins]``."""
    amount: Tensor
    """Voxels in each bin, ``[B, C, n_bins]``."""
    reference: Tensor
    """Voxels of the class in the target, ``[B, C]``."""


def bin_gaps(
    logits: Tensor,
    target: Tensor,
    *,
    head: str,
    n_bins: int,
    soft: bool,
    ignore_index: int | None = None,
) -> BinGaps:
    """Sum gaps between probability and outcome by bins of probability, for each image and class.

    Args:
        logits: See `class_sums`.
        target: See `class_sums`.
        head: See `class_sums`.
        n_bins: Number of bins (lo, hi] of equal width over [0, 1].
        soft: Share each voxel between the two nearest bin centres. Otherwise it is in one bin, and
            the amounts have no gradient.
        ignore_index: See `class_sums`.

    Raises:
        ValueError: See `class_sums`.
    """
    sums = _apply(
        _BinGaps, logits.unsqueeze(0), target.unsqueeze(0), head, ignore_index, n_bins, soft
    )
    found = sums.squeeze(0)
    return BinGaps(found[..., :n_bins], found[..., n_bins:-1], found[..., -1])


# --- autograd -------------------------------------------------------------------------------------
#
# Logits are [G, B, C, *S] and targets [G, B, *S] here. G grows where members are mapped over.


def _apply(function: type[Function], *arguments: Any) -> Tensor:
    found: Tensor = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return found


def _differentiate(function: type[_Gradient], *arguments: Any) -> Tensor:
    # In a backward pass, torch.compile refuses a function with a context of its own.
    if torch.compiler.is_compiling():
        return function.forward(*arguments)
    return _apply(function, *arguments)


class _Sums(Function):
    """The common part of both passes; a subclass calls its op.

    The arguments after the tensors (head, ignore index and two or three settings) are the op's.
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        logits, target, *settings = inputs
        ctx.save_for_backward(logits, target)
        ctx.settings = settings


class _ClassSums(_Sums):
    @staticmethod
    def forward(logits: Tensor, target: Tensor, *settings: Any) -> Tensor:
        groups, images, classes = logits.shape[:3]
        shape = (groups, images, len(SUM_ROWS), classes)
        sums = torch.empty(shape, dtype=torch.float64, device=logits.device)
        ops.class_sums(logits, target, *settings, sums)
        return sums

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        logits, target = ctx.saved_tensors
        gradient = _differentiate(_ClassGradient, logits, target, gradients[0], *ctx.settings)
        return gradient, None, *(None for _ in ctx.settings)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], logits: Tensor, target: Tensor, *settings: Any
    ) -> tuple[Tensor, int]:
        members = info.batch_size
        tensors = _merged(members, in_dims, logits, target)
        sums = _apply(_ClassSums, *tensors, *settings)
        return _unmerged(sums, members), 0


class _BinGaps(_Sums):
    @staticmethod
    def forward(logits: Tensor, target: Tensor, *settings: Any) -> Tensor:
        words = GapBins(*settings[2:]).words
        shape = (*logits.shape[:3], words)
        sums = torch.empty(shape, dtype=torch.float64, device=logits.device)
        ops.bin_gaps(logits, target, *settings, sums)
        return sums

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        logits, target = ctx.saved_tensors
        gradient = _differentiate(_BinGradient, logits, target, gradients[0], *ctx.settings)
        return gradient, None, *(None for _ in ctx.settings)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], logits: Tensor, target: Tensor, *settings: Any
    ) -> tuple[Tensor, int]:
        members = info.batch_size
        tensors = _merged(members, in_dims, logits, target)
        sums = _apply(_BinGaps, *tensors, *settings)
        return _unmerged(sums, members), 0


class _Gradient(Function):
    """A gradient, which has no gradient itself: losses are differentiated once."""

    @staticmethod
    def forward(logits: Tensor, target: Tensor, factors: Tensor, *settings: Any) -> Tensor:
        raise NotImplementedError

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del ctx, inputs, output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        del ctx, gradients
        raise NotImplementedError("losses of fused sums can be differentiated once, not twice")


class _ClassGradient(_Gradient):
    @staticmethod
    def forward(logits: Tensor, target: Tensor, factors: Tensor, *settings: Any) -> Tensor:
        gradient = torch.empty_like(logits)
        ops.class_gradient(logits, target, *settings, factors.contiguous(), gradient)
        return gradient

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        logits: Tensor,
        target: Tensor,
        factors: Tensor,
        *settings: Any,
    ) -> tuple[Tensor, int]:
        members = info.batch_size
        tensors = _merged(members, in_dims, logits, target, factors)
        gradient = _apply(_ClassGradient, *tensors, *settings)
        return _unmerged(gradient, members), 0


class _BinGradient(_Gradient):
    @staticmethod
    def forward(logits: Tensor, target: Tensor, factors: Tensor, *settings: Any) -> Tensor:
        gradient = torch.empty_like(logits)
        ops.bin_gradient(logits, target, *settings, factors.contiguous(), gradient)
        return gradient

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        logits: Tensor,
        target: Tensor,
        factors: Tensor,
        *settings: Any,
    ) -> tuple[Tensor, int]:
        members = info.batch_size
        tensors = _merged(members, in_dims, logits, target, factors)
        gradient = _apply(_BinGradient, *tensors, *settings)
        return _unmerged(gradient, members), 0


def _merged(members: int, in_dims: tuple[int | None, ...], *tensors: Tensor) -> list[Tensor]:
    """Turn tensors ``[G, ...]`` with a mapped axis somewhere into ``[members * G, ...]``."""
    found = []
    for tensor, axis in zip(tensors, in_dims, strict=False):
        mapped = tensor.expand(members, *tensor.shape) if axis is None else tensor.movedim(axis, 0)
        # A group of one is squeezed rather than merged, which is a view for any strides.
        found.append(mapped.squeeze(1) if mapped.shape[1] == 1 else mapped.flatten(0, 1))
    return found


def _unmerged(tensor: Tensor, members: int) -> Tensor:
    return tensor.reshape(members, -1, *tensor.shape[1:])
