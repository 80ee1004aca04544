# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
"""The statistics stage on a block of voxels: only integers, added with relaxed atomics."""

from __future__ import annotations

import triton
import triton.language as tl

from fastcal.triton_kernels.cells import add_cells, add_entropies, fine_cells, less_p_ln_p
from fastcal.triton_kernels.fixed_point import add_fixed, add_integer, logarithm, to_fixed
from fastcal.triton_kernels.histogram import add_bins, add_moments
from fastcal.triton_kernels.walk import class_pointers, voxel_offsets

# Words of a row, in the order of `fastcal.core.problem.StatisticsLayout`.
N_VOXELS = tl.constexpr(0)
N_CORRECT = tl.constexpr(1)
BRIER = tl.constexpr(2)
NLL = tl.constexpr(4)
N_CLIPPED = tl.constexpr(6)
N_INVALID = tl.constexpr(7)
N_BAD_TARGET = tl.constexpr(8)
BAD_TARGET_SUM = tl.constexpr(9)
N_UNNORMALISED = tl.constexpr(10)
N_OUT_OF_RANGE = tl.constexpr(11)
HEADER = tl.constexpr(12)


@triton.jit
def row_words(count, i_outer):
    """Find the words that this program adds to: the row of its batch item in one of the copies."""
    i_replica = tl.program_id(0) % count.n_replicas
    o_replica = tl.cast(i_replica, tl.int64) * tl.cast(count.replica_words, tl.int64)
    return count.words + o_replica + i_outer * tl.cast(count.row_words, tl.int64)


@triton.jit
def load_regions(count, lanes):
    """Load the regions of the voxels, one bit per region."""
    pointers = count.regions.pointer + voxel_offsets(lanes, count.regions.strides)
    return tl.load(pointers, mask=lanes.m_voxels, other=0).to(tl.int32)


@triton.jit
def region_row(count, words, r):
    """Find the row of region ``r``, which follows the row ``words`` of every voxel."""
    return words + tl.cast(r + 1, tl.int64) * tl.cast(count.region_words, tl.int64)


@triton.jit
def add_flags(word, flags):
    """Add the number of lanes that are set."""
    add_integer(word, tl.sum(flags.to(tl.int32), axis=0))


@triton.jit
def load_target(count, k, lanes):
    """Load the targets of the voxels, of class ``k`` where targets have classes, as int64."""
    o_target = voxel_offsets(lanes, count.target.strides)
    pointers = class_pointers(count.target, o_target, k)
    return tl.load(pointers, mask=lanes.m_voxels, other=0).to(tl.int64)


@triton.jit
def keep_voxels(stage, words, lanes, F: tl.constexpr):
    """Find the voxels that mask and ignored targets leave, without those of bad targets.

    Voxels whose target is not a class are counted on the way.

    Returns:
        Which voxels stay, and their target: -1 where multilabel or bad.
    """
    C: tl.constexpr = F.classes
    count = stage.count
    kept = lanes.m_voxels
    if count.mask is not None:
        o_mask = voxel_offsets(lanes, count.mask.strides)
        kept = kept & (tl.load(count.mask.pointer + o_mask, mask=lanes.m_voxels, other=0) != 0)
    if F.multilabel:
        any_bad = tl.zeros(lanes.o_voxels.shape, tl.int32)
        bad_sum = tl.zeros(lanes.o_voxels.shape, tl.int64)
        for k in range(C):
            value = load_target(count, k, lanes)
            if F.ignore:
                kept = kept & (value != stage.ignore_index)
            bad = (value < 0) | (value >= 2)
            any_bad = any_bad | bad.to(tl.int32)
            bad_sum += tl.where(bad, value, 0)
        target = tl.zeros(lanes.o_voxels.shape, tl.int32) - 1
    else:
        value = load_target(count, 0, lanes)
        if F.ignore:
            kept = kept & (value != stage.ignore_index)
        bad = (value < 0) | (value >= F.classes)
        any_bad = bad.to(tl.int32)
        bad_sum = tl.where(bad, value, 0)
        target = tl.where(bad, -1, value).to(tl.int32)
    dropped = kept & (any_bad != 0)
    n_dropped = tl.sum(dropped.to(tl.int32), axis=0)
    if n_dropped != 0:
        add_integer(words + N_BAD_TARGET, n_dropped)
        add_integer(words + BAD_TARGET_SUM, tl.sum(tl.where(dropped, bad_sum, 0), axis=0))
    return kept & (any_bad == 0), target


@triton.jit
def count_voxels(words, kept, finite, valid, class_sum, F: tl.constexpr):
    """Count the voxels that enter the statistics and those that cannot, and return the former."""
    counted = kept & valid
    lost = kept & (valid == 0)
    n_lost = tl.sum(lost.to(tl.int32), axis=0)
    if n_lost != 0:
        add_integer(words + N_INVALID, n_lost)
        add_flags(words + N_OUT_OF_RANGE, lost & finite)
    add_flags(words + N_VOXELS, counted)
    if F.check_sum:
        excess = class_sum - 1
        add_flags(words + N_UNNORMALISED, counted & ((excess > 1e-3) | (excess < -1e-3)))
    return counted


