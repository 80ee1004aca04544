# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
"""The pass over segments: exact sums of probabilities and entropies per batch item and class.

A program sums one class over some blocks of one batch item and ends with one relaxed atomic
addition per word. Labels are read once per class, but a map only where the voxel is of the class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcal.core.problem import FRACTION_BITS
from fastcal.core.segment_problem import CLIP, ENTROPY_RANGE, SegmentProblem, SegmentWords
from fastcal.core.segment_problem import OUT_OF_RANGE as LIMIT
from fastcal.triton_kernels import policy
from fastcal.triton_kernels.cells import less_p_ln_p
from fastcal.triton_kernels.fixed_point import add_fixed, add_integer, to_fixed
from fastcal.triton_kernels.walk import (
    block_lanes,
    class_pointers,
    class_view,
    plan_walk,
    voxel_offsets,
    voxel_shape,
    voxel_view,
)

VOXELS = tl.constexpr(SegmentWords.VOXELS)
INTERIOR = tl.constexpr(SegmentWords.INTERIOR)
VOTES = tl.constexpr(SegmentWords.VOTES)
VOTE_PAIRS = tl.constexpr(SegmentWords.VOTE_PAIRS)
BAD_LABEL = tl.constexpr(SegmentWords.BAD_LABEL)
BAD_MEAN = tl.constexpr(SegmentWords.BAD_MEAN)
BAD_ENTROPY = tl.constexpr(SegmentWords.BAD_ENTROPY)
BAD_INFORMATION = tl.constexpr(SegmentWords.BAD_INFORMATION)
SOFT = tl.constexpr(SegmentWords.SOFT)
CONFIDENCE = tl.constexpr(SegmentWords.CONFIDENCE)
BINARY_ENTROPY = tl.constexpr(SegmentWords.BINARY_ENTROPY)
ENTROPY = tl.constexpr(SegmentWords.ENTROPY)
INFORMATION = tl.constexpr(SegmentWords.INFORMATION)
INTERIOR_ENTROPY = tl.constexpr(SegmentWords.INTERIOR_ENTROPY)
WORDS = tl.constexpr(SegmentWords.COUNT)

OUT_OF_RANGE = tl.constexpr(LIMIT)
LEAST_ENTROPY = tl.constexpr(ENTROPY_RANGE[0])
MOST_ENTROPY = tl.constexpr(ENTROPY_RANGE[1])
CLIP_LOW = tl.constexpr(CLIP[0][0])
CLIPPED_LOW = tl.constexpr(CLIP[0][1])
CLIP_HIGH = tl.constexpr(CLIP[1][0])
CLIPPED_HIGH = tl.constexpr(CLIP[1][1])


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """Compile-time switches, named as in `fastcal.core.segment_problem.SegmentProblem`."""

    real: Any
    """The accumulation type of a voxel."""
    wide: bool
    """The accumulation type is float64."""
    classes: int
    block: int
    """Voxels that a program reads at once."""
    multilabel: bool
    ignore: bool
    binary: bool
    clip: bool
    index_64: bool


@triton.jit
def segment_kernel(
    mean,
    label,
    entropy,
    information,
    votes,
    interior,
    sums,
    ignore_index,
    extents,
    n_inner,
    n_chunks,
    P: tl.constexpr,
):
    """Add the sums of one class over one chunk of a batch item.

    The tensors before ``sums`` are `PointerView` of any strides, and may be None from ``entropy``
    on. ``sums`` is int64 ``[items, classes, WORDS]``. ``n_inner`` is the product of the ``extents``
    of the inner axes. Program (i, k) takes class k of every ``n_chunks``-th block of an item.
    """
    k = tl.program_id(1)
    i_item = tl.program_id(0) // n_chunks
    blocks = tl.cdiv(n_inner, P.block)
    row = sums + (tl.cast(i_item, tl.int64) * P.classes + k) * WORDS
    n_voxels = tl.zeros([tl.constexpr(P.block)], tl.int32)
    n_interior = tl.zeros([tl.constexpr(P.block)], tl.int32)
    bad_label = tl.zeros([tl.constexpr(P.block)], tl.int32)
    bad_mean = tl.zeros([tl.constexpr(P.block)], tl.int32)
    bad_entropy = tl.zeros([tl.constexpr(P.block)], tl.int32)
    bad_information = tl.zeros([tl.constexpr(P.block)], tl.int32)
    n_votes = tl.zeros([tl.constexpr(P.block)], tl.int64)
    vote_pairs = tl.zeros([tl.constexpr(P.block)], tl.int64)
    soft = tl.zeros([tl.constexpr(P.block)], tl.int64)
    confidence = tl.zeros([tl.constexpr(P.block)], tl.int64)
    binary = tl.zeros([tl.constexpr(P.block)], tl.int64)
    entropies = tl.zeros([tl.constexpr(P.block)], tl.int64)
    informations = tl.zeros([tl.constexpr(P.block)], tl.int64)
    interior_entropies = tl.zeros([tl.constexpr(P.block)], tl.int64)

    for i_block in range(tl.program_id(0) % n_chunks, blocks, n_chunks):
        lanes = block_lanes(i_item * blocks + i_block, extents, n_inner, P.index_64, P.block)
        kept, bad, mine = read_labels(label, lanes, k, ignore_index, P)
        bad_label += bad.to(tl.int32)
        o_mean = voxel_offsets(lanes, mean.strides)
        raw = tl.load(class_pointers(mean, o_mean, k), mask=kept, other=0.0).to(P.real)
        in_range = (raw > -OUT_OF_RANGE) & (raw < 1 + OUT_OF_RANGE)
        bad_mean += (kept & (in_range == 0)).to(tl.int32)
        good = kept & in_range
        p = tl.where(good & (raw > 0), raw, 0.0)
        soft += to_fixed(p)
        member = good & mine
        n_voxels += member.to(tl.int32)
        confidence += to_fixed(tl.where(member, p, 0.0))
        if P.binary:
            h = binary_entropy(p, P)
            binary += to_fixed(tl.where(member, h, 0.0))
        if votes is not None:
            o_votes = voxel_offsets(lanes, votes.strides)
            v = tl.load(class_pointers(votes, o_votes, k), mask=kept, other=0.0).to(tl.int64)
            n_votes += v
            vote_pairs += v * (v - 1)
        if information is not None:
            value, wrong = read_map(information, lanes, member, P)
            informations += to_fixed(value)
            bad_information += wrong.to(tl.int32)
        if entropy is not None:
            value, wrong = read_map(entropy, lanes, member, P)
            entropies += to_fixed(value)
            bad_entropy += wrong.to(tl.int32)
        if interior is not None:
            o_interior = voxel_offsets(lanes, interior.strides)
            plane = k if P.multilabel else 0
            pointers = class_pointers(interior, o_interior, plane)
            deep = member & (tl.load(pointers, mask=member, other=0) != 0)
            n_interior += deep.to(tl.int32)
            if entropy is not None:
                interior_entropies += to_fixed(tl.where(deep, value, 0.0))

    add_integer(row + VOXELS, tl.sum(n_voxels, axis=0))
    add_integer(row + INTERIOR, tl.sum(n_interior, axis=0))
    add_integer(row + VOTES, tl.sum(n_votes, axis=0))
    add_integer(row + VOTE_PAIRS, tl.sum(vote_pairs, axis=0))
    if k == 0:
        add_integer(row + BAD_LABEL, tl.sum(bad_label, axis=0))
    add_integer(row + BAD_MEAN, tl.sum(bad_mean, axis=0))
    add_integer(row + BAD_ENTROPY, tl.sum(bad_entropy, axis=0))
    add_integer(row + BAD_INFORMATION, tl.sum(bad_information, axis=0))
    add_fixed(row + SOFT, tl.sum(soft, axis=0))
    add_fixed(row + CONFIDENCE, tl.sum(confidence, axis=0))
    add_fixed(row + BINARY_ENTROPY, tl.sum(binary, axis=0))
    add_fixed(row + ENTROPY, tl.sum(entropies, axis=0))
    add_fixed(row + INFORMATION, tl.sum(informations, axis=0))
    add_fixed(row + INTERIOR_ENTROPY, tl.sum(interior_entropies, axis=0))


@triton.jit
def read_labels(label, lanes, k, ignore_index, P: tl.constexpr):
    """Find the voxels that count, those with a bad label, and those of class ``k``."""
    o_label = voxel_offsets(lanes, label.strides)
    if P.multilabel:
        bad = lanes.o_voxels < 0
        wanted = lanes.m_voxels
        mine = bad
        for j in range(P.classes):
            pointers = class_pointers(label, o_label, j)
            value = tl.load(pointers, mask=lanes.m_voxels, other=0).to(tl.int64)
            if P.ignore:
                wanted = wanted & (value != ignore_index)
            bad = bad | (value < 0) | (value >= 2)
            mine = mine | (tl.where(k == j, value, 0) == 1)
    else:
        pointers = label.pointer + o_label
        value = tl.load(pointers, mask=lanes.m_voxels, other=0).to(tl.int64)
        wanted = lanes.m_voxels
        if P.ignore:
            wanted = wanted & (value != ignore_index)
        bad = (value < 0) | (value >= P.classes)
        mine = value == k
    return wanted & (bad == 0), wanted & bad, mine


@triton.jit
def read_map(view, lanes, member, P: tl.constexpr):
    """Load a map over a segment, 0 elsewhere, and find where it is no entropy."""
    pointers = view.pointer + voxel_offsets(lanes, view.strides)
    value = tl.load(pointers, mask=member, other=0.0).to(P.real)
    good = (value > LEAST_ENTROPY) & (value < MOST_ENTROPY)
    return tl.where(good, value, 0.0), member & (good == 0)


@triton.jit
def binary_entropy(p, P: tl.constexpr):
    """Compute ``-(p ln p + q ln q)`` with q = 1 - p."""
    if P.clip:
        p = tl.where(p < CLIP_LOW, CLIPPED_LOW, p)
        p = tl.where(p > CLIP_HIGH, CLIPPED_HIGH, p)
    rest = 1 - p
    h = less_p_ln_p(tl.zeros_like(p), p, P.wide)
    return less_p_ln_p(h, tl.where(rest < 0, 0.0, rest), P.wide)


def segment_sums(problem: SegmentProblem, sums: Tensor) -> None:
    """Add the sums of every batch item and class to ``sums``, ``[B, C, SegmentWords.COUNT]``."""
    mean = problem.mean
    shape = voxel_shape(mean, 1)
    if 0 in shape:
        return
    interior = problem.interior
    by_label = (lambda it: class_view(it, 1)) if problem.multilabel else voxel_view
    views = [
        class_view(mean, 1),
        by_label(problem.label),
        None if problem.entropy is None else voxel_view(problem.entropy),
        None if problem.mutual_information is None else voxel_view(problem.mutual_information),
        None if problem.votes is None else class_view(problem.votes, 1),
        None if interior is None else by_label(interior.view(torch.uint8)),
    ]
    walk, laid = plan_walk(shape, views, pinned=True)
    wide = mean.dtype == torch.float64
    block = policy.SEGMENT_BLOCK // (2 if wide else 1)
    plan = SegmentPlan(
        real=tl.float64 if wide else tl.float32,
        wide=wide,
        classes=mean.shape[1],
        block=block,
        multilabel=problem.multilabel,
        ignore=problem.ignore_index is not None,
        binary=problem.binary,
        clip=problem.clip,
        index_64=walk.n_inner + block >= 2**31,
    )
    # As many programs as the device holds at once, with at least one chunk of each item and class.
    wanted = triton.cdiv(policy.resident_programs(mean.device), walk.n_outer * plan.classes)
    n_chunks = max(1, min(wanted, triton.cdiv(walk.n_inner, block)))
    segment_kernel[(walk.n_outer * n_chunks, plan.classes)](
        *laid,
        sums,
        0 if problem.ignore_index is None else problem.ignore_index,
        walk.extents,
        walk.n_inner,
        n_chunks,
        P=plan,
        num_warps=policy.NUM_WARPS,
        enable_fp_fusion=False,
    )
    low = sums[..., SegmentWords.SOFT + 1 :: 2]
    sums[..., SegmentWords.SOFT :: 2] += low >> FRACTION_BITS
    low &= (1 << FRACTION_BITS) - 1
