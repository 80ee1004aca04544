# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# ruff: noqa: SIM108
"""Maps and statistics of the state of an accumulator, for any number of classes."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fastcal.core.problem import Finish, Reading, StateLayout
from fastcal.triton_kernels import policy
from fastcal.triton_kernels.activation import (
    add_compensated,
    divide,
    from_bits,
    load_class,
    raise_top,
    sigmoid,
)
from fastcal.triton_kernels.cells import less_p_ln_p
from fastcal.triton_kernels.counting import add_squares, keep_voxels, row_words
from fastcal.triton_kernels.finish import finish_launch
from fastcal.triton_kernels.finish_block import Terms, finish_class, finish_voxels
from fastcal.triton_kernels.plan import Stage, finish_plan, member_plan
from fastcal.triton_kernels.summary import (
    Summary,
    add_entropy,
    add_to_total,
    add_variance,
    add_votes,
    normalised,
    not_negative,
    summarise,
)
from fastcal.triton_kernels.walk import block_lanes, class_view, voxel_offsets, voxel_shape


@triton.jit
def mean_logit_moments(state, o_state, m_voxels, scale, P: tl.constexpr):
    """Compute the maximum of the mean logits and 1 / sum of e^(z - max); 0 where not needed."""
    zero = tl.zeros(o_state.shape, P.real)
    top = zero
    inverse_total = zero
    if P.logit_space and P.softmax:
        best = tl.zeros(o_state.shape, tl.int32)
        top = load_class(state, o_state, 0, m_voxels, P) * scale
        for k in range(1, P.classes):
            z = load_class(state, o_state, k, m_voxels, P) * scale
            top, best = raise_top(z, k, top, best)
        total = zero
        lost = zero
        for k in range(P.classes):
            e = tl.exp(load_class(state, o_state, k, m_voxels, P) * scale - top)
            total, lost = add_compensated(total, lost, e, P.classes)
        inverse_total = divide(zero + 1.0, total, P.wide)
    return top, inverse_total


@triton.jit
def activated(z, top, inverse_total, P: tl.constexpr):
    """Compute the probability of a class from its mean logit. A mean probability stays."""
    if P.logit_space:
        if P.softmax:
            z = tl.exp(z - top) * inverse_total
        else:
            z = sigmoid(z, P.wide)
    return z


@triton.jit
def mean_class(state, o_state, k, m_voxels, scale, top, inverse_total, P: tl.constexpr):
    """Compute the mean probability of class ``k``, before it is normalised."""
    z = load_class(state, o_state, k, m_voxels, P) * scale
    return activated(z, top, inverse_total, P)


@triton.jit(do_not_specialize=["scale", "n_members", "ignore_index", "eps"])
def finalize_kernel(
    state,
    maps,
    count,
    extents,
    n_inner,
    scale,
    n_members,
    ignore_index,
    eps,
    n_cells,
    P: tl.constexpr,
    F: tl.constexpr,
):
    """Finish a block of voxels, reading each plane of the state twice or more, from the cache.

    ``state`` is the `PointerView` of ``[planes, voxels]``, ``maps`` are `MapViews`, and ``count``
    is `CountViews` or None. ``n_inner`` is the product of the ``extents`` of the inner axes.
    ``scale`` is 1 / total weight and ``eps`` the lower clip of the likelihood, doubles as bits.
    """
    C: tl.constexpr = P.classes
    lanes = block_lanes(tl.program_id(0), extents, n_inner, P.index_64, P.block)
    m_voxels = lanes.m_voxels
    o_state = voxel_offsets(lanes, state.strides)
    scale = from_bits(scale, P)
    members = tl.cast(n_members, P.real)
    stage = Stage(maps, count, ignore_index, from_bits(eps, P), n_cells, members)
    zero = tl.zeros([tl.constexpr(P.block)], P.real)
    words = zero
    kept = m_voxels
    target = tl.zeros([tl.constexpr(P.block)], tl.int32) - 1
    if F.count:
        words = row_words(count, lanes.i_outer)
        kept, target = keep_voxels(stage, words, lanes, F)

    top, inverse_total = mean_logit_moments(state, o_state, m_voxels, scale, P)
    total = zero
    spread = zero
    off = tl.zeros([tl.constexpr(P.block)], tl.int32)
    if F.normalise:
        for k in range(C):
            p = mean_class(state, o_state, k, m_voxels, scale, top, inverse_total, P)
            total, spread, off = add_to_total(p, total, spread, off)

    lowest = zero
    highest = zero
    label = tl.zeros([tl.constexpr(P.block)], tl.int32)
    class_sum = zero
    entropy = zero
    lost = zero
    squares = zero
    p_target = zero
    count_entropy = zero
    variance = zero
    most = zero
    minority = zero
    for k in range(C):
        p = mean_class(state, o_state, k, m_voxels, scale, top, inverse_total, P)
        if P.square:
            square = load_class(state, o_state, C + P.entropy + k, m_voxels, P) * scale
            variance = add_variance(variance, square, p)
        if P.votes:
            i_plane = C + P.entropy + C * P.square + k
            votes = load_class(state, o_state, i_plane, m_voxels, P)
            most, minority = add_votes(most, minority, votes, members)
        if F.normalise:
            p = normalised(p, total, spread, off, F)
        lowest, highest, label, class_sum = summarise(p, k, lowest, highest, label, class_sum)
        entropy, lost = add_entropy(p, entropy, lost, F)
        if F.count:
            q = not_negative(p)
            squares, p_target = add_squares(squares, p_target, q, target == k)
            if F.entropies:
                count_entropy = less_p_ln_p(count_entropy, q, P.wide)

    expected_entropy = zero
    if P.entropy:
        expected_entropy = load_class(state, o_state, C, m_voxels, P) * scale
    summary = Summary(
        lowest, highest, label, class_sum, entropy, expected_entropy, variance, most, minority
    )
    terms = Terms(kept, target, squares, p_target, count_entropy)
    outcome = finish_voxels(stage, words, lanes, summary, terms, F)
    if F.by_class:
        for k in range(C):
            p = mean_class(state, o_state, k, m_voxels, scale, top, inverse_total, P)
            if F.normalise:
                p = normalised(p, total, spread, off, F)
            finish_class(stage, words, lanes, p, k, outcome, F)


def ensemble_finalize(
    state: Tensor,
    n_members: int,
    total_weight: float,
    reading: Reading,
    layout: StateLayout,
    finish: Finish,
) -> None:
    """Compute maps and statistics of ``state [planes, *voxel shape]``, which stays as it is."""
    shape = voxel_shape(state, 0)
    if 0 in shape:
        return
    launch = finish_launch(
        [class_view(state, 0)],
        policy.LOAD_BYTES // state.element_size(),
        shape,
        layout.num_classes,
        n_members,
        total_weight,
        reading,
        finish,
    )
    plan = member_plan(
        reading, layout, state.dtype, [], [], block=launch.block, index_64=launch.index_64
    )
    finalize_kernel[(launch.n_blocks,)](
        *launch.inputs,
        launch.maps,
        launch.count,
        launch.walk.extents,
        launch.walk.n_inner,
        **launch.scalars,
        P=plan,
        F=finish_plan(reading, finish, plan),
        num_warps=policy.NUM_WARPS,
        enable_fp_fusion=False,
    )
    launch.fold()
