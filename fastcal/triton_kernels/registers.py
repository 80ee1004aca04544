# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# ruff: noqa: RUF005
"""A block of voxels in registers: a tuple of rows, one a class, for every sum over members."""

from __future__ import annotations

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
from fastcal.triton_kernels.ensemble_accumulate import (
    vote,
)
from fastcal.triton_kernels.ensemble_finalize import activated
from fastcal.triton_kernels.moments import row_moments
from fastcal.triton_kernels.summary import (
    add_to_total,
    normalised,
)
from fastcal.triton_kernels.walk import View, voxel_offsets


@triton.jit
def zeros(C: tl.constexpr, BLOCK: tl.constexpr, P: tl.constexpr):
    """A row of zeros for every class."""
    rows = ()
    for _ in tl.static_range(C):
        rows = rows + (tl.zeros([BLOCK], P.real),)
    return rows


@triton.jit
def add_member(
    view,
    o_member,
    m_voxels,
    weight,
    inverse_t,
    sums,
    entropy,
    squares,
    votes,
    P: tl.constexpr,
    C: tl.constexpr,
):
    """Adds a member to the sums of every class, which stay in registers.

    Args:
        view: `View` of the member, any strides; read once.
        sums, squares, votes: Tuples of a row a class; the latter two are empty where not wanted.
    """
    rows = ()
    for _ in tl.static_range(C):
        # Step by step: multiples of the stride would be kept in registers.
        rows = rows + (load_member(view, o_member, 0, m_voxels, P),)
        o_member += tl.cast(view.class_stride, tl.int64)
    top, best, inverse_total, h = row_moments(rows, inverse_t, P, C)
    if P.entropy:
        entropy = add_weighted(entropy, h, weight, P)
    new_sums = ()
    new_squares = ()
    new_votes = ()
    for k in tl.static_range(C):
        x = summand(rows[k], top, inverse_total, inverse_t, P)
        new_sums = new_sums + (add_weighted(sums[k], x, weight, P),)
        if P.square:
            p = probability(rows[k], top, inverse_total, inverse_t, P)
            new_squares = new_squares + (add_weighted(squares[k], p * p, weight, P),)
        if P.votes:
            v = vote(rows[k], k, best, top, inverse_total, inverse_t, P)
            new_votes = new_votes + (votes[k] + v,)
    return new_sums, entropy, new_squares, new_votes


@triton.jit
def mean_rows(sums, scale, P: tl.constexpr, C: tl.constexpr):
    """Mean probabilities of every class, before they are normalised."""
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
def normalised_rows(rows, F: tl.constexpr, WIDE: tl.constexpr, C: tl.constexpr):
    """Every class over the sum of the classes, where that is asked for."""
    if F.normalise:
        total = tl.zeros_like(rows[0])
        spread = total
        off = tl.zeros(total.shape, tl.int32)
        for k in tl.static_range(C):
            total, spread, off = add_to_total(rows[k], total, spread, off)
        shares = ()
        for k in tl.static_range(C):
            shares = shares + (normalised(rows[k], total, spread, off, F, WIDE),)
        return shares
    else:
        return rows


@triton.jit
def pick(values, m):
    """``values[m]`` of a tuple of scalars."""
    picked = values[0]
    for i in tl.static_range(1, len(values)):
        picked = tl.where(m == i, values[i], picked)
    return picked


@triton.jit
def pick_view(members, m):
    """Pointer and strides of member ``m``, chosen by selects: a tuple has no run-time index."""
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
    return View(pointer, class_stride, strides)


@triton.jit
def add_members(
    members,
    weights,
    inverse_temperatures,
    i_outer,
    o_voxels,
    extents,
    m_voxels,
    P: tl.constexpr,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sums over the members of a block: rows of w p, the sum of w H, rows of w p^2, votes."""
    sums = zeros(C, BLOCK, P)
    squares = zeros(C * P.square, BLOCK, P)
    votes = zeros(C * P.votes, BLOCK, P)
    entropy = tl.zeros([BLOCK], P.real)
    # A real loop: unrolled, sums that are not urgent wait in registers until these overflow.
    for m in range(len(members)):
        view = pick_view(members, m)
        o_member = voxel_offsets(i_outer, o_voxels, extents, view.strides)
        weight = from_bits(pick(weights, m), P)
        inverse_t = from_bits(pick(inverse_temperatures, m), P)
        sums, entropy, squares, votes = add_member(
            view, o_member, m_voxels, weight, inverse_t, sums, entropy, squares, votes, P, C
        )
    return sums, entropy, squares, votes
