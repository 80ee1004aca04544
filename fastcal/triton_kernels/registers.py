# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# ruff: noqa: RUF005
"""A block of voxels in registers: for every sum over members, a tuple of one row per class."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from fastcal.triton_kernels.activation import (
    add_weighted,
    divide,
    from_bits,
    load_member,
    probability,
    raise_top,
    summand,
)
from fastcal.triton_kernels.ensemble_accumulate import vote
from fastcal.triton_kernels.ensemble_finalize import activated
from fastcal.triton_kernels.moments import row_moments
from fastcal.triton_kernels.summary import add_to_total, normalised
from fastcal.triton_kernels.walk import PointerView, voxel_offsets


class BlockSums(NamedTuple):
    """Sums over the members of a block, in a kernel."""

    rows: Any
    """Sums of w p (w z in logit space), a tuple of one row per class."""
    entropy: Any
    """Sum of w H."""
    squares: Any
    """Sums of w p^2, a tuple of one row per class; empty where they are not wanted."""
    votes: Any
    """Votes, a tuple of one row per class; empty where they are not wanted."""


@triton.jit
def zeros(N: tl.constexpr, P: tl.constexpr):
    """Make a tuple of ``N`` rows of zeros."""
    rows = ()
    for _ in tl.static_range(N):
        rows = rows + (tl.zeros([tl.constexpr(P.block)], P.real),)
    return rows


@triton.jit
def add_member(sums, view, o_member, m_voxels, weight, inverse_t, P: tl.constexpr):
    """Add a member to `BlockSums`, which stay in registers.

    ``view`` may have any strides, and is read once. ``o_member`` are the offsets of the voxels.
    """
    C: tl.constexpr = P.classes
    rows = ()
    for _ in tl.static_range(C):
        # Step by step, because multiples of the stride would be kept in registers.
        rows = rows + (load_member(view, o_member, 0, m_voxels, P),)
        o_member += tl.cast(view.class_stride, tl.int64)
    top, best, inverse_total, h = row_moments(rows, inverse_t, P)
    entropy = sums.entropy
    if P.entropy:
        entropy = add_weighted(entropy, h, weight, P)
    new_rows = ()
    new_squares = ()
    new_votes = ()
    for k in tl.static_range(C):
        x = summand(rows[k], top, inverse_total, inverse_t, P)
        new_rows = new_rows + (add_weighted(sums.rows[k], x, weight, P),)
        if P.square:
            p = probability(rows[k], top, inverse_total, inverse_t, P)
            new_squares = new_squares + (add_weighted(sums.squares[k], p * p, weight, P),)
        if P.votes:
            v = vote(rows[k], k, best, top, inverse_total, inverse_t, P)
            new_votes = new_votes + (sums.votes[k] + v,)
    return BlockSums(new_rows, entropy, new_squares, new_votes)


@triton.jit
def mean_rows(sums, scale, P: tl.constexpr):
    """Compute the mean probabilities of every class, before they are normalised."""
    C: tl.constexpr = P.classes
    top = sums[0] * scale
    inverse_total = top
    if P.logit_space and P.softmax:
        best = tl.zeros(top.shape, tl.int32)
        for k in tl.static_range(1, C):
            top, best = raise_top(sums[k] * scale, k, top, best)
        total = tl.zeros(top.shape, P.real)
        for k in tl.static_range(C):
            total += tl.exp(sums[k] * scale - top)
        inverse_total = divide(tl.full(top.shape, 1.0, P.real), total, P.wide)
    rows = ()
    for k in tl.static_range(C):
        rows = rows + (activated(sums[k] * scale, top, inverse_total, P),)
    return rows


@triton.jit
def normalised_rows(rows, F: tl.constexpr):
    """Divide every class by the sum of the classes, where that is wanted."""
    C: tl.constexpr = F.classes
    if F.normalise:
        total = tl.zeros_like(rows[0])
        spread = total
        off = tl.zeros(total.shape, tl.int32)
        for k in tl.static_range(C):
            total, spread, off = add_to_total(rows[k], total, spread, off)
        shares = ()
        for k in tl.static_range(C):
            shares = shares + (normalised(rows[k], total, spread, off, F),)
        return shares
    else:
        return rows


@triton.jit
def pick(values, m):
    """Choose ``values[m]`` from a tuple of scalars."""
    picked = values[0]
    for i in tl.static_range(1, len(values)):
        picked = tl.where(m == i, values[i], picked)
    return picked


@triton.jit
def pick_view(members, m):
    """Choose the view of member ``m`` with selects, because a tuple has no run-time index."""
    pointer = members[0].pointer
    class_stride = members[0].class_stride
    strides = members[0].strides
    for i in tl.static_range(1, len(members)):
        chosen = m == i
        pointer = tl.where(chosen, members[i].pointer, pointer)
        class_stride = tl.where(chosen, members[i].class_stride, class_stride)
        picked = ()
        for axis in tl.static_range(len(strides)):
            picked = picked + (tl.where(chosen, members[i].strides[axis], strides[axis]),)
        strides = picked
    return PointerView(pointer, class_stride, strides)


@triton.jit
def add_members(members, weights, inverse_temperatures, lanes, P: tl.constexpr):
    """Compute the `BlockSums` of the members."""
    sums = BlockSums(
        zeros(P.classes, P),
        tl.zeros([tl.constexpr(P.block)], P.real),
        zeros(P.classes * P.square, P),
        zeros(P.classes * P.votes, P),
    )
    # A loop that is not unrolled: unrolled, sums that are not urgent would wait in registers until
    # the registers overflow.
    for m in range(len(members)):
        view = pick_view(members, m)
        o_member = voxel_offsets(lanes, view.strides)
        weight = from_bits(pick(weights, m), P)
        inverse_t = from_bits(pick(inverse_temperatures, m), P)
        sums = add_member(sums, view, o_member, lanes.m_voxels, weight, inverse_t, P)
    return sums
