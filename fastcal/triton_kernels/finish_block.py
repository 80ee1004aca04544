# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
"""The second stage where registers and state meet: what follows once a voxel is summarised."""

from __future__ import annotations

import triton
import triton.language as tl

from fastcal.triton_kernels.cells import add_entropies
from fastcal.triton_kernels.counting import (
    add_top_label,
    count_exclusive_class,
    count_multilabel_class,
    count_scores,
    count_voxels,
    load_regions,
    load_target,
    region_row,
)
from fastcal.triton_kernels.summary import not_negative, store_class, store_summary, validity


@triton.jit
def count_row(
    count,
    words,
    kept,
    finite,
    valid,
    class_sum,
    correct,
    squares,
    p_target,
    confidence,
    entropy,
    eps,
    n_cells,
    F: tl.constexpr,
    WIDE: tl.constexpr,
    C: tl.constexpr,
    CELLS: tl.constexpr,
):
    """Counts in one row what a voxel counts once; returns which voxels were."""
    counted = count_voxels(words, kept, finite, valid, class_sum, F)
    if not F.multilabel:
        count_scores(words, squares, p_target, correct, counted, eps, WIDE)
        add_top_label(count, words, confidence, correct, counted, n_cells, F, WIDE, C, CELLS)
        if F.entropies:
            to = words + count.entropies
            add_entropies(to, entropy, correct, counted, count.entropy_bins, count.entropy_scale)
    return counted


@triton.jit
def count_class_row(
    count,
    words,
    p,
    k,
    label,
    target,
    positive,
    counted,
    eps,
    n_cells,
    F: tl.constexpr,
    WIDE: tl.constexpr,
    C: tl.constexpr,
    CELLS: tl.constexpr,
):
    """Counts in one row what a voxel counts for class ``k``."""
    if F.multilabel:
        count_multilabel_class(
            count, words, p, k, positive, counted, eps, n_cells, F, WIDE, C, CELLS
        )
    else:
        count_exclusive_class(
            count, words, p, k, label, target, counted, n_cells, F, WIDE, C, CELLS
        )


@triton.jit
def finish_voxels(
    maps,
    count,
    words,
    kept,
    target,
    squares,
    p_target,
    count_entropy,
    lowest,
    highest,
    label,
    class_sum,
    entropy,
    expected_entropy,
    variance,
    most,
    minority,
    n_members,
    eps,
    n_cells,
    i_outer,
    o_voxels,
    extents,
    m_voxels,
    F: tl.constexpr,
    WIDE: tl.constexpr,
    C: tl.constexpr,
    CELLS: tl.constexpr,
):
    """Writes the maps of the voxel shape and counts what a voxel counts once.

    Args:
        words: The row of statistics to add to; ``kept`` and ``target`` from `keep_voxels`.
        squares, p_target: From `add_squares`; the remaining blocks from `summary`.
        count_entropy: The entropy that is counted, by the logarithm of the statistics.

    Returns:
        Which voxels are valid, and which of them are counted.
    """
    finite, valid = validity(lowest, highest, class_sum, F)
    store_summary(
        maps,
        highest,
        label,
        entropy,
        expected_entropy,
        variance,
        most,
        minority,
        n_members,
        valid,
        i_outer,
        o_voxels,
        extents,
        m_voxels,
        F,
        WIDE,
        C,
    )
    counted = valid
    if F.count:
        counted = count_row(
            count, words, kept, finite, valid, class_sum, label == target, squares, p_target,
            highest, count_entropy, eps, n_cells, F, WIDE, C, CELLS,
        )  # fmt: skip
        if F.regions:
            inside = load_regions(count, i_outer, o_voxels, extents, m_voxels)
            for r in range(count.n_regions):
                count_row(
                    count, region_row(count, words, r), kept & ((inside >> r) & 1 != 0), finite,
                    valid, class_sum, label == target, squares, p_target, highest, count_entropy,
                    eps, n_cells, F, WIDE, C, CELLS,
                )  # fmt: skip
    return valid, counted


@triton.jit
def finish_class(
    maps,
    count,
    words,
    raw,
    k,
    label,
    target,
    valid,
    counted,
    eps,
    n_cells,
    i_outer,
    o_voxels,
    extents,
    m_voxels,
    F: tl.constexpr,
    WIDE: tl.constexpr,
    C: tl.constexpr,
    CELLS: tl.constexpr,
):
    """Writes the maps with a class axis, and counts what a voxel counts for every class.

    Args:
        raw: Mean probability of class ``k``.
    """
    p = not_negative(raw)
    store_class(maps, p, k, valid, i_outer, o_voxels, extents, m_voxels, F)
    if F.count:
        positive = counted
        if F.multilabel:
            positive = load_target(count, k, i_outer, o_voxels, extents, m_voxels) == 1
        count_class_row(
            count, words, p, k, label, target, positive, counted, eps, n_cells, F, WIDE, C, CELLS
        )
        if F.regions:
            inside = load_regions(count, i_outer, o_voxels, extents, m_voxels)
            for r in range(count.n_regions):
                count_class_row(
                    count, region_row(count, words, r), p, k, label, target, positive,
                    counted & ((inside >> r) & 1 != 0), eps, n_cells, F, WIDE, C, CELLS,
                )  # fmt: skip
