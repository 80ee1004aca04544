# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
"""The statistics stage on a block of voxels: integers only, added with relaxed atomics."""

from __future__ import annotations

import triton
import triton.language as tl

from fastcal.triton_kernels.cells import add_cells, add_entropies, fine_cells, less_p_ln_p
from fastcal.triton_kernels.fixed_point import add_fixed, add_integer, logarithm, to_fixed
from fastcal.triton_kernels.histogram import add_bins, add_moments
from fastcal.triton_kernels.walk import class_pointers, voxel_offsets

# Words of a row, as `fastcal.core.problem.StatisticsLayout` lays them out.
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
    """The words this program adds to: its batch item's row in one of the copies."""
    i_replica = tl.program_id(0) % count.n_replicas
    o_replica = tl.cast(i_replica, tl.int64) * tl.cast(count.replica_words, tl.int64)
    return count.words + o_replica + i_outer * tl.cast(count.row_words, tl.int64)


@triton.jit
def load_regions(count, i_outer, o_voxels, extents, m_voxels):
    """The regions of the voxels, a bit each."""
    o_regions = voxel_offsets(i_outer, o_voxels, extents, count.regions.strides)
    return tl.load(count.regions.pointer + o_regions, mask=m_voxels, other=0).to(tl.int32)


@triton.jit
def region_row(count, words, r):
    """The row of region ``r``, behind ``words``, that of everything."""
    return words + tl.cast(r + 1, tl.int64) * tl.cast(count.region_words, tl.int64)


@triton.jit
def add_flags(word, flags):
    """Adds how many lanes are set."""
    add_integer(word, tl.sum(flags.to(tl.int32), axis=0))


@triton.jit
def load_target(count, k, i_outer, o_voxels, extents, m_voxels):
    """Targets of the voxels (of class ``k`` where they have classes) as int64."""
    o_target = voxel_offsets(i_outer, o_voxels, extents, count.target.strides)
    pointers = class_pointers(count.target, o_target, k)
    return tl.load(pointers, mask=m_voxels, other=0).to(tl.int64)


@triton.jit
def keep_voxels(
    count,
    words,
    ignore_index,
    i_outer,
    o_voxels,
    extents,
    m_voxels,
    F: tl.constexpr,
    C: tl.constexpr,
):
    """Voxels left by mask and ignored targets; those whose target is no class are counted, and go.

    Returns:
        Which voxels stay, and their target: -1 where multilabel or bad.
    """
    kept = m_voxels
    if count.mask is not None:
        o_mask = voxel_offsets(i_outer, o_voxels, extents, count.mask.strides)
        kept = kept & (tl.load(count.mask.pointer + o_mask, mask=m_voxels, other=0) != 0)
    if F.multilabel:
        any_bad = tl.zeros(o_voxels.shape, tl.int32)
        bad_sum = tl.zeros(o_voxels.shape, tl.int64)
        for k in range(C):
            value = load_target(count, k, i_outer, o_voxels, extents, m_voxels)
            if F.ignore:
                kept = kept & (value != ignore_index)
            bad = (value < 0) | (value >= 2)
            any_bad = any_bad | bad.to(tl.int32)
            bad_sum += tl.where(bad, value, 0)
        target = tl.zeros(o_voxels.shape, tl.int32) - 1
    else:
        value = load_target(count, 0, i_outer, o_voxels, extents, m_voxels)
        if F.ignore:
            kept = kept & (value != ignore_index)
        bad = (value < 0) | (value >= C)
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
    """Counts the voxels that enter the statistics and those that cannot; returns the former."""
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
    """Adds ``(p - y)^2`` of a class to the Brier score; keeps the probability of the target."""
    d = tl.where(is_target, p - 1, p)
    return squares + d * d, tl.where(is_target, p, p_target)


@triton.jit
def count_scores(words, squares, p_target, correct, counted, eps, WIDE: tl.constexpr):
    """Brier score, negative log-likelihood, hits, of voxels or of (voxel, class) pairs."""
    add_flags(words + N_CORRECT, correct & counted)
    below = p_target < eps
    add_flags(words + N_CLIPPED, below & counted)
    add_fixed(words + BRIER, tl.sum(to_fixed(tl.where(counted, squares, 0.0)), axis=0))
    safe = tl.where(counted, tl.where(below, eps, p_target), 1.0)
    add_fixed(words + NLL, tl.sum(to_fixed(-logarithm(safe, WIDE)), axis=0))


