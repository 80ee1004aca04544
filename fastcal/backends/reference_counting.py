"""The statistics stage in plain PyTorch: probabilities of a block in, exact integers added.

Every step that reaches an integer is a single IEEE operation or an integer one, so that equal
probabilities give equal integers whatever computes them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastcal.problem import FRACTION_BITS, Counting, Reading, StatisticsLayout

Box = tuple[slice, ...]

_UNIT = 1 << FRACTION_BITS
_LOW = _UNIT - 1

UNNORMALISED = 1e-3
"""How far from 1 the sum of a voxel's probabilities may lie unremarked."""

_LN2 = math.log(2.0)


def logarithm(x: Tensor) -> Tensor:
    """Natural logarithm of positive normal numbers, the one definition of the statistics.

    ``x = 2^e m`` with m in [sqrt 1/2, sqrt 2); then the series of artanh in s = (m - 1) / (m + 1):
    ``ln m = 2 (s + s^3/3 + s^5/5 + ...)``, cut after 4 terms (float32) or 10 (float64).
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
    """Add a block of mean probabilities ``p [C, voxels]`` to the statistics, row by row."""
    statistics = counting.statistics
    if statistics.shape[0] == 1:
        _count_row(statistics[0], p, valid, out_of_range, reading, normalised, counting, box)
        return
    items = range(box[0].start, box[0].stop)
    size = p.shape[1] // len(items)
    for position, item in enumerate(items):
        part = slice(position * size, (position + 1) * size)
        _count_row(
            statistics[item],
            p[:, part],
            valid[part],
            out_of_range[part],
            reading,
            normalised,
            counting,
            (slice(item, item + 1), *box[1:]),
        )


def _count_row(
    row: Tensor,
    p: Tensor,
    valid: Tensor,
    out_of_range: Tensor,
    reading: Reading,
    normalised: bool,
    counting: Counting,
    box: Box,
) -> None:
    num_classes = p.shape[0]
    layout = StatisticsLayout(num_classes, counting.thresholds.numel() + 1, counting.calibration)
    words = torch.zeros(layout.words, dtype=torch.int64, device=p.device)
    target = _target(counting.target, reading, box)
    kept = torch.ones_like(valid) if counting.mask is None else counting.mask[box].reshape(-1)
    if counting.ignore_index is not None:
        kept = kept & (target != counting.ignore_index).all(0)

    outside = (target < 0) | (target >= (2 if reading.multilabel else num_classes))
    bad = kept & outside.any(0)
    words[layout.N_BAD_TARGET] = bad.sum()
    words[layout.BAD_TARGET_SUM] = torch.where(outside & bad, target, 0).sum()
    kept = kept & ~bad
    words[layout.N_INVALID] = (kept & ~valid).sum()
    words[layout.N_OUT_OF_RANGE] = (kept & out_of_range).sum()
    counted = kept & valid

    p, target = p[:, counted], target[:, counted]
    words[layout.N_VOXELS] = p.shape[1]
    if reading.activation == "softmax" and not (
        reading.from_logits or reading.multilabel or normalised
    ):
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
    """The box of the targets as int64 ``[C or 1, voxels]``."""
    if not reading.multilabel:
        return target[box].reshape(1, -1).to(torch.int64)
    part = target[(*box[: reading.class_dim], slice(None), *box[reading.class_dim :])]
    return part.movedim(reading.class_dim, 0).flatten(1).to(torch.int64)


def class_sum(p: Tensor) -> Tensor:
    """Sum over classes in ascending order, which fixes its bits."""
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
        bins = words[layout.top_label].view(-1, 4)
        _add_bins(bins, p.gather(0, label[None])[0], correct, counting)
    if layout.calibration != "top-label":
        bins = words[layout.classwise].view(layout.num_classes, -1, 4)
        for k, row in enumerate(p):
            _add_bins(bins[k], row, target == k, counting)


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
        bins = words[layout.top_label].view(-1, 4)
        _add_bins(bins, confidence, correct.reshape(-1), counting)
    if layout.calibration != "top-label":
        bins = words[layout.classwise].view(layout.num_classes, -1, 4)
        for k, row in enumerate(p):
            _add_bins(bins[k], row, positive[k], counting)


def _fixed_point(values: Tensor) -> Tensor:
    """``rint(v 2^40)``, half to even, as int64."""
    return (values.to(torch.float64) * _UNIT).round().to(torch.int64)


def _add_real(words: Tensor, index: int, values: Tensor) -> None:
    q = _fixed_point(values)
    words[index] += (q >> FRACTION_BITS).sum()
    words[index + 1] += (q & _LOW).sum()


def _add_likelihood(words: Tensor, layout: StatisticsLayout, p: Tensor, eps: float) -> None:
    floor = torch.tensor(eps, dtype=p.dtype, device=p.device)
    words[layout.N_CLIPPED] = (p < floor).sum()
    _add_real(words, layout.NLL, -logarithm(torch.maximum(p, floor)))


def _add_bins(bins: Tensor, p: Tensor, hit: Tensor, counting: Counting) -> None:
    """Add to ``bins [n, 4]``: count, hits, and the two words of the sum of p."""
    thresholds = counting.thresholds.to(p.device)
    cell = torch.bucketize(p.contiguous(), thresholds, right=counting.left_closed)
    q = _fixed_point(p)
    bins[:, 0] += torch.bincount(cell, minlength=bins.shape[0])
    bins[:, 1] += torch.bincount(cell[hit], minlength=bins.shape[0])
    bins[:, 2].index_add_(0, cell, q >> FRACTION_BITS)
    bins[:, 3].index_add_(0, cell, q & _LOW)
