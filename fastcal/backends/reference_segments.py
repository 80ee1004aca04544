"""The pass over segments in plain PyTorch, one block of voxels at a time.

As in `fastcal.backends.reference_counting`, every step on the way to an integer is a single IEEE
operation, so equal numbers give equal integers whatever computes them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastcal.backends.boxes import boxes
from fastcal.backends.reference_counting import logarithm
from fastcal.core.arrays import accumulation_type
from fastcal.core.problem import FRACTION_BITS
from fastcal.core.segment_problem import (
    CLIP,
    ENTROPY_RANGE,
    OUT_OF_RANGE,
    SegmentProblem,
    SegmentWords,
)

BLOCK_ELEMENTS = 1 << 20
"""Voxels times classes in a block. This bounds the memory, and the int64 sums of a block."""

_UNIT = 1 << FRACTION_BITS


def segment_sums(problem: SegmentProblem, sums: Tensor) -> None:
    """Add the sums of every batch item and class to ``sums``, ``[B, C, SegmentWords.COUNT]``."""
    num_classes = problem.mean.shape[1]
    limit = max(1, BLOCK_ELEMENTS // num_classes)
    for item in range(len(problem.mean)):
        for box in boxes(problem.mean.shape[2:], limit):
            _add_block(problem, item, box, sums[item])


def _add_block(problem: SegmentProblem, item: int, box: tuple[slice, ...], rows: Tensor) -> None:
    real = accumulation_type(problem.mean.dtype)
    of_class: tuple[int | slice, ...] = (item, slice(None), *box)
    of_voxel: tuple[int | slice, ...] = (item, *box)
    mean = problem.mean[of_class].reshape(problem.mean.shape[1], -1).to(real)
    label = problem.label[of_class if problem.multilabel else of_voxel]
    label = label.reshape(len(mean) if problem.multilabel else 1, -1).to(torch.int64)
    kept = torch.ones_like(label[0], dtype=torch.bool)
    if problem.ignore_index is not None:
        kept = (label != problem.ignore_index).all(0)
    outside = (label < 0) | (label >= (2 if problem.multilabel else len(mean)))
    rows[0, SegmentWords.BAD_LABEL] += (kept & outside.any(0)).sum()
    kept = kept & ~outside.any(0)
    inside = None
    if problem.interior is not None:
        inside = problem.interior[of_class if problem.multilabel else of_voxel]
        inside = inside.reshape(len(label), -1)
    maps = [
        None if values is None else values[of_voxel].reshape(-1)
        for values in (problem.entropy, problem.mutual_information)
    ]
    votes = (
        None
        if problem.votes is None
        else problem.votes[of_class].reshape(mean.shape).to(torch.int64)
    )
    for k, raw in enumerate(mean):
        plane = k if problem.multilabel else 0
        in_range = (raw > -OUT_OF_RANGE) & (raw < 1 + OUT_OF_RANGE)
        good = kept & in_range
        p = torch.where(good, raw, 0).clamp_min(0)
        row = rows[k]
        row[SegmentWords.BAD_MEAN] += (kept & ~in_range).sum()
        _add_real(row, SegmentWords.SOFT, p)
        if votes is not None:
            v = votes[k][kept]
            row[SegmentWords.VOTES] += v.sum()
            row[SegmentWords.VOTE_PAIRS] += (v * (v - 1)).sum()
        member = good & (label[plane] == (1 if problem.multilabel else k))
        deep = None if inside is None else member & inside[plane]
        _add_segment(row, problem, p, member, deep, maps)


def _add_segment(
    row: Tensor,
    problem: SegmentProblem,
    p: Tensor,
    member: Tensor,
    deep: Tensor | None,
    maps: list[Tensor | None],
) -> None:
    """Add what is summed over the voxels of one segment."""
    entropy, information = maps
    row[SegmentWords.VOXELS] += member.sum()
    _add_real(row, SegmentWords.CONFIDENCE, p[member])
    if problem.binary:
        _add_real(row, SegmentWords.BINARY_ENTROPY, binary_entropy(p[member], problem.clip))
    if deep is not None:
        row[SegmentWords.INTERIOR] += deep.sum()
    if entropy is not None:
        good = _is_entropy(entropy)
        row[SegmentWords.BAD_ENTROPY] += (member & ~good).sum()
        _add_real(row, SegmentWords.ENTROPY, entropy[member & good])
        if deep is not None:
            _add_real(row, SegmentWords.INTERIOR_ENTROPY, entropy[deep & good])
    if information is not None:
        good = _is_entropy(information)
        row[SegmentWords.BAD_INFORMATION] += (member & ~good).sum()
        _add_real(row, SegmentWords.INFORMATION, information[member & good])


def binary_entropy(p: Tensor, clip: bool) -> Tensor:
    """Compute ``-(p ln p + q ln q)`` with q = 1 - p and the logarithm of the statistics."""
    if clip:
        (low, as_low), (high, as_high) = CLIP
        p = torch.where(p < torch.tensor(low, dtype=p.dtype), as_low, p)
        p = torch.where(p > torch.tensor(high, dtype=p.dtype), as_high, p)
    q = (1 - p).clamp_min(0)
    tiny = torch.finfo(p.dtype).tiny
    h = 0 - p * logarithm(p.clamp_min(tiny))
    return h - q * logarithm(q.clamp_min(tiny))


def _is_entropy(values: Tensor) -> Tensor:
    low, high = ENTROPY_RANGE
    return (values > low) & (values < high)


def _add_real(row: Tensor, word: int, values: Tensor) -> None:
    q = (values.to(torch.float64) * _UNIT).round().to(torch.int64)
    low = row[word + 1] + (q & (_UNIT - 1)).sum()
    row[word] += (q >> FRACTION_BITS).sum() + (low >> FRACTION_BITS)
    row[word + 1] = low & (_UNIT - 1)
