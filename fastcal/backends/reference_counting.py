"""The statistics stage in plain PyTorch: the probabilities of a block become exact integers.

Every step on the way to an integer is a single IEEE operation or an integer operation, so equal
probabilities give equal integers whatever computes them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastcal.backends.boxes import Box
from fastcal.core.problem import (
    FINE_OCTAVES,
    FRACTION_BITS,
    Counting,
    Extras,
    Reading,
    StatisticsLayout,
)

_UNIT = 1 << FRACTION_BITS
_LOW = _UNIT - 1

UNNORMALISED = 1e-3
"""How far from 1 the sum of a voxel's probabilities may lie before the voxel is counted."""

_LN2 = math.log(2.0)


def logarithm(x: Tensor) -> Tensor:
    """Compute the natural logarithm of positive normal numbers, as all statistics define it.

    With ``x = 2^e m`` and m in [sqrt 1/2, sqrt 2), ln m is the series of artanh in
    s = (m - 1) / (m + 1): ``ln m = 2 (s + s^3/3 + s^5/5 + ...)``. The series is cut after 4 terms
    for float32 and after 10 terms for float64.
    """
    if x.dtype == torch.float32:
        integer, shift, root, fraction, terms = torch.int32, 23, 0x3F3504F3, 0x007FFFFF, 4
    else:
        integer, shift, root, fraction, terms = (
            torch.int64,
            52,
            0x3FE6A09E667F3BCD,
            0x000FFFFFFFFFFFFF,
            10,
        )
    bits = x.contiguous().view(integer) - root
    exponent = (bits >> shift).to(x.dtype)
    f = ((bits & fraction) + root).view(x.dtype) - 1
    s = f / (f + 2)
    z = s * s
    series = torch.full_like(z, 1 / (2 * terms + 1))
    for k in range(terms - 1, 0, -1):
        series = z * series + 1 / (2 * k + 1)
    t = s * 2
    return exponent * _LN2 + (t + t * (z * series))


def count(
    p: Tensor,
    valid: Tensor,
    out_of_range: Tensor,
    reading: Reading,
    normalised: bool,
    counting: Counting,
    box: Box,
) -> None:
    """Add a block of mean probabilities to the statistics, group by group.

    Args:
        p: Probabilities ``[C, voxels]``.
        valid: The voxels that hold probabilities, bool ``[voxels]``.
        out_of_range: The invalid voxels whose numbers are finite, bool ``[voxels]``.
        reading: How members were read.
        normalised: The probabilities were divided by their sum.
        counting: What is counted.
        box: Where the block lies in the voxel shape.
    """
    rows = counting.statistics.view(-1, counting.rows, counting.statistics.shape[1])
    if len(rows) == 1:
        _count_group(rows[0], p, valid, out_of_range, reading, normalised, counting, box)
        return
    items = range(box[0].start, box[0].stop)
    size = p.shape[1] // len(items)
    for position, item in enumerate(items):
        part = slice(position * size, (position + 1) * size)
        _count_group(
            rows[item],
            p[:, part],
            valid[part],
            out_of_range[part],
            reading,
            normalised,
            counting,
            (slice(item, item + 1), *box[1:]),
        )


def _count_group(
    rows: Tensor,
    p: Tensor,
    valid: Tensor,
    out_of_range: Tensor,
    reading: Reading,
    normalised: bool,
    counting: Counting,
    box: Box,
) -> None:
    num_classes = p.shape[0]
    target = _target(counting.target, reading, box)
    kept = torch.ones_like(valid) if counting.mask is None else counting.mask[box].reshape(-1)
    if counting.ignore_index is not None:
        kept = kept & (target != counting.ignore_index).all(0)
    outside = (target < 0) | (target >= (2 if reading.multilabel else num_classes))
    bad = kept & outside.any(0)
    rows[0, StatisticsLayout.N_BAD_TARGET] += bad.sum()
    rows[0, StatisticsLayout.BAD_TARGET_SUM] += torch.where(outside & bad, target, 0).sum()
    kept = kept & ~bad
    may_be_off = reading.activation == "softmax" and not (
        reading.from_logits or reading.multilabel or normalised
    )
    for r, row in enumerate(rows):
        inside = kept
        if r > 0 and counting.regions is not None:
            inside = kept & ((counting.regions[box].reshape(-1) >> (r - 1)) & 1).bool()
        row[StatisticsLayout.N_INVALID] += (inside & ~valid).sum()
        row[StatisticsLayout.N_OUT_OF_RANGE] += (inside & out_of_range).sum()
        counted = inside & valid
        _count_row(row, p[:, counted], target[:, counted], reading, may_be_off, counting)


