# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
"""The pass of temperature scaling: loss, gradient and Hessian by inverse temperatures.

A program goes over blocks ``[voxels, classes]`` and keeps sums of doubles, which it writes into a
row of its own. The rows are then added in order, without atomics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcal.core.problem import TemperatureLayout, TemperatureProblem
from fastcal.triton_kernels import policy
from fastcal.triton_kernels.activation import divide
from fastcal.triton_kernels.fixed_point import logarithm
from fastcal.triton_kernels.tables import table
from fastcal.triton_kernels.walk import (
    block_lanes,
    class_view,
    plan_walk,
    voxel_offsets,
    voxel_shape,
    voxel_view,
)


@dataclass(frozen=True, slots=True)
class TemperaturePlan:
    """Compile-time switches; see `fastcal.core.problem.TemperatureProblem` for their meaning."""

    real: Any
    """The accumulation type of a voxel."""
    wide: bool
    """The accumulation type is float64."""
    classes: int
    columns: int
    """Columns of a tile, a power of two: the classes, and columns of padding."""
    block: int
    """Voxels of a tile."""
    from_logits: bool
    bernoulli: bool
    multilabel: bool
    per_class: bool
    ignore: bool
    index_64: bool


@triton.jit
def temperature_kernel(
    values,
    target,
    mask,
    numbers,
    counts,
    sums,
    ignore_index,
    extents,
    n_inner,
    n_blocks,
    P: tl.constexpr,
):
    """Sum over the blocks of a program, into its row of ``counts`` and ``sums``.

    ``values``, ``target`` and ``mask`` are `PointerView` of any strides, and ``mask`` may be None.
    ``numbers`` are doubles: tiny, rest, ln tiny, then the inverse temperatures. ``counts`` is int64
    ``[programs, 3]``, and ``sums`` are double zeros ``[programs, words]``. ``n_inner`` is the
    product of the ``extents`` of the inner axes, and ``n_blocks`` counts all blocks.
    """
    C: tl.constexpr = P.classes
    c = tl.arange(0, P.columns)
    o_classes = c.to(tl.int64)
    m_classes = c < C
    words: tl.constexpr = 1 + C + C * C if P.per_class else 3
    row = sums + tl.cast(tl.program_id(0), tl.int64) * words
    if P.per_class:
        b = tl.load(numbers + 3 + o_classes, mask=m_classes, other=1.0).to(P.real)[None, :]
    else:
        b = tl.load(numbers + 3).to(P.real)
    low = tl.load(numbers + 2).to(P.real)
    n_voxels = tl.zeros((), tl.int64)
    n_invalid = tl.zeros((), tl.int64)
    n_bad = tl.zeros((), tl.int64)
    loss = tl.zeros((), tl.float64)
    if P.per_class:
        gradient = tl.zeros([tl.constexpr(P.columns)], tl.float64)
        curvature = tl.zeros([tl.constexpr(P.columns)], tl.float64)
    else:
        gradient = tl.zeros((), tl.float64)
        curvature = tl.zeros((), tl.float64)

    for i_block in range(tl.program_id(0), n_blocks, tl.num_programs(0)):
        lanes = block_lanes(i_block, extents, n_inner, P.index_64, P.block)
        m_tile = lanes.m_voxels[:, None] & m_classes[None, :]
        o_values = voxel_offsets(lanes, values.strides)
        x = tl.load(tile_pointers(values, o_values, c), mask=m_tile, other=0.0).to(P.real)
        z, top, valid = finite_logits(x, numbers, low, m_classes, P)
        y, wanted, inside = read_target(target, mask, ignore_index, lanes, c, P)
        kept = wanted & inside & valid
        n_voxels += tl.sum(kept.to(tl.int32), axis=0)
        n_invalid += tl.sum((wanted & inside & (valid == 0)).to(tl.int32), axis=0)
        n_bad += tl.sum((wanted & (inside == 0)).to(tl.int32), axis=0)
        m_kept = kept[:, None] & m_classes[None, :]
        if P.bernoulli:
            f, g, h = bernoulli_terms(z, y, b, P)
            loss += total_of(f, m_kept)
            if P.per_class:
                gradient += tl.sum(tl.where(m_kept, g, 0.0).to(tl.float64), axis=0)
                curvature += tl.sum(tl.where(m_kept, h, 0.0).to(tl.float64), axis=0)
            else:
                gradient += total_of(g, m_kept)
                curvature += total_of(h, m_kept)
        else:
            if P.per_class:
                a = tl.where(m_classes[None, :], b * z, float("-inf"))
                a = a - tl.max(a, axis=1)[:, None]
            else:
                a = tl.where(m_classes[None, :], b * (z - top[:, None]), float("-inf"))
            e = tl.exp(a)
            total = tl.sum(e, axis=1)
            others = tl.sum(tl.where(y, 0.0, e), axis=1)
            a_target = tl.sum(tl.where(y, a, 0.0), axis=1)
            # Where the target is the largest class, the loss may be far below one rounding of the
            # total.
            lost = tl.where(a_target < 0, 0.0, others - (total - 1))
            f = logarithm(tl.where(kept, total, 1.0), P.wide) + lost - a_target
            loss += tl.sum(tl.where(kept, f, 0.0).to(tl.float64), axis=0)
            if P.per_class:
                p = divide(e, tl.zeros_like(e) + total[:, None], P.wide)
                q = divide(others, total, P.wide)[:, None]
                pz = tl.where(m_kept, p * z, 0.0)
                g = tl.where(y, -q, p) * z
                gradient += tl.sum(tl.where(m_kept, g, 0.0).to(tl.float64), axis=0)
                curvature += tl.sum((pz * (tl.where(y, q, 1 - p) * z)).to(tl.float64), axis=0)
                for k in range(C):
                    one = tl.sum(tl.where(c[None, :] == k, pz, 0.0), axis=1)
                    both = tl.sum((pz * one[:, None]).to(tl.float64), axis=0)
                    place = row + (1 + C + k * C) + o_classes
                    m_place = m_classes & (c != k)
                    tl.store(place, tl.load(place, mask=m_place, other=0.0) - both, mask=m_place)
            else:
                d = tl.where(e > 0, z - top[:, None], 0.0)
                mean = divide(tl.sum(e * d, axis=1), total, P.wide)
                square = divide(tl.sum(e * d * d, axis=1), total, P.wide)
                d_target = tl.sum(tl.where(y, z - top[:, None], 0.0), axis=1)
                gradient += tl.sum(tl.where(kept, mean - d_target, 0.0).to(tl.float64), axis=0)
                curvature += tl.sum(
                    tl.where(kept, square - mean * mean, 0.0).to(tl.float64), axis=0
                )

    o_counts = counts + tl.program_id(0) * 3
    tl.store(o_counts, n_voxels)
    tl.store(o_counts + 1, n_invalid)
    tl.store(o_counts + 2, n_bad)
    tl.store(row, loss)
    if P.per_class:
        tl.store(row + 1 + o_classes, gradient, mask=m_classes)
        tl.store(row + 1 + C + o_classes * (C + 1), curvature, mask=m_classes)
    else:
        tl.store(row + 1, gradient)
        tl.store(row + 2, curvature)


@triton.jit
def tile_pointers(view, o_voxels, c):
    """Compute the addresses ``[voxels, classes]`` of a tile."""
    o_classes = c.to(tl.int64) * tl.cast(view.class_stride, tl.int64)
    return view.pointer + (o_voxels[:, None] + o_classes[None, :])


@triton.jit
def total_of(tile, m_tile):
    """Sum a tile in double, over the classes first."""
    each = tl.sum(tl.where(m_tile, tile, 0.0).to(tl.float64), axis=1)
    return tl.sum(each, axis=0)


@triton.jit
def finite_logits(x, numbers, low, m_classes, P: tl.constexpr):
    """Compute logits (0 where a voxel is invalid), their maximum, and which voxels are valid."""
    inner = m_classes[None, :]
    if P.from_logits:
        top = tl.max(tl.where(inner & (x == x), x, float("-inf")), axis=1)
        bad = inner & ((x != x) | (x == float("inf")))
        valid = tl.sum(bad.to(tl.int32), axis=1) == 0
        if P.bernoulli:
            z = tl.where(x == float("-inf"), low, x)
        else:
            valid = valid & (top > float("-inf"))
            z = tl.where(x == float("-inf"), top[:, None] + low, x)
    else:
        bad = inner & ((x >= -1e-3) & (x <= 1.001) == 0)
        valid = tl.sum(bad.to(tl.int32), axis=1) == 0
        tiny = tl.load(numbers).to(P.real)
        z = logarithm(tl.where(x > tiny, tl.where(valid[:, None], x, 1.0), tiny), P.wide)
        if P.bernoulli:
            rest = tl.load(numbers + 1).to(P.real)
            left = 1 - x
            z = z - logarithm(
                tl.where(left > rest, tl.where(valid[:, None], left, 1.0), rest), P.wide
            )
        top = tl.max(tl.where(inner, z, float("-inf")), axis=1)
    return tl.where(valid[:, None], z, 0.0), tl.where(valid, top, 0.0), valid


@triton.jit
def read_target(target, mask, ignore_index, lanes, c, P: tl.constexpr):
    """Find whether each class is present ``[voxels, classes]``, and wanted and good voxels."""
    C: tl.constexpr = P.classes
    m_voxels = lanes.m_voxels
    wanted = m_voxels
    if mask is not None:
        o_mask = voxel_offsets(lanes, mask.strides)
        wanted = wanted & (tl.load(mask.pointer + o_mask, mask=m_voxels, other=0) != 0)
    o_target = voxel_offsets(lanes, target.strides)
    if P.multilabel:
        m_tile = m_voxels[:, None] & (c < C)[None, :]
        labels = tl.load(tile_pointers(target, o_target, c), mask=m_tile, other=0).to(tl.int64)
        bad = (labels < 0) | (labels >= 2)
        inside = tl.sum(bad.to(tl.int32), axis=1) == 0
        if P.ignore:
            wanted = wanted & (tl.sum((labels == ignore_index).to(tl.int32), axis=1) == 0)
        y = labels == 1
    else:
        label = tl.load(target.pointer + o_target, mask=m_voxels, other=0).to(tl.int64)
        inside = (label >= 0) & (label < C)
        if P.ignore:
            wanted = wanted & (label != ignore_index)
        y = label[:, None] == c[None, :]
    return y, wanted, inside


@triton.jit
def bernoulli_terms(z, y, b, P: tl.constexpr):
    """Compute loss, gradient and curvature of each class on its own."""
    s = tl.where(y, -z, z)
    t = s * b
    e = tl.exp(-tl.abs(t))
    total = 1 + e
    share = divide(tl.where(t < 0, e, 1 + (e - e)), total, P.wide)
    both = divide(e, total * total, P.wide)
    lost = e - (total - 1)
    loss = tl.where(t < 0, 0.0, t) + (logarithm(total, P.wide) + lost)
    return loss, share * s, both * s * s


def temperature_sums(
    problem: TemperatureProblem,
    inverse_temperatures: list[float],
    per_class: bool,
    counts: Tensor,
    sums: Tensor,
) -> None:
    """Add a volume to ``counts`` and ``sums``; see `fastcal.core.problem.TemperatureLayout`."""
    values = problem.values
    shape = voxel_shape(values, 0)
    if 0 in shape:
        return
    target = class_view(problem.target, 0) if problem.multilabel else voxel_view(problem.target)
    mask = None if problem.mask is None else voxel_view(problem.mask.view(torch.uint8))
    walk, laid = plan_walk(shape, [class_view(values, 0), target, mask], pinned=False)
    num_classes = values.shape[0]
    wide = values.dtype == torch.float64
    columns = triton.next_power_of_2(num_classes)
    block = max(16, policy.TEMPERATURE_TILE // columns // (2 if wide else 1))
    plan = TemperaturePlan(
        real=tl.float64 if wide else tl.float32,
        wide=wide,
        classes=num_classes,
        columns=columns,
        block=block,
        from_logits=problem.from_logits,
        bernoulli=problem.bernoulli,
        multilabel=problem.multilabel,
        per_class=per_class,
        ignore=problem.ignore_index is not None,
        index_64=walk.n_inner + block >= 2**31,
    )
    n_blocks = walk.n_outer * triton.cdiv(walk.n_inner, block)
    n_programs = min(n_blocks, policy.resident_programs(values.device))
    low = torch.tensor(problem.tiny, dtype=torch.float64).log().item()
    numbers = table([problem.tiny, problem.rest, low, *inverse_temperatures], values.device)
    n_words = TemperatureLayout(num_classes if per_class else 1).words
    row_counts = counts.new_zeros(n_programs, len(counts))
    row_sums = sums.new_zeros(n_programs, n_words)
    temperature_kernel[(n_programs,)](
        *laid,
        numbers,
        row_counts,
        row_sums,
        0 if problem.ignore_index is None else problem.ignore_index,
        walk.extents,
        walk.n_inner,
        n_blocks,
        P=plan,
        num_warps=policy.NUM_WARPS,
        enable_fp_fusion=False,
    )
    counts += row_counts.sum(0)
    sums += row_sums.sum(0)
