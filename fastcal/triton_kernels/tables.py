# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
"""Short tables of doubles in device memory, written by launches.

A copy from pageable memory would make the host wait for the device, and a CUDA graph could not
capture it. Parameters of a launch do neither.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcal.triton_kernels.plan import bits

WORDS = 16
"""Numbers that a launch writes. It is always as many, so that one kernel is compiled."""


@triton.jit(do_not_specialize=["words", "start", "n_words"])
def table_kernel(to, words, start, n_words):
    """Write the doubles whose bits are ``words`` to ``to[start:]``, as far as ``n_words`` goes."""
    o_words = tl.arange(0, len(words)).to(tl.int64)
    values = o_words * 0
    for k in tl.static_range(len(words)):
        values = tl.where(o_words == k, tl.cast(words[k], tl.int64), values)
    places = o_words + tl.cast(start, tl.int64)
    tl.store(to + places, values.to(tl.float64, bitcast=True), mask=places < n_words)


def table(values: Sequence[float], device: torch.device) -> Tensor:
    """Give a float64 tensor ``[len(values)]`` on a device, without waiting for the device."""
    found = torch.empty(len(values), dtype=torch.float64, device=device)
    for start in range(0, len(values), WORDS):
        part = [*values[start : start + WORDS]]
        padded = part + [1.0] * (WORDS - len(part))
        words = tuple(bits(x) for x in padded)
        table_kernel[(1,)](found, words, start, len(values), num_warps=1, enable_fp_fusion=False)
    return found
