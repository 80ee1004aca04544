# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
"""Gaps between probability and outcome per bin, and the gradient through them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcal.core.arrays import accumulation_type
from fastcal.core.bins import thresholds_on
from fastcal.core.problem import GapBins, LossReading
from fastcal.triton_kernels.loss_tile import (
    load_tile,
    loss_launch,
    probabilities,
    store_tile,
    to_logits,
)


@triton.jit
def place(p, thresholds, n_bins, SOFT: tl.constexpr):
    """Find the left and right bin of each p, the share of the right one, and its growth with p.

    Hard bins are the number of thresholds below p, which is guessed, then corrected by comparison.
    """
    last = n_bins - 1
    if SOFT:
        at = p * n_bins - 0.5  # in bins, counted from the first centre
        inside = tl.where(at > 0, tl.where(at < last, at, last), 0.0)  # NaN: 0
        left = inside.to(tl.int32)
        along = at - left
        share = tl.where(along < 0, 0.0, tl.where(along > 1, 1.0, along))
        growth = tl.where((along >= 0) & (along <= 1), n_bins, 0).to(p.dtype)
        right = tl.where(left < last, left + 1, last)
    else:
        scaled = p * n_bins
        guess = tl.where(scaled > 0, tl.where(scaled < last, scaled, last), 0.0).to(tl.int32)
        below = tl.load(thresholds + (guess - 1).to(tl.int64), mask=guess > 0, other=-1.0)
        above = tl.load(thresholds + guess.to(tl.int64), mask=guess < last, other=2.0)
        left = guess + (p > above).to(tl.int32) - ((p <= below) & (guess > 0)).to(tl.int32)
        right = left
        share = p * 0
        growth = share
    return left, right, share, growth


@triton.jit(do_not_specialize=["ignore_index"])
def bin_gaps_kernel(
    logits,
    target,
    partial,
    thresholds,
    n_bins,
    extents,
    n_inner,
    n_blocks,
    n_images,
    ignore_index,
    P: tl.constexpr,
    SOFT: tl.constexpr,
):
    """Add some blocks of an image to the sums of this program, bin after bin.

    ``logits`` and ``target`` are `Images`. ``partial`` holds float64 zeros
    ``[images, programs, classes, 2 n_bins + 1]``. ``thresholds`` are the interior edges, of the
    accumulation type.
    """
    i_item = tl.cast(tl.program_id(1), tl.int64)
    i_part = i_item * tl.num_programs(0) + tl.program_id(0)
    words = (2 * n_bins + 1).to(tl.int64)
    o_classes = tl.arange(0, P.rows).to(tl.int64)
    m_classes = o_classes < P.classes
    row = partial + (i_part * P.classes + o_classes) * words
    reference = tl.zeros([tl.constexpr(P.rows)], tl.float64)
    wrong = 0
    for i_block in range(tl.program_id(0), n_blocks, tl.num_programs(0)):
        z, hot, counts, n_wrong = load_tile(
            logits, target, i_block, extents, n_inner, n_images, ignore_index, P
        )
        wrong += n_wrong
        reference += tl.sum(tl.where(hot, 1.0, 0.0), 1).to(tl.float64)
        p = probabilities(z, P)
        left, right, share, _ = place(p, thresholds, n_bins, SOFT)
        off = tl.where(counts, p - hot.to(P.real), 0.0)
        for j in range(n_bins):
            part = tl.where(counts & (left == j), 1 - share, 0.0)
            if SOFT:
                part += tl.where(counts & (right == j), share, 0.0)
            gap = tl.sum(tl.where(part != 0, part * off, 0.0), 1).to(tl.float64)
            amount = tl.sum(part, 1).to(tl.float64)
            bin_row = row + tl.cast(j, tl.int64)
            tl.store(bin_row, tl.load(bin_row, mask=m_classes) + gap, mask=m_classes)
            bin_row += tl.cast(n_bins, tl.int64)
            tl.store(bin_row, tl.load(bin_row, mask=m_classes) + amount, mask=m_classes)
    spoilt = tl.where(wrong > 0, float("nan"), 0.0).to(tl.float64)
    tl.store(row + (words - 1), reference + spoilt, mask=m_classes)
    tl.store(row, tl.load(row, mask=m_classes) + spoilt, mask=m_classes)


@triton.jit(do_not_specialize=["ignore_index"])
def bin_gradient_kernel(
    logits,
    target,
    gradient,
    factors,
    thresholds,
    n_bins,
    extents,
    n_inner,
    n_blocks,
    n_images,
    ignore_index,
    P: tl.constexpr,
    SOFT: tl.constexpr,
):
    """Write the gradient, through the gap of each bin and through shares that move with p.

    ``logits``, ``target`` and ``gradient`` are `Images`. ``factors`` is
    ``[images, classes, 2 n_bins + 1]`` of the accumulation type.
    """
    i_item = tl.cast(tl.program_id(1), tl.int64)
    words = (2 * n_bins + 1).to(tl.int64)
    o_classes = tl.arange(0, P.rows).to(tl.int64)
    m_classes = (o_classes < P.classes)[:, None]
    row = factors + ((i_item * P.classes + o_classes) * words)[:, None]
    for i_block in range(tl.program_id(0), n_blocks, tl.num_programs(0)):
        z, hot, counts, _ = load_tile(
            logits, target, i_block, extents, n_inner, n_images, ignore_index, P
        )
        p = probabilities(z, P)
        left, right, share, growth = place(p, thresholds, n_bins, SOFT)
        slope = tl.load(row + left.to(tl.int64), mask=m_classes, other=0.0)
        if SOFT:
            step = tl.load(row + right.to(tl.int64), mask=m_classes, other=0.0) - slope
            amount = row + tl.cast(n_bins, tl.int64)
            rise = tl.load(amount + right.to(tl.int64), mask=m_classes, other=0.0)
            rise -= tl.load(amount + left.to(tl.int64), mask=m_classes, other=0.0)
            slope += step * share + growth * (step * (p - hot.to(P.real)) + rise)
        found = tl.where(counts, to_logits(slope, p, P), 0.0)
        store_tile(gradient, found, i_block, extents, n_inner, n_images, P)


def bin_gaps(
    logits: Tensor, target: Tensor, reading: LossReading, bins: GapBins, sums: Tensor
) -> None:
    """Compute the sums in one launch. Those of the programs are then added in order."""
    launch = loss_launch(logits, target, reading)
    programs, n_items = launch.grid
    if programs * n_items == 0:
        sums.zero_()
        return
    size = (n_items, programs, launch.plan.classes, bins.words)
    partial = torch.zeros(size, dtype=torch.float64, device=logits.device)
    bin_gaps_kernel[launch.grid](
        *launch.images,
        partial,
        thresholds_on(bins.count, accumulation_type(logits.dtype), logits.device),
        bins.count,
        *launch.walk,
        P=launch.plan,
        SOFT=bins.soft,
        num_warps=launch.warps,
        enable_fp_fusion=False,
    )
    sums.copy_(partial.sum(1).view(sums.shape))


def bin_gradient(
    logits: Tensor,
    target: Tensor,
    reading: LossReading,
    bins: GapBins,
    factors: Tensor,
    gradient: Tensor,
) -> None:
    """Write the gradient by the logits, given the derivative by each sum."""
    launch = loss_launch(logits, target, reading, [gradient])
    if launch.grid[0] * launch.grid[1] == 0:
        return
    real = accumulation_type(logits.dtype)
    bin_gradient_kernel[launch.grid](
        *launch.images,
        factors.to(real),
        thresholds_on(bins.count, real, logits.device),
        bins.count,
        *launch.walk,
        P=launch.plan,
        SOFT=bins.soft,
        num_warps=launch.warps,
        enable_fp_fusion=False,
    )