def _count_row(
    row: Tensor, p: Tensor, target: Tensor, reading: Reading, may_be_off: bool, counting: Counting
) -> None:
    layout = counting.layout(p.shape[0])
    words = torch.zeros(layout.words, dtype=torch.int64, device=p.device)
    words[layout.N_VOXELS] = p.shape[1]
    if may_be_off:
        words[layout.N_UNNORMALISED] = ((class_sum(p) - 1).abs() > UNNORMALISED).sum()
    if reading.multilabel:
        _count_multilabel(words, layout, p, target, counting)
    else:
        _count_exclusive(words, layout, p, target[0], counting)

    row += words
    low = torch.tensor(layout.low_words, device=row.device)
    carry = row[low] >> FRACTION_BITS
    row[low - 1] += carry
    row[low] &= _LOW


def _target(target: Tensor, reading: Reading, box: Box) -> Tensor:
    """Give the box of the targets as int64 ``[C or 1, voxels]``."""
    if not reading.multilabel:
        return target[box].reshape(1, -1).to(torch.int64)
    part = target[(*box[: reading.class_dim], slice(None), *box[reading.class_dim :])]
    return part.movedim(reading.class_dim, 0).flatten(1).to(torch.int64)


def class_sum(p: Tensor) -> Tensor:
    """Sum over classes in ascending order, which fixes the bits of the sum."""
    total = p[0].clone()
    for row in p[1:]:
        total += row
    return total


def _count_exclusive(
    words: Tensor, layout: StatisticsLayout, p: Tensor, target: Tensor, counting: Counting
) -> None:
    label = p.argmax(0)
    correct = label == target
    words[layout.N_CORRECT] = correct.sum()
    words[layout.predicted] = torch.bincount(label, minlength=layout.num_classes)
    words[layout.reference] = torch.bincount(target, minlength=layout.num_classes)
    words[layout.true_positive] = torch.bincount(label[correct], minlength=layout.num_classes)

    p_target = p.gather(0, target[None])[0]
    brier = torch.zeros_like(p_target)
    for k, row in enumerate(p):
        difference = row - (target == k).to(row.dtype)
        brier += difference * difference
    _add_real(words, layout.BRIER, brier)
    _add_likelihood(words, layout, p_target, counting.eps)

    if layout.calibration != "classwise":
        _add_top_label(words, layout, p.gather(0, label[None])[0], correct, counting)
    if layout.calibration != "top-label":
        for k, row in enumerate(p):
            _add_class(words, layout, k, row, target == k, counting)
    if layout.extras.entropy_bins:
        entropy = torch.zeros_like(p_target)
        for row in p:
            entropy = _less_p_ln_p(entropy, row)
        _add_entropies(words, layout, entropy, correct, multilabel=False)


def _count_multilabel(
    words: Tensor, layout: StatisticsLayout, p: Tensor, target: Tensor, counting: Counting
) -> None:
    positive = target == 1
    label = p > 0.5
    correct = label == positive
    words[layout.N_CORRECT] = correct.sum()
    words[layout.predicted] = label.sum(1)
    words[layout.reference] = positive.sum(1)
    words[layout.true_positive] = (label & positive).sum(1)

    difference = (p - positive.to(p.dtype)).reshape(-1)
    _add_real(words, layout.BRIER, difference * difference)
    _add_likelihood(words, layout, torch.where(positive, p, 1 - p).reshape(-1), counting.eps)

    if layout.calibration != "classwise":
        confidence = torch.maximum(p, 1 - p).reshape(-1)
        _add_top_label(words, layout, confidence, correct.reshape(-1), counting)
    if layout.calibration != "top-label":
        for k, row in enumerate(p):
            _add_class(words, layout, k, row, positive[k], counting)
    if layout.extras.entropy_bins:
        entropy = _less_p_ln_p(torch.zeros_like(p), p)
        entropy = _less_p_ln_p(entropy, (1 - p).clamp_min(0))
        _add_entropies(words, layout, entropy.reshape(-1), correct.reshape(-1), multilabel=True)


def _add_top_label(
    words: Tensor, layout: StatisticsLayout, p: Tensor, hit: Tensor, counting: Counting
) -> None:
    """Add confidences and whether they were correct."""
    _add_bins(words[layout.top_label].view(-1, 4), p, hit, counting)
    if layout.extras.fine_bins:
        cells = words[layout.fine_top_label].view(-1, 2)
        _add_cells(cells, _fine_cells(p, layout.extras), hit)


