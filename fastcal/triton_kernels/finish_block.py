# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
"""The second stage where registers and state meet: what follows once a voxel is summarised."""

from __future__ import annotations

import triton
import triton.language as tl

from fastcal.triton_kernels.counting import (
    count_exclusive_class,
    count_multilabel_class,
    count_scores,
    count_voxels,
    load_target,
    top_label_words,
)
from fastcal.triton_kernels.histogram import add_bins
from fastcal.triton_kernels.summary import not_negative, store_class, store_summary, validity


@triton.jit
def finish_voxels(
    maps,
    count,
    words,
    kept,
    target,
    squares,
    p_target,
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
        counted = count_voxels(words, kept, finite, valid, class_sum, F)
        if not F.multilabel:
            correct = label == target
            count_scores(words, squares, p_target, correct, counted, eps, WIDE)
            if F.top_label:
                bins = top_label_words(words, C)
                add_bins(
                    bins, highest, correct, counted, count.thresholds, n_cells, F.left_closed, CELLS
                )
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
        edges = count.thresholds
        if F.multilabel:
            positive = load_target(count, k, i_outer, o_voxels, extents, m_voxels) == 1
            count_multilabel_class(
                words, p, k, positive, counted, eps, edges, n_cells, F, WIDE, C, CELLS
            )
        else:
            count_exclusive_class(words, p, k, label, target, counted, edges, n_cells, F, C, CELLS)
