# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
"""Sums of probabilities and likelihoods per image and class, and the gradient through them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcal.core.problem import SUM_ROWS, LossReading, SumsWanted
from fastcal.triton_kernels.loss_tile import (
    load_tile,
    loss_launch,
    sigmoid_parts,
    softmax,
    store_tile,
)

N_ROWS = tl.constexpr(len(SUM_ROWS))


@triton.jit
def total(values, where):
    """Sum over the voxels of a tile, ``[rows]`` in double."""
    return tl.sum(tl.where(where, values, 0.0), 1).to(tl.float64)


@triton.jit(do_not_specialize=["ignore_index"])
def class_sums_kernel(
    logits,
    target,
    partial,
    extents,
    n_inner,
    n_blocks,
    n_images,
    ignore_index,
    P: tl.constexpr,
    W: tl.constexpr,
):
    """Add up some blocks of an image.

    ``logits`` and ``target`` are `Images`. ``partial`` is float64
    ``[images, programs, 6, classes]``. ``W`` are the `SumsWanted`.
    """
    overlap = tl.zeros([tl.constexpr(P.rows)], tl.float64)
    predicted = overlap
    squared = overlap
    reference = overlap
    nll = overlap
    rest = overlap
    wrong = 0
    for i_block in range(tl.program_id(0), n_blocks, tl.num_programs(0)):
        z, hot, counts, n_wrong = load_tile(
            logits, target, i_block, extents, n_inner, n_images, ignore_index, P
        )
        wrong += n_wrong
        reference += tl.sum(tl.where(hot, 1.0, 0.0), 1).to(tl.float64)
        if P.softmax:
            p, lost = softmax(z)
            others = lost
            elsewhere = counts
        else:
            p, _, lost, others = sigmoid_parts(z)
            elsewhere = counts & (hot == 0)
        if W.overlaps:
            overlap += total(p, hot)
            predicted += total(p, counts)
            squared += total(p * p, counts)
        if W.likelihood:
            nll += total(lost, hot)
        if W.rest:
            rest += total(others, elsewhere)
    # The sums become NaN where a target is not a class, so that nothing waits for the device.
    spoilt = tl.where(wrong > 0, float("nan"), 0.0).to(tl.float64)
    i_item = tl.cast(tl.program_id(1), tl.int64)
    i_part = i_item * tl.num_programs(0) + tl.program_id(0)
    o_classes = tl.arange(0, P.rows).to(tl.int64)
    row = partial + (i_part * (N_ROWS * P.classes) + o_classes)
    m_classes = o_classes < P.classes
    step = tl.cast(P.classes, tl.int64)
    tl.store(row, overlap + spoilt, mask=m_classes)
    tl.store(row + step, predicted + spoilt, mask=m_classes)
    tl.store(row + 2 * step, squared + spoilt, mask=m_classes)
    tl.store(row + 3 * step, reference + spoilt, mask=m_classes)
    tl.store(row + 4 * step, nll + spoilt, mask=m_classes)
    tl.store(row + 5 * step, rest + spoilt, mask=m_classes)


@triton.jit
def load_factor(factors, i_row, P: tl.constexpr):
    """Load the factors ``[rows, 1]`` of one row of the sums, for the image of this program."""
    i_item = tl.cast(tl.program_id(1), tl.int64)
    o_classes = tl.arange(0, P.rows).to(tl.int64)
    start = (i_item * N_ROWS + i_row) * P.classes
    return tl.load(factors + (start + o_classes), mask=o_classes < P.classes, other=0.0).to(P.real)[
        :, None
    ]


@triton.jit(do_not_specialize=["ignore_index"])
def class_gradient_kernel(
    logits,
    target,
    gradient,
    factors,
    extents,
    n_inner,
    n_blocks,
    n_images,
    ignore_index,
    P: tl.constexpr,
    W: tl.constexpr,
):
    """Write ``p (g - sum_j p_j g_j) + E_y (p - y) + p sum_j R_j - R``.

    The reference backend explains the formula. ``logits``, ``target`` and ``gradient`` are
    `Images`. ``factors`` is float64 ``[images, 6, classes]``, the derivative by each sum.
    """
    overlap = load_factor(factors, 0, P)
    predicted = load_factor(factors, 1, P)
    squared = load_factor(factors, 2, P)
    nll = load_factor(factors, 4, P)
    rest = load_factor(factors, 5, P)
    for i_block in range(tl.program_id(0), n_blocks, tl.num_programs(0)):
        z, hot, counts, _ = load_tile(
            logits, target, i_block, extents, n_inner, n_images, ignore_index, P
        )
        y = hot.to(P.real)
        if P.softmax:
            p, _ = softmax(z)
            found = p * tl.sum(rest, 0)[None, :] - rest
            if W.likelihood:
                own = y * nll
                found += p * tl.sum(own, 0)[None, :] - own
            if W.overlaps:
                slope = y * overlap + predicted + 2 * squared * p
                found += p * (slope - tl.sum(p * slope, 0)[None, :])
        else:
            p, q, _, _ = sigmoid_parts(z)
            found = tl.where(hot, -q * nll, p * rest)
            if W.overlaps:
                found += p * q * (y * overlap + predicted + 2 * squared * p)
        found = tl.where(counts, found, 0.0)
        store_tile(gradient, found, i_block, extents, n_inner, n_images, P)


def class_sums(
    logits: Tensor, target: Tensor, reading: LossReading, wanted: SumsWanted, sums: Tensor
) -> None:
    """Compute the sums in one launch. Those of the programs are then added in order."""
    launch = loss_launch(logits, target, reading)
    programs, n_items = launch.grid
    if programs * n_items == 0:
        sums.zero_()
        return
    size = (n_items, programs, len(SUM_ROWS), launch.plan.classes)
    partial = torch.empty(size, dtype=torch.float64, device=logits.device)
    class_sums_kernel[launch.grid](
        *launch.images,
        partial,
        *launch.walk,
        P=launch.plan,
        W=wanted,
        num_warps=launch.warps,
        enable_fp_fusion=False,
    )
    sums.copy_(partial.sum(1).view(sums.shape))


def class_gradient(
    logits: Tensor,
    target: Tensor,
    reading: LossReading,
    wanted: SumsWanted,
    factors: Tensor,
    gradient: Tensor,
) -> None:
    """Write the gradient by the logits, given the derivative by each sum."""
    launch = loss_launch(logits, target, reading, [gradient])
    if launch.grid[0] * launch.grid[1] == 0:
        return
    class_gradient_kernel[launch.grid](
        *launch.images,
        factors,
        *launch.walk,
        P=launch.plan,
        W=wanted,
        num_warps=launch.warps,
        enable_fp_fusion=False,
    )
