# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
"""The second stage, once a voxel is summarised, whether from registers or from a state."""

from __future__ import annotations

from typing import Any, NamedTuple

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


class Terms(NamedTuple):
    """What is counted once per voxel, in a kernel."""

    kept: Any
    """Which voxels mask and target leave, from `keep_voxels`."""
    target: Any
    """Their class, -1 where multilabel or bad."""
    squares: Any
    """Sum over classes of (p - y)^2."""
    p_target: Any
    """Probability of the target."""
    entropy: Any
    """Entropy of the mean, with the logarithm of the statistics."""


class Outcome(NamedTuple):
    """What is known of a voxel when its classes are written and counted, in a kernel."""

    label: Any
    target: Any
    valid: Any
    counted: Any


@triton.jit
def count_row(stage, words, kept, finite, valid, summary, terms, F: tl.constexpr):
    """Count in one row what a voxel counts once, and return which voxels were counted."""
    counted = count_voxels(words, kept, finite, valid, summary.class_sum, F)
    if not F.multilabel:
        correct = summary.label == terms.target
        count_scores(words, terms.squares, terms.p_target, correct, counted, stage.eps, F.wide)
        add_top_label(stage, words, summary.highest, correct, counted, F)
        if F.entropies:
            count = stage.count
            to = words + count.entropies
            bins = count.entropy_bins
            add_entropies(to, terms.entropy, correct, counted, bins, count.entropy_scale)
    return counted


@triton.jit
def count_class_row(stage, words, p, k, outcome, positive, counted, F: tl.constexpr):
    """Count in one row what a voxel counts for class ``k``."""
    if F.multilabel:
        count_multilabel_class(stage, words, p, k, positive, counted, F)
    else:
        count_exclusive_class(stage, words, p, k, outcome.label, outcome.target, counted, F)


@triton.jit
def finish_voxels(stage, words, lanes, summary, terms, F: tl.constexpr):
    """Write the maps of the voxel shape, and count what a voxel counts once.

    ``words`` is the row of statistics that counts every voxel; those of regions follow it.
    """
    finite, valid = validity(summary.lowest, summary.highest, summary.class_sum, F)
    store_summary(stage, summary, valid, lanes, F)
    counted = valid
    if F.count:
        counted = count_row(stage, words, terms.kept, finite, valid, summary, terms, F)
        if F.regions:
            inside = load_regions(stage.count, lanes)
            for r in range(stage.count.n_regions):
                row = region_row(stage.count, words, r)
                kept = terms.kept & ((inside >> r) & 1 != 0)
                count_row(stage, row, kept, finite, valid, summary, terms, F)
    return Outcome(summary.label, terms.target, valid, counted)


@triton.jit
def finish_class(stage, words, lanes, raw, k, outcome, F: tl.constexpr):
    """Write the maps with a class axis, and count what a voxel counts for each class.

    ``raw`` is the mean probability of class ``k``.
    """
    p = not_negative(raw)
    store_class(stage.maps, p, k, outcome.valid, lanes, F)
    if F.count:
        positive = outcome.counted
        if F.multilabel:
            positive = load_target(stage.count, k, lanes) == 1
        count_class_row(stage, words, p, k, outcome, positive, outcome.counted, F)
        if F.regions:
            inside = load_regions(stage.count, lanes)
            for r in range(stage.count.n_regions):
                row = region_row(stage.count, words, r)
                counted = outcome.counted & ((inside >> r) & 1 != 0)
                count_class_row(stage, row, p, k, outcome, positive, counted, F)
