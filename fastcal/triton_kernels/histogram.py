# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# ruff: noqa: SIM108
"""Reliability histograms of a block of voxels."""

from __future__ import annotations

import triton
import triton.language as tl

from fastcal.triton_kernels.fixed_point import add_fixed, add_integer, to_fixed


@triton.jit
def find_cells(p, m_counted, thresholds, n_cells, LEFT_CLOSED: tl.constexpr):
    """Find the bin of each p, the number of thresholds below it; -1 where p is not counted."""
    cell = tl.zeros(p.shape, tl.int32)
    for i in range(n_cells - 1):
        threshold = tl.load(thresholds + i)
        if LEFT_CLOSED:
            above = p >= threshold
        else:
            above = p > threshold
        cell += above.to(tl.int32)
    return tl.where(m_counted, cell, -1)


@triton.jit
def add_cell(words, cell, wanted, packed_hit, q):
    """Add the voxels of one bin: count, hits, and the two words of the sum of p."""
    inside = cell == wanted
    packed = tl.sum(tl.where(inside, packed_hit, 0), axis=0)
    bin_words = words + 4 * tl.cast(wanted, tl.int64)
    add_integer(bin_words, packed & 0xFFFF)
    add_integer(bin_words + 1, packed >> 16)
    add_fixed(bin_words + 2, tl.sum(tl.where(inside, q, 0), axis=0))


@triton.jit
def add_all_cells(words, cell, packed_hit, q, n_cells, CELLS: tl.constexpr):
    """Add every bin, ``CELLS`` bins at a time, with one atomic addition per word of a bin."""
    for first in range(0, n_cells, CELLS):
        o_cells = first + tl.arange(0, CELLS)
        inside = cell[None, :] == o_cells[:, None]
        packed = tl.sum(tl.where(inside, packed_hit[None, :], 0), axis=1)
        total = tl.sum(tl.where(inside, q[None, :], 0), axis=1)
        m_cells = (o_cells < n_cells) & (packed != 0)
        o_words = 4 * o_cells.to(tl.int64)
        count = (packed & 0xFFFF).to(tl.int64)
        hits = (packed >> 16).to(tl.int64)
        tl.atomic_add(words + o_words, count, mask=m_cells, sem="relaxed")
        tl.atomic_add(words + (o_words + 1), hits, mask=m_cells & (hits != 0), sem="relaxed")
        tl.atomic_add(words + (o_words + 2), total >> 40, mask=m_cells, sem="relaxed")
        tl.atomic_add(words + (o_words + 3), total & 0xFFFFFFFFFF, mask=m_cells, sem="relaxed")


@triton.jit
def add_moments(
    words,
    p,
    hit,
    m_counted,
    thresholds,
    n_cells,
    LEFT_CLOSED: tl.constexpr,
    CELLS: tl.constexpr,
):
    """Add a block to the second moments ``[n_cells, 4]``: sums of p^2, and of p over the hits.

    p^2 is a product of doubles, which is exact for float32.
    """
    cell = find_cells(p, m_counted, thresholds, n_cells, LEFT_CLOSED)
    safe = tl.where(m_counted, p, 0.0)
    square = to_fixed(safe.to(tl.float64) * safe.to(tl.float64))
    of_hit = tl.where(hit, to_fixed(safe), 0)
    for first in range(0, n_cells, CELLS):
        o_cells = first + tl.arange(0, CELLS)
        inside = cell[None, :] == o_cells[:, None]
        squares = tl.sum(tl.where(inside, square[None, :], 0), axis=1)
        products = tl.sum(tl.where(inside, of_hit[None, :], 0), axis=1)
        o_words = 4 * o_cells.to(tl.int64)
        m_cells = (o_cells < n_cells) & (squares != 0)
        tl.atomic_add(words + o_words, squares >> 40, mask=m_cells, sem="relaxed")
        low = squares & 0xFFFFFFFFFF
        tl.atomic_add(words + (o_words + 1), low, mask=m_cells, sem="relaxed")
        m_cells = (o_cells < n_cells) & (products != 0)
        tl.atomic_add(words + (o_words + 2), products >> 40, mask=m_cells, sem="relaxed")
        low = products & 0xFFFFFFFFFF
        tl.atomic_add(words + (o_words + 3), low, mask=m_cells, sem="relaxed")


@triton.jit
def add_bins(
    words,
    p,
    hit,
    m_counted,
    thresholds,
    n_cells,
    LEFT_CLOSED: tl.constexpr,
    CELLS: tl.constexpr,
):
    """Add a block to a histogram ``[n_cells, 4]``.

    Nearly all voxels of a real volume lie in the first or the last bin. Where no voxel of the block
    lies between, only these two bins are counted.
    """
    cell = find_cells(p, m_counted, thresholds, n_cells, LEFT_CLOSED)
    packed_hit = 1 + (hit.to(tl.int32) << 16)
    q = to_fixed(tl.where(m_counted, p, 0.0))
    last = n_cells - 1
    between = (cell > 0) & (cell < last)
    if tl.max(between.to(tl.int32), axis=0) != 0:
        add_all_cells(words, cell, packed_hit, q, n_cells, CELLS)
    else:
        add_cell(words, cell, 0, packed_hit, q)
        if n_cells > 1:
            add_cell(words, cell, last, packed_hit, q)
