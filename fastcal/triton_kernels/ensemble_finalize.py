# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# ruff: noqa: SIM108
"""Maps and statistics of an accumulator's state, any number of classes."""

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
from fastcal.triton_kernels.finish import Launch, finish_launch
from fastcal.triton_kernels.finish_block import finish_class, finish_voxels
from fastcal.triton_kernels.plan import finish_plan, member_plan
from fastcal.triton_kernels.summary import (
    add_to_total,
    add_variance,
    add_votes,
    normalised,
    not_negative,
    summarise,
)
from fastcal.triton_kernels.walk import block_lanes, class_view, voxel_offsets, voxel_shape


@triton.jit
def mean_logit_moments(state, o_state, m_voxels, scale, P: tl.constexpr, C: tl.constexpr):
    """Maximum of the mean logits, and 1 / sum of e^(z - max); zeros where they are not needed."""
    zero = tl.zeros(o_state.shape, P.real)
    top = zero
    inverse_total = zero
    if P.logit_space and P.softmax:
        best = tl.zeros(o_state.shape, tl.int32)
        top = load_class(state, o_state, 0, m_voxels, P) * scale
        for k in range(1, C):
            z = load_class(state, o_state, k, m_voxels, P) * scale
            top, best = raise_top(z, k, top, best)
        total = zero
        lost = zero
        for k in range(C):
            e = tl.exp(load_class(state, o_state, k, m_voxels, P) * scale - top)
            total, lost = add_compensated(total, lost, e, C)
        inverse_total = divide(zero + 1.0, total, P.wide)
    return top, inverse_total


@triton.jit
def activated(z, top, inverse_total, P: tl.constexpr):
    """The probability of a class from its mean logit; a mean probability stays."""
    if P.logit_space:
        if P.softmax:
            z = tl.exp(z - top) * inverse_total
        else:
            z = sigmoid(z, P.wide)
    return z


@triton.jit
def mean_class(state, o_state, k, m_voxels, scale, top, inverse_total, P: tl.constexpr):
    """Mean probability of class ``k``, before it is normalised."""
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
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    CELLS: tl.constexpr,
):
    """Finishes a block of voxels, reading each plane of the state twice or more (from cache).

    Args:
        state: `View` of ``[planes, voxels]``.
        maps, count: `MapViews`, and `Count` or None.
        extents, n_inner: Of the inner axes, and their product.
        scale, eps: 1 / total weight and lower clip of the likelihood, doubles as their bits.
    """
    i_outer, o_voxels, m_voxels = block_lanes(tl.program_id(0), n_inner, P.index_64, BLOCK)
    o_state = voxel_offsets(i_outer, o_voxels, extents, state.strides)
    scale = from_bits(scale, P)
    eps = from_bits(eps, P)
    members = tl.cast(n_members, P.real)
    zero = tl.zeros([BLOCK], P.real)
    words = zero
    kept = m_voxels
    target = tl.zeros([BLOCK], tl.int32) - 1
    if F.count:
        words = row_words(count, i_outer)
        kept, target = keep_voxels(
            count, words, ignore_index, i_outer, o_voxels, extents, m_voxels, F, C
        )

    top, inverse_total = mean_logit_moments(state, o_state, m_voxels, scale, P, C)
    total = zero
    spread = zero
    off = tl.zeros([BLOCK], tl.int32)
    if F.normalise:
        for k in range(C):
            p = mean_class(state, o_state, k, m_voxels, scale, top, inverse_total, P)
            total, spread, off = add_to_total(p, total, spread, off)

    lowest = zero
    highest = zero
    label = tl.zeros([BLOCK], tl.int32)
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
            p = normalised(p, total, spread, off, F, P.wide)
        lowest, highest, label, class_sum, entropy, lost = summarise(
            p, k, lowest, highest, label, class_sum, entropy, lost, F, C
        )
        if F.count:
            q = not_negative(p)
            squares, p_target = add_squares(squares, p_target, q, target == k)
            if F.entropies:
                count_entropy = less_p_ln_p(count_entropy, q, P.wide)

    expected_entropy = zero
    if P.entropy:
        expected_entropy = load_class(state, o_state, C, m_voxels, P) * scale
    valid, counted = finish_voxels(
        maps, count, words, kept, target, squares, p_target, count_entropy,
        lowest, highest, label, class_sum, entropy, expected_entropy, variance, most, minority,
        members, eps, n_cells, i_outer, o_voxels, extents, m_voxels, F, P.wide, C, CELLS,
    )  # fmt: skip
    if F.by_class:
        for k in range(C):
            p = mean_class(state, o_state, k, m_voxels, scale, top, inverse_total, P)
            if F.normalise:
                p = normalised(p, total, spread, off, F, P.wide)
            finish_class(
                maps, count, words, p, k, label, target, valid, counted,
                eps, n_cells, i_outer, o_voxels, extents, m_voxels, F, P.wide, C, CELLS,
            )  # fmt: skip


def ensemble_finalize(
    state: Tensor,
    n_members: int,
    total_weight: float,
    reading: Reading,
    layout: StateLayout,
    finish: Finish,
) -> None:
    """Finishes ``state [planes, *voxel shape]``, which stays as it is."""
    shape = voxel_shape(state, 0)
    if 0 in shape:
        return

    def run(launch: Launch) -> None:
        plan = member_plan(reading, layout, state.dtype, [], [], launch.index_64)
        finalize_kernel[(launch.n_blocks,)](
            *launch.inputs,
            launch.maps,
            launch.count,
            launch.walk.extents,
            launch.walk.n_inner,
            **launch.scalars,
            P=plan,
            F=finish_plan(reading, finish),
            C=layout.num_classes,
            BLOCK=launch.block,
            CELLS=policy.HISTOGRAM_CELLS,
            num_warps=policy.NUM_WARPS,
            enable_fp_fusion=False,
        )

    finish_launch(
        [class_view(state, 0)],
        policy.LOAD_BYTES // state.element_size(),
        shape,
        layout.num_classes,
        n_members,
        total_weight,
        reading,
        finish,
        run,
    )
