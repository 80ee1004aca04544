# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
"""Real numbers of the statistics as integers. Each step is one IEEE operation, exact everywhere."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def to_fixed(value):
    """Compute ``rint(v 2^40)``, half to even, as int64, for 0 <= v < 2^11.

    Adding 1.5 * 2^52 leaves the rounded integer in the low bits of the double.
    """
    shifted = value.to(tl.float64) * 1099511627776.0 + 6755399441055744.0
    return shifted.to(tl.int64, bitcast=True) - 0x4338000000000000


@triton.jit
def logarithm(x, WIDE: tl.constexpr):
    """Compute the natural logarithm of positive normal numbers, as all statistics define it.

    With ``x = 2^e m`` and m in [sqrt 1/2, sqrt 2), ln m is the series of artanh in
    s = (m - 1) / (m + 1): ``ln m = 2 (s + s^3/3 + s^5/5 + ...)``. The series is cut after 4 terms
    for float32 and after 10 terms for float64.
    """
    terms: tl.constexpr = 10 if WIDE else 4
    if WIDE:
        i = x.to(tl.int64, bitcast=True) - 0x3FE6A09E667F3BCD
        e = (i >> 52).to(tl.float64)
        m = ((i & 0x000FFFFFFFFFFFFF) + 0x3FE6A09E667F3BCD).to(tl.float64, bitcast=True)
        f = m - 1
        s = f / (f + 2)
    else:
        i = x.to(tl.int32, bitcast=True) - 0x3F3504F3
        e = (i >> 23).to(tl.float32)
        m = ((i & 0x007FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True)
        f = m - 1
        s = tl.div_rn(f, f + 2)
    z = s * s
    r = tl.zeros_like(z) + 1 / (2 * terms + 1)
    for k in tl.static_range(terms - 1, 0, -1):
        r = z * r + 1 / (2 * k + 1)
    t = s * 2
    return e * 0.6931471805599453 + (t + t * (z * r))


@triton.jit
def add_integer(word, value):
    """Add a scalar to a word of the statistics."""
    tl.atomic_add(word, value.to(tl.int64), mask=value != 0, sem="relaxed")


@triton.jit
def add_fixed(words, value):
    """Add a scalar fixed-point sum to its two words. Until the fold, the low may exceed 2^40."""
    add_integer(words, value >> 40)
    add_integer(words + 1, value & 0xFFFFFFFFFF)
