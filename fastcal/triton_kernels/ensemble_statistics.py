# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
"""One shot: members in, maps and statistics out."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcal.core.problem import Finish, Reading, StateLayout
from fastcal.triton_kernels import policy
from fastcal.triton_kernels.activation import (
    from_bits,
)
from fastcal.triton_kernels.cells import less_p_ln_p
from fastcal.triton_kernels.counting import add_squares, keep_voxels, row_words
from fastcal.triton_kernels.ensemble_accumulate import (
    empty_state,
    ensemble_accumulate,
    launches,
)
from fastcal.triton_kernels.ensemble_finalize import ensemble_finalize
from fastcal.triton_kernels.finish import Launch, finish_launch
from fastcal.triton_kernels.finish_block import finish_class, finish_voxels
from fastcal.triton_kernels.plan import bits, finish_plan, member_plan
from fastcal.triton_kernels.registers import add_members, mean_rows, normalised_rows
from fastcal.triton_kernels.summary import (
    add_variance,
    add_votes,
    not_negative,
    summarise,
)
from fastcal.triton_kernels.walk import block_lanes, class_view, voxel_shape


@triton.jit(
    do_not_specialize=[
        "weights",
        "inverse_temperatures",
        "scale",
        "n_members",
        "ignore_index",
        "eps",
    ]
)
def statistics_kernel(
    members,
    weights,
    inverse_temperatures,
    maps,
    count,
    scratch,
    extents,
    n_inner,
    n_blocks,
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
    """Goes over blocks of voxels: every member is read once, sums stay in registers.

    Args:
        members: Tuple of `View`, any strides and alignment.
        weights, inverse_temperatures: Tuples of doubles as their bits.
        maps, count: `MapViews`, and `Count` or None.
        scratch: Where a program keeps its block's mean probabilities, ``[programs, C, BLOCK]``.
        extents, n_inner, n_blocks: Of the inner axes, their product, blocks of all outer items.
        scale, eps: 1 / total weight and lower clip of the likelihood, doubles as their bits.
    """
    scale = from_bits(scale, P)
    eps = from_bits(eps, P)
    for i_block in range(tl.program_id(0), n_blocks, tl.num_programs(0)):
        i_outer, o_voxels, m_voxels = block_lanes(i_block, n_inner, P.index_64, BLOCK)
        sums, expected_entropy, squares, votes = add_members(
            members,
            weights,
            inverse_temperatures,
            i_outer,
            o_voxels,
            extents,
            m_voxels,
            P,
            C,
            BLOCK,
        )
        means = mean_rows(sums, scale, P, C)
        finish_rows(
            means, squares, votes, expected_entropy * scale, maps, count, scratch,
            tl.cast(n_members, P.real), scale, ignore_index, eps, n_cells,
            i_outer, o_voxels, extents, m_voxels, P, F, C, BLOCK, CELLS,
        )  # fmt: skip


@triton.jit
def finish_rows(
    means,
    square_sums,
    votes,
    expected_entropy,
    maps,
    count,
    scratch,
    n_members,
    scale,
    ignore_index,
    eps,
    n_cells,
    i_outer,
    o_voxels,
    extents,
    m_voxels,
    P: tl.constexpr,
    F: tl.constexpr,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    CELLS: tl.constexpr,
):
    """Finishes a block of voxels whose mean probabilities are in registers.

    Args:
        means, square_sums, votes: Tuples of a row a class.
    """
    zero = tl.zeros_like(means[0])
    words = zero
    kept = m_voxels
    target = tl.zeros(zero.shape, tl.int32) - 1
    if F.count:
        words = row_words(count, i_outer)
        kept, target = keep_voxels(
            count, words, ignore_index, i_outer, o_voxels, extents, m_voxels, F, C
        )
    lowest = zero
    highest = zero
    label = tl.zeros(zero.shape, tl.int32)
    class_sum = zero
    entropy = zero
    lost = zero
    squares = zero
    p_target = zero
    count_entropy = zero
    variance = zero
    most = zero
    minority = zero
    rows = normalised_rows(means, F, P.wide, C)
    p_scratch = scratch
    if F.by_class:
        i_program = tl.cast(tl.program_id(0), tl.int64)
        p_scratch = scratch + i_program * (C * BLOCK) + tl.arange(0, BLOCK).to(tl.int64)
    for k in tl.static_range(C):
        p = rows[k]
        if P.square:
            variance = add_variance(variance, square_sums[k] * scale, means[k])
        if P.votes:
            most, minority = add_votes(most, minority, votes[k], n_members)
        lowest, highest, label, class_sum, entropy, lost = summarise(
            p, k, lowest, highest, label, class_sum, entropy, lost, F, C
        )
        if F.count:
            q = not_negative(p)
            squares, p_target = add_squares(squares, p_target, q, target == k)
            if F.entropies:
                count_entropy = less_p_ln_p(count_entropy, q, P.wide)
        if F.by_class:
            tl.store(p_scratch + tl.cast(k * BLOCK, tl.int64), p)
    valid, counted = finish_voxels(
        maps, count, words, kept, target, squares, p_target, count_entropy,
        lowest, highest, label, class_sum, entropy, expected_entropy, variance, most, minority,
        n_members, eps, n_cells, i_outer, o_voxels, extents, m_voxels, F, P.wide, C, CELLS,
    )  # fmt: skip
    if F.by_class:
        # A loop over rows in memory: unrolled over rows in registers it would not fit them.
        tl.debug_barrier()
        for k in range(C):
            p = tl.load(p_scratch + tl.cast(k * BLOCK, tl.int64))
            finish_class(
                maps, count, words, p, k, label, target, valid, counted,
                eps, n_cells, i_outer, o_voxels, extents, m_voxels, F, P.wide, C, CELLS,
            )  # fmt: skip
        tl.debug_barrier()


def ensemble_statistics(
    members: list[Tensor],
    weights: list[float],
    temperatures: list[float],
    reading: Reading,
    finish: Finish,
) -> None:
    """One launch where the sums fit registers; else members are accumulated, then finished."""
    class_dim = reading.class_dim
    first = members[0]
    shape = voxel_shape(first, class_dim)
    if 0 in shape:
        return
    num_classes = first.shape[class_dim]
    layout = StateLayout.for_maps(num_classes, tuple(finish.maps))
    total_weight = 0.0
    for weight in weights:
        total_weight += weight
    lane = policy.register_lane(first.element_size(), num_classes, layout.planes)
    homogeneous = len(launches(reading, temperatures, policy.LAUNCH_MEMBERS)) == 1
    if lane == 0 or not homogeneous:
        state = empty_state(first, class_dim, layout)
        ensemble_accumulate(members, weights, temperatures, reading, layout, state)
        ensemble_finalize(state, len(members), total_weight, reading, layout, finish)
        return

    def run(launch: Launch) -> None:
        plan = member_plan(reading, layout, first.dtype, weights, temperatures, launch.index_64)
        stage = finish_plan(reading, finish)
        programs = min(launch.n_blocks, policy.resident_programs(first.device))
        scratch = None
        if stage.by_class:
            real = torch.float64 if plan.wide else torch.float32
            size = programs * num_classes * launch.block
            scratch = torch.empty(size, dtype=real, device=first.device)
        statistics_kernel[(programs,)](
            launch.inputs,
            tuple(bits(w) for w in weights),
            tuple(bits(1.0 / t) for t in temperatures),
            launch.maps,
            launch.count,
            scratch,
            launch.walk.extents,
            launch.walk.n_inner,
            launch.n_blocks,
            **launch.scalars,
            P=plan,
            F=stage,
            C=num_classes,
            BLOCK=launch.block,
            CELLS=policy.HISTOGRAM_CELLS,
            num_warps=policy.NUM_WARPS,
            enable_fp_fusion=False,
        )

    finish_launch(
        [class_view(member, class_dim) for member in members],
        lane,
        shape,
        num_classes,
        len(members),
        total_weight,
        reading,
        finish,
        run,
    )
