# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
"""One shot: members go in, maps and statistics come out."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcal.core.arrays import accumulation_type
from fastcal.core.problem import Finish, Reading, StateLayout
from fastcal.triton_kernels import policy
from fastcal.triton_kernels.activation import from_bits
from fastcal.triton_kernels.cells import less_p_ln_p
from fastcal.triton_kernels.counting import add_squares, keep_voxels, row_words
from fastcal.triton_kernels.ensemble_accumulate import (
    empty_state,
    ensemble_accumulate,
    launches,
)
from fastcal.triton_kernels.ensemble_finalize import ensemble_finalize
from fastcal.triton_kernels.finish import finish_launch
from fastcal.triton_kernels.finish_block import Terms, finish_class, finish_voxels
from fastcal.triton_kernels.plan import Stage, bits, finish_plan, member_plan
from fastcal.triton_kernels.registers import add_members, mean_rows, normalised_rows
from fastcal.triton_kernels.summary import (
    Summary,
    add_entropy,
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
):
    """Go over blocks of voxels. Every member is read once, and sums stay in registers.

    ``members`` is a tuple of `PointerView` of any strides and alignment. ``weights`` and
    ``inverse_temperatures`` are tuples of doubles as their bits. ``maps`` are `MapViews`, and
    ``count`` is `CountViews` or None. In ``scratch``, ``[programs, C, block]``, a program keeps the
    mean probabilities of its block. ``n_inner`` is the product of the ``extents`` of the inner
    axes, and ``n_blocks`` counts the blocks of all outer items. ``scale`` is 1 / total weight and
    ``eps`` the lower clip of the likelihood, doubles as their bits.
    """
    scale = from_bits(scale, P)
    members_real = tl.cast(n_members, P.real)
    stage = Stage(maps, count, ignore_index, from_bits(eps, P), n_cells, members_real)
    for i_block in range(tl.program_id(0), n_blocks, tl.num_programs(0)):
        lanes = block_lanes(i_block, extents, n_inner, P.index_64, P.block)
        sums = add_members(members, weights, inverse_temperatures, lanes, P)
        finish_sums(stage, sums, scratch, scale, lanes, P, F)


@triton.jit
def finish_sums(stage, sums, scratch, scale, lanes, P: tl.constexpr, F: tl.constexpr):
    """Finish a block of voxels whose `BlockSums` are in registers."""
    C: tl.constexpr = P.classes
    means = mean_rows(sums.rows, scale, P)
    zero = tl.zeros_like(means[0])
    words = zero
    kept = lanes.m_voxels
    target = tl.zeros(zero.shape, tl.int32) - 1
    if F.count:
        words = row_words(stage.count, lanes.i_outer)
        kept, target = keep_voxels(stage, words, lanes, F)
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
    rows = normalised_rows(means, F)
    p_scratch = scratch
    if F.by_class:
        i_program = tl.cast(tl.program_id(0), tl.int64)
        p_scratch = scratch + i_program * (C * P.block) + tl.arange(0, P.block).to(tl.int64)
    for k in tl.static_range(C):
        p = rows[k]
        if P.square:
            variance = add_variance(variance, sums.squares[k] * scale, means[k])
        if P.votes:
            most, minority = add_votes(most, minority, sums.votes[k], stage.n_members)
        lowest, highest, label, class_sum = summarise(p, k, lowest, highest, label, class_sum)
        entropy, lost = add_entropy(p, entropy, lost, F)
        if F.count:
            q = not_negative(p)
            squares, p_target = add_squares(squares, p_target, q, target == k)
            if F.entropies:
                count_entropy = less_p_ln_p(count_entropy, q, P.wide)
        if F.by_class:
            tl.store(p_scratch + tl.cast(k * P.block, tl.int64), p)
    summary = Summary(
        lowest, highest, label, class_sum, entropy, sums.entropy * scale, variance, most, minority
    )
    terms = Terms(kept, target, squares, p_target, count_entropy)
    outcome = finish_voxels(stage, words, lanes, summary, terms, F)
    if F.by_class:
        # A loop over rows in memory, because unrolled over rows in registers it would not fit.
        tl.debug_barrier()
        for k in range(C):
            p = tl.load(p_scratch + tl.cast(k * P.block, tl.int64))
            finish_class(stage, words, lanes, p, k, outcome, F)
        tl.debug_barrier()


def ensemble_statistics(
    members: list[Tensor],
    weights: list[float],
    temperatures: list[float],
    reading: Reading,
    finish: Finish,
) -> None:
    """Compute maps and statistics of the members.

    This is one launch where the sums fit registers. Otherwise members are accumulated into a state,
    and the state is finished.
    """
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
    launch = finish_launch(
        [class_view(member, class_dim) for member in members],
        lane,
        shape,
        num_classes,
        len(members),
        total_weight,
        reading,
        finish,
    )
    plan = member_plan(
        *(reading, layout, first.dtype, weights, temperatures),
        block=launch.block,
        index_64=launch.index_64,
    )
    stage = finish_plan(reading, finish, plan)
    programs = min(launch.n_blocks, policy.resident_programs(first.device))
    scratch = None
    if stage.by_class:
        size, real = programs * num_classes * launch.block, accumulation_type(first.dtype)
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
        num_warps=policy.NUM_WARPS,
        enable_fp_fusion=False,
    )
    launch.fold()