@triton.jit
def add_squares(squares, p_target, p, is_target):
    """Add ``(p - y)^2`` of a class to the Brier score, and keep the probability of the target."""
    d = tl.where(is_target, p - 1, p)
    return squares + d * d, tl.where(is_target, p, p_target)


@triton.jit
def count_scores(words, squares, p_target, correct, counted, eps, WIDE: tl.constexpr):
    """Count Brier score, negative log-likelihood and hits, per voxel or (voxel, class) pair."""
    add_flags(words + N_CORRECT, correct & counted)
    below = p_target < eps
    add_flags(words + N_CLIPPED, below & counted)
    add_fixed(words + BRIER, tl.sum(to_fixed(tl.where(counted, squares, 0.0)), axis=0))
    safe = tl.where(counted, tl.where(below, eps, p_target), 1.0)
    add_fixed(words + NLL, tl.sum(to_fixed(-logarithm(safe, WIDE)), axis=0))


@triton.jit
def count_class(words, k, label, target, counted, C: tl.constexpr):
    """Count voxels with label ``k``, with target ``k``, and with both, in fields of 12 bits."""
    fields = (
        label.to(tl.int64) + (target.to(tl.int64) << 12) + ((label & target).to(tl.int64) << 24)
    )
    packed = tl.sum(tl.where(counted, fields, 0), axis=0)
    class_words = words + HEADER + tl.cast(k, tl.int64)
    add_integer(class_words, packed & 0xFFF)
    add_integer(class_words + C, (packed >> 12) & 0xFFF)
    add_integer(class_words + 2 * C, packed >> 24)


@triton.jit
def top_label_words(words, C: tl.constexpr):
    """Find the top-label histogram of a row."""
    return words + HEADER + 3 * C


@triton.jit
def add_top_label(stage, words, confidence, correct, counted, F: tl.constexpr):
    """Add confidences, and whether they were correct, to the bins and the fine cells."""
    if F.top_label:
        count = stage.count
        add_bins(
            top_label_words(words, F.classes), confidence, correct, counted,
            count.thresholds, stage.n_cells, F.left_closed, F.histogram_cells,
        )  # fmt: skip
        if F.fine_bins > 0:
            cell = fine_cells(confidence, counted, F.fine_bins, F.wide)
            add_cells(words + count.fine_top_label, cell, correct)


@triton.jit
def add_class(stage, words, p, k, positive, counted, F: tl.constexpr):
    """Add probabilities of class ``k``, and whether it is present, to all its histograms."""
    if F.classwise:
        count = stage.count
        add_bins(
            classwise_words(words, k, stage.n_cells, F), p, positive, counted,
            count.thresholds, stage.n_cells, F.left_closed, F.histogram_cells,
        )  # fmt: skip
        i_class = tl.cast(k, tl.int64)
        if F.moments:
            add_moments(
                words + count.moments + i_class * (4 * stage.n_cells), p, positive, counted,
                count.thresholds, stage.n_cells, F.left_closed, F.histogram_cells,
            )  # fmt: skip
        if F.fine_bins > 0:
            cell = fine_cells(p, counted, F.fine_bins, F.wide)
            add_cells(words + count.fine_classwise + i_class * (2 * F.fine_bins), cell, positive)


@triton.jit
def classwise_words(words, k, n_cells, F: tl.constexpr):
    """Find the histogram of class ``k`` in a row."""
    histogram = tl.cast(k, tl.int64)
    if F.top_label:
        histogram += 1
    return words + HEADER + 3 * F.classes + histogram * (4 * n_cells)


@triton.jit
def count_exclusive_class(stage, words, p, k, label, target, counted, F: tl.constexpr):
    """Add class ``k`` of exclusive classes: counts and one-versus-rest histograms."""
    is_target = target == k
    count_class(words, k, label == k, is_target, counted, F.classes)
    add_class(stage, words, p, k, is_target, counted, F)


@triton.jit
def count_multilabel_class(stage, words, p, k, positive, counted, F: tl.constexpr):
    """Add class ``k``, a Bernoulli variable of its own: scores, counts and all histograms."""
    label = p > 0.5
    correct = label == positive
    d = tl.where(positive, p - 1, p)
    p_target = tl.where(positive, p, 1 - p)
    count_scores(words, d * d, p_target, correct, counted, stage.eps, F.wide)
    count_class(words, k, label, positive, counted, F.classes)
    confidence = tl.where(label, p, 1 - p)
    add_top_label(stage, words, confidence, correct, counted, F)
    add_class(stage, words, p, k, positive, counted, F)
    if F.entropies:
        count = stage.count
        h = less_p_ln_p(tl.zeros_like(p), p, F.wide)
        rest = 1 - p
        h = less_p_ln_p(h, tl.where(rest < 0, 0.0, rest), F.wide)
        add_entropies(
            words + count.entropies, h, correct, counted, count.entropy_bins, count.entropy_scale
        )