def _add_class(
    words: Tensor, layout: StatisticsLayout, k: int, p: Tensor, hit: Tensor, counting: Counting
) -> None:
    """Add probabilities of class ``k`` and whether the voxel is of the class."""
    num_classes = layout.num_classes
    _add_bins(words[layout.classwise].view(num_classes, -1, 4)[k], p, hit, counting)
    if layout.extras.moments:
        moments = words[layout.moments].view(num_classes, -1, 4)[k]
        cell = _cells(p, counting)
        square = _fixed_point(p.to(torch.float64) * p.to(torch.float64))
        _add_sums(moments[:, :2], cell, square)
        _add_sums(moments[:, 2:], cell[hit], _fixed_point(p[hit]))
    if layout.extras.fine_bins:
        cells = words[layout.fine_classwise].view(num_classes, -1, 2)[k]
        _add_cells(cells, _fine_cells(p, layout.extras), hit)


def _fine_cells(p: Tensor, extras: Extras) -> Tensor:
    """Find fine cells; see `Extras.fine_shift` for the formula."""
    integer, mantissa, quarter = torch.int32, 23, 125
    if p.dtype == torch.float64:
        integer, mantissa, quarter = torch.int64, 52, 1021
    shift = extras.fine_shift
    low = p < 0.5
    d = torch.where(low, p, 1 - p)
    index = (d.view(integer) >> (mantissa - shift)) - ((quarter - (FINE_OCTAVES - 1)) << shift)
    index = index.clamp(0, extras.fine_bins // 2 - 1)
    return torch.where(low, index, extras.fine_bins - 1 - index).to(torch.int64)


def _less_p_ln_p(entropy: Tensor, p: Tensor) -> Tensor:
    return entropy - p * logarithm(p.clamp_min(torch.finfo(p.dtype).tiny))


def _add_entropies(
    words: Tensor, layout: StatisticsLayout, entropy: Tensor, hit: Tensor, *, multilabel: bool
) -> None:
    extras = layout.extras
    scale = torch.tensor(extras.entropy_scale(layout.num_classes, multilabel), dtype=entropy.dtype)
    cell = (entropy * scale.to(entropy.device)).to(torch.int64).clamp(0, extras.entropy_bins - 1)
    _add_cells(words[layout.entropy].view(-1, 2), cell, hit)


def _add_cells(cells: Tensor, cell: Tensor, hit: Tensor) -> None:
    """Add to ``cells [n, 2]``: count and hits."""
    cells[:, 0] += torch.bincount(cell, minlength=cells.shape[0])
    cells[:, 1] += torch.bincount(cell[hit], minlength=cells.shape[0])


def _fixed_point(values: Tensor) -> Tensor:
    """Compute ``rint(v 2^40)``, half to even, as int64."""
    return (values.to(torch.float64) * _UNIT).round().to(torch.int64)


def _add_real(words: Tensor, index: int, values: Tensor) -> None:
    q = _fixed_point(values)
    words[index] += (q >> FRACTION_BITS).sum()
    words[index + 1] += (q & _LOW).sum()


def _add_likelihood(words: Tensor, layout: StatisticsLayout, p: Tensor, eps: float) -> None:
    floor = torch.tensor(eps, dtype=p.dtype, device=p.device)
    words[layout.N_CLIPPED] = (p < floor).sum()
    _add_real(words, layout.NLL, -logarithm(torch.maximum(p, floor)))


def _cells(p: Tensor, counting: Counting) -> Tensor:
    thresholds = counting.thresholds.to(p.device)
    return torch.bucketize(p.contiguous(), thresholds, right=counting.left_closed)


def _add_bins(bins: Tensor, p: Tensor, hit: Tensor, counting: Counting) -> None:
    """Add to ``bins [n, 4]``: count, hits, and the two words of the sum of p."""
    cell = _cells(p, counting)
    _add_cells(bins[:, :2], cell, hit)
    _add_sums(bins[:, 2:], cell, _fixed_point(p))


def _add_sums(sums: Tensor, cell: Tensor, q: Tensor) -> None:
    """Add fixed-point numbers to the two words ``sums [n, 2]`` of their bins."""
    sums[:, 0].index_add_(0, cell, q >> FRACTION_BITS)
    sums[:, 1].index_add_(0, cell, q & _LOW)
