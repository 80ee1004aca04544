# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
"""The fold: the copies of the statistics that programs added to are added to the statistics."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fastcal.core.problem import FRACTION_BITS, StatisticsLayout
from fastcal.triton_kernels import policy
from fastcal.triton_kernels.counting import BRIER, NLL


@triton.jit
def fold_kernel(
    words,
    statistics,
    n_replicas,
    n_rows,
    row_words,
    bins_start,
    moments_start,
    moments_end,
    FRACTION_BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the copies, and carry what a low word holds beyond its 40 bits into the word before.

    ``words`` is int64 ``[replicas, rows, words]`` and ``statistics`` is int64 ``[rows, words]``,
    both contiguous. From ``bins_start`` on there are four words per bin, the last of them low. From
    ``moments_start`` to ``moments_end`` every second word is low.
    """
    blocks = tl.cdiv(row_words, BLOCK)
    i_row = tl.cast(tl.program_id(0) // blocks, tl.int64)
    o_words = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    m_words = o_words < row_words
    o_row = i_row * row_words + o_words.to(tl.int64)
    replica_words = tl.cast(n_rows, tl.int64) * row_words

    in_bins = (o_words >= bins_start) & (o_words < moments_start)
    in_moments = (o_words >= moments_start) & (o_words < moments_end)
    of_bin = (o_words - bins_start) % 4
    of_moment = (o_words - moments_start) % 2
    is_low = (o_words == BRIER + 1) | (o_words == NLL + 1)
    is_low = is_low | (in_bins & (of_bin == 3)) | (in_moments & (of_moment == 1))
    is_high = (o_words == BRIER) | (o_words == NLL)
    is_high = is_high | (in_bins & (of_bin == 2)) | (in_moments & (of_moment == 0))

    # The lane of a low word writes its high word too: no other lane touches the pair.
    m_low = m_words & is_low
    total = tl.load(statistics + o_row, mask=m_words, other=0)
    high = tl.load(statistics + (o_row - 1), mask=m_low, other=0)
    for i_replica in range(n_replicas):
        o_copy = tl.cast(i_replica, tl.int64) * replica_words + o_row
        total += tl.load(words + o_copy, mask=m_words, other=0)
        high += tl.load(words + (o_copy - 1), mask=m_low, other=0)
    fraction = (tl.full([BLOCK], 1, tl.int64) << FRACTION_BITS) - 1
    tl.store(statistics + o_row, total, mask=m_words & (is_low == 0) & (is_high == 0))
    tl.store(statistics + o_row, total & fraction, mask=m_low)
    tl.store(statistics + (o_row - 1), high + (total >> FRACTION_BITS), mask=m_low)


def fold_statistics(words: Tensor, statistics: Tensor, layout: StatisticsLayout) -> None:
    """Add ``words [replicas, rows, words]`` to ``statistics [rows, words]``, and normalise."""
    n_replicas, n_rows, row_words = words.shape
    fold_kernel[(n_rows * triton.cdiv(row_words, policy.FOLD_WORDS),)](
        words,
        statistics,
        n_replicas,
        n_rows,
        row_words,
        layout.top_label.start,
        layout.moments.start,
        layout.moments.stop,
        FRACTION_BITS=FRACTION_BITS,
        BLOCK=policy.FOLD_WORDS,
        num_warps=policy.NUM_WARPS,
        enable_fp_fusion=False,
    )
