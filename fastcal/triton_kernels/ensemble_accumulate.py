# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# ruff: noqa: RUF005, SIM108
"""Members are added to the state of an accumulator, for any number of classes."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcal.core.arrays import accumulation_type
from fastcal.core.problem import Reading, StateLayout
from fastcal.triton_kernels import policy
from fastcal.triton_kernels.activation import (
    add_weighted,
    from_bits,
    load_member,
    probability,
    summand,
)
from fastcal.triton_kernels.moments import member_moments
from fastcal.triton_kernels.plan import bits, member_plan
from fastcal.triton_kernels.walk import (
    PointerView,
    block_lanes,
    class_pointers,
    class_view,
    plan_walk,
    voxel_offsets,
    voxel_shape,
)


@triton.jit(do_not_specialize=["weights", "inverse_temperatures"])
def accumulate_kernel(
    members,
    weights,
    inverse_temperatures,
    state,
    extents,
    n_inner,
    P: tl.constexpr,
):
    """Add members to a block of voxels. Each plane of the state is read and written once.

    ``members`` is a tuple of `PointerView` of any strides and alignment. ``weights`` and
    ``inverse_temperatures`` are tuples of doubles as their bits. ``state`` is the `PointerView` of
    ``[planes, voxels]``. ``n_inner`` is the product of the ``extents`` of the inner axes.
    """
    C: tl.constexpr = P.classes
    lanes = block_lanes(tl.program_id(0), extents, n_inner, P.index_64, P.block)
    m_voxels = lanes.m_voxels
    o_state = voxel_offsets(lanes, state.strides)
    tops = ()
    bests = ()
    inverse_totals = ()
    if P.entropy:
        p_entropy = class_pointers(state, o_state, C)
        entropy = tl.load(p_entropy, mask=m_voxels, other=0.0)
    for m in tl.static_range(len(members)):
        o_member = voxel_offsets(lanes, members[m].strides)
        inverse_t = from_bits(inverse_temperatures[m], P)
        top, best, inverse_total, h = member_moments(members[m], o_member, m_voxels, inverse_t, P)
        tops = tops + (top,)
        bests = bests + (best,)
        inverse_totals = inverse_totals + (inverse_total,)
        if P.entropy:
            entropy = add_weighted(entropy, h, from_bits(weights[m], P), P)
    if P.entropy:
        tl.store(p_entropy, entropy, mask=m_voxels)

    for k in range(C):
        p_sum = class_pointers(state, o_state, k)
        p_square = class_pointers(state, o_state, C + P.entropy + k)
        p_votes = class_pointers(state, o_state, C + P.entropy + C * P.square + k)
        total = tl.load(p_sum, mask=m_voxels, other=0.0)
        if P.square:
            square = tl.load(p_square, mask=m_voxels, other=0.0)
        if P.votes:
            votes = tl.load(p_votes, mask=m_voxels, other=0.0)
        for m in tl.static_range(len(members)):
            o_member = voxel_offsets(lanes, members[m].strides)
            weight = from_bits(weights[m], P)
            inverse_t = from_bits(inverse_temperatures[m], P)
            x = load_member(members[m], o_member, k, m_voxels, P)
            total = add_weighted(
                total, summand(x, tops[m], inverse_totals[m], inverse_t, P), weight, P
            )
            if P.square:
                p = probability(x, tops[m], inverse_totals[m], inverse_t, P)
                square = add_weighted(square, p * p, weight, P)
            if P.votes:
                votes += vote(x, k, bests[m], tops[m], inverse_totals[m], inverse_t, P)
        tl.store(p_sum, total, mask=m_voxels)
        if P.square:
            tl.store(p_square, square, mask=m_voxels)
        if P.votes:
            tl.store(p_votes, votes, mask=m_voxels)


@triton.jit
def vote(x, k, best, top, inverse_total, inverse_t, P: tl.constexpr):
    """Give 1 where a member votes for class ``k``, else 0."""
    if P.multilabel:
        if P.logit_space:
            chosen = x > 0
        else:
            chosen = probability(x, top, inverse_total, inverse_t, P) > 0.5
    else:
        chosen = best == k
    return chosen.to(P.real)


def ensemble_accumulate(
    members: list[Tensor],
    weights: list[float],
    temperatures: list[float],
    reading: Reading,
    layout: StateLayout,
    state: Tensor,
) -> None:
    """Add ``members`` in order to ``state [planes, *voxel shape]``."""
    class_dim = reading.class_dim
    shape = voxel_shape(members[0], class_dim)
    if 0 in shape:
        return
    lane = policy.LOAD_BYTES // state.element_size()
    for first, last in launches(reading, temperatures, policy.ACCUMULATE_MEMBERS):
        views: list[PointerView | None] = [class_view(m, class_dim) for m in members[first:last]]
        walk, laid = plan_walk(shape, [*views, class_view(state, 0)], pinned=False)
        *member_views, state_view = laid
        block = policy.block_voxels(lane, walk.n_inner)
        plan = member_plan(
            reading,
            layout,
            members[0].dtype,
            weights[first:last],
            temperatures[first:last],
            block=block,
            index_64=walk.n_inner + block >= 2**31,
        )
        accumulate_kernel[(walk.n_outer * triton.cdiv(walk.n_inner, block),)](
            tuple(member_views),
            tuple(bits(w) for w in weights[first:last]),
            tuple(bits(1.0 / t) for t in temperatures[first:last]),
            state_view,
            walk.extents,
            walk.n_inner,
            P=plan,
            num_warps=policy.NUM_WARPS,
            enable_fp_fusion=False,
        )


def launches(reading: Reading, temperatures: list[float], most: int) -> list[tuple[int, int]]:
    """Split members into ranges for one launch each: at most ``most``, all read the same way.

    Probabilities are used as they are at temperature 1, and become logits otherwise.
    """
    ranges = []
    first = 0
    for m in range(1, len(temperatures) + 1):
        if (
            m == len(temperatures)
            or m - first == most
            or (
                not reading.from_logits and (temperatures[m] == 1.0) != (temperatures[first] == 1.0)
            )
        ):
            ranges.append((first, m))
            first = m
    return ranges


def empty_state(member: Tensor, class_dim: int, layout: StateLayout) -> Tensor:
    """Make a state of zeros for members like this one."""
    size = (layout.planes, *voxel_shape(member, class_dim))
    return torch.zeros(size, dtype=accumulation_type(member.dtype), device=member.device)
