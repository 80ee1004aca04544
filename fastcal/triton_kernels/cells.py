# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
"""Histograms with two words per cell (count and hits): fine cells of p, bins of the entropy."""

from __future__ import annotations

import triton
import triton.language as tl

from fastcal.core.problem import FINE_OCTAVES
from fastcal.triton_kernels.fixed_point import add_integer, logarithm

OCTAVES = tl.constexpr(FINE_OCTAVES)


@triton.constexpr_function
def fine_shift(fine_bins):
    """Compute the number of mantissa bits that select a fine cell."""
    return (fine_bins // (2 * FINE_OCTAVES)).bit_length() - 1


@triton.jit
def fine_cells(p, m_counted, FINE_BINS: tl.constexpr, WIDE: tl.constexpr):
    """Find the fine cell of each p, see `Extras.fine_shift`; -1 where p is not counted."""
    SHIFT: tl.constexpr = fine_shift(FINE_BINS)
    low = p < 0.5
    d = tl.where(low, p, 1 - p)
    first: tl.constexpr = ((1021 if WIDE else 125) - (OCTAVES - 1)) << SHIFT
    if WIDE:
        index = (d.to(tl.int64, bitcast=True) >> (52 - SHIFT)) - first
    else:
        index = (d.to(tl.int32, bitcast=True) >> (23 - SHIFT)) - first
    index = tl.minimum(tl.maximum(index, 0), FINE_BINS // 2 - 1).to(tl.int32)
    cell = tl.where(low, index, FINE_BINS - 1 - index)
    return tl.where(m_counted, cell, -1)


@triton.jit
def add_cells(words, cell, hit):
    """Add a block to cells of two words. Lanes whose cell is negative are left out.

    Most voxels of a saturated network lie in the block's first and last cells. The voxels of these
    two are added up before one atomic addition. All others are added one by one.
    """
    top = tl.max(cell, axis=0)
    if top >= 0:
        least = tl.min(tl.where(cell < 0, top, cell), axis=0)
        packed_hit = 1 + (hit.to(tl.int32) << 16)
        packed = tl.sum(tl.where(cell == top, packed_hit, 0), axis=0)
        cell_words = words + 2 * tl.cast(top, tl.int64)
        add_integer(cell_words, packed & 0xFFFF)
        add_integer(cell_words + 1, packed >> 16)
        if least != top:
            packed = tl.sum(tl.where(cell == least, packed_hit, 0), axis=0)
            cell_words = words + 2 * tl.cast(least, tl.int64)
            add_integer(cell_words, packed & 0xFFFF)
            add_integer(cell_words + 1, packed >> 16)
        one = tl.full(cell.shape, 1, tl.int64)
        m_rest = (cell > least) & (cell < top)
        o_words = 2 * cell.to(tl.int64)
        tl.atomic_add(words + o_words, one, mask=m_rest, sem="relaxed")
        tl.atomic_add(words + (o_words + 1), one, mask=m_rest & hit, sem="relaxed")


@triton.jit
def less_p_ln_p(h, p, WIDE: tl.constexpr):
    """Compute ``h - p ln p`` with the logarithm of the statistics and 0 ln 0 = 0."""
    if WIDE:
        tiny = tl.full(p.shape, 2.2250738585072014e-308, tl.float64)
    else:
        tiny = tl.full(p.shape, 1.1754943508222875e-38, tl.float32)
    return h - p * logarithm(tl.where(p > tiny, p, tiny), WIDE)


@triton.jit
def add_entropies(words, h, hit, m_counted, n_bins, scale):
    """Add a block of entropies ``h`` to ``n_bins`` bins; ``scale`` is the bits of bins per nat."""
    per_nat = tl.cast(scale, tl.int64).to(tl.float64, bitcast=True).to(h.dtype)
    bin = (tl.where(m_counted, h, 0.0) * per_nat).to(tl.int32)
    bin = tl.minimum(tl.maximum(bin, 0), n_bins - 1)
    add_cells(words, tl.where(m_counted, bin, -1), hit)