@triton.jit
def count_class(words, k, label, target, counted, C: tl.constexpr):
    """Voxels predicted to be, and being, of class ``k``: three counts in fields of 12 bits."""
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
    """The top-label histogram of a row."""
    return words + HEADER + 3 * C


@triton.jit
def add_top_label(
    count,
    words,
    confidence,
    correct,
    counted,
    n_cells,
    F: tl.constexpr,
    WIDE: tl.constexpr,
    C: tl.constexpr,
    CELLS: tl.constexpr,
):
    """Adds confidences against correctness to the bins and the fine cells."""
    if F.top_label:
        bins = top_label_words(words, C)
        thresholds = count.thresholds
        add_bins(bins, confidence, correct, counted, thresholds, n_cells, F.left_closed, CELLS)
        if F.fine_bins > 0:
            cell = fine_cells(confidence, counted, F.fine_bins, WIDE)
            add_cells(words + count.fine_top_label, cell, correct)


@triton.jit
def add_class(
    count,
    words,
    p,
    k,
    positive,
    counted,
    n_cells,
    F: tl.constexpr,
    WIDE: tl.constexpr,
    C: tl.constexpr,
    CELLS: tl.constexpr,
):
    """Adds probabilities of class ``k`` against its presence to all that is kept of classes."""
    if F.classwise:
        bins = classwise_words(words, k, n_cells, F, C)
        thresholds = count.thresholds
        add_bins(bins, p, positive, counted, thresholds, n_cells, F.left_closed, CELLS)
        i_class = tl.cast(k, tl.int64)
        if F.moments:
            moments = words + count.moments + i_class * (4 * n_cells)
            add_moments(moments, p, positive, counted, thresholds, n_cells, F.left_closed, CELLS)
        if F.fine_bins > 0:
            cell = fine_cells(p, counted, F.fine_bins, WIDE)
            add_cells(words + count.fine_classwise + i_class * (2 * F.fine_bins), cell, positive)


@triton.jit
def classwise_words(words, k, n_cells, F: tl.constexpr, C: tl.constexpr):
    """Class ``k``'s histogram of a row."""
    histogram = tl.cast(k, tl.int64)
    if F.top_label:
        histogram += 1
    return words + HEADER + 3 * C + histogram * (4 * n_cells)


@triton.jit
def count_exclusive_class(
    count,
    words,
    p,
    k,
    label,
    target,
    counted,
    n_cells,
    F: tl.constexpr,
    WIDE: tl.constexpr,
    C: tl.constexpr,
    CELLS: tl.constexpr,
):
    """Adds class ``k`` of exclusive classes: counts, one-vs-rest histograms."""
    is_target = target == k
    count_class(words, k, label == k, is_target, counted, C)
    add_class(count, words, p, k, is_target, counted, n_cells, F, WIDE, C, CELLS)


@triton.jit
def count_multilabel_class(
    count,
    words,
    p,
    k,
    positive,
    counted,
    eps,
    n_cells,
    F: tl.constexpr,
    WIDE: tl.constexpr,
    C: tl.constexpr,
    CELLS: tl.constexpr,
):
    """Adds class ``k``, a Bernoulli of its own: scores, counts, all histograms."""
    label = p > 0.5
    correct = label == positive
    d = tl.where(positive, p - 1, p)
    p_target = tl.where(positive, p, 1 - p)
    count_scores(words, d * d, p_target, correct, counted, eps, WIDE)
    count_class(words, k, label, positive, counted, C)
    confidence = tl.where(label, p, 1 - p)
    add_top_label(count, words, confidence, correct, counted, n_cells, F, WIDE, C, CELLS)
    add_class(count, words, p, k, positive, counted, n_cells, F, WIDE, C, CELLS)
    if F.entropies:
        h = less_p_ln_p(tl.zeros_like(p), p, WIDE)
        rest = 1 - p
        h = less_p_ln_p(h, tl.where(rest < 0, 0.0, rest), WIDE)
        add_entropies(
            words + count.entropies, h, correct, counted, count.entropy_bins, count.entropy_scale
        )
