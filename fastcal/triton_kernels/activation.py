# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
"""The numbers of a member as logits and probabilities, one class of a block at a time."""

from __future__ import annotations

import triton
import triton.language as tl

from fastcal.triton_kernels.walk import class_pointers

COMPENSATED_CLASSES = tl.constexpr(16)


@triton.jit
def from_bits(bits, P: tl.constexpr):
    """Read a double that was passed as its 64 bits, rounded once to the accumulation type."""
    return tl.cast(bits, tl.int64).to(tl.float64, bitcast=True).to(P.real)


@triton.jit
def divide(a, b, WIDE: tl.constexpr):
    """Divide with correct rounding, which a plain division of float32 lacks."""
    if WIDE:
        return a / b
    else:
        return tl.div_rn(a, b)


@triton.jit
def log_of_probability(p):
    """Compute ln p with ln 0 = -inf, and NaN beyond the range that interpolation reaches."""
    rounded = tl.where(p >= -1e-3, float("-inf"), float("nan"))
    log = tl.where(p > 1.001, float("nan"), tl.log(tl.where(p > 0, p, 1.0)))
    return tl.where(p > 0, log, rounded)


@triton.jit
def outside(p):
    """Whether a probability lies further outside [0, 1] than interpolation goes."""
    return (p < -1e-3) | (p > 1.001)


@triton.jit
def checked_probability(p):
    """Give the probability of a member, or 2^100 where it is out of range, and NaN for infinities.

    The mean is then out of range too.
    """
    return tl.where(outside(p), 1.2676506002282294e30 + (p - p), p)


@triton.jit
def logit_of_probability(p, P: tl.constexpr):
    """Compute ln p, or ln p - ln (1 - p) where classes are independent.

    A probability of 1 becomes a large finite logit, because +inf would mean invalid input.
    """
    logit = log_of_probability(p)
    if not P.softmax:
        odds = logit - log_of_probability(1 - p)
        logit = tl.where((p >= 1) & (p <= 1.001), 1e30, odds)
    return logit


@triton.jit
def load_class(view, o_view, k, m_voxels, P: tl.constexpr):
    """Load class ``k`` of the voxels as the accumulation type. Lanes without a voxel hold 0."""
    return tl.load(class_pointers(view, o_view, k), mask=m_voxels, other=0.0).to(P.real)


@triton.jit
def load_member(view, o_view, k, m_voxels, P: tl.constexpr):
    """Load class ``k`` of a member: logits before the temperature, or probabilities."""
    x = load_class(view, o_view, k, m_voxels, P)
    if P.to_logits:
        x = logit_of_probability(x, P)
    elif not P.from_logits:
        x = checked_probability(x)
    return x


@triton.jit
def sigmoid(z, WIDE: tl.constexpr):
    """Compute 1 / (1 + e^-z), and NaN for +inf, which is invalid input."""
    e = tl.exp(-tl.abs(z))
    value = divide(tl.where(z < 0, e, 1.0 + (e - e)), 1 + e, WIDE)
    return tl.where(z == float("inf"), float("nan"), value)


@triton.jit
def centred(x, top, inverse_t, P: tl.constexpr):
    """Compute (x - top) / T."""
    d = x - top
    if P.scaled:
        d = d * inverse_t
    return d


@triton.jit
def probability(x, top, inverse_total, inverse_t, P: tl.constexpr):
    """Activate what `load_member` gave, for a softmax with its maximum and 1 / sum of e^d."""
    if P.from_logits:
        if P.softmax:
            x = tl.exp(centred(x, top, inverse_t, P)) * inverse_total
        else:
            if P.scaled:
                x = x * inverse_t
            x = sigmoid(x, P.wide)
    return x


@triton.jit
def raise_top(x, k, top, best):
    """Update a running maximum and its lowest class."""
    higher = x > top
    return tl.where(higher, x, top), tl.where(higher, k, best)


@triton.jit
def add_exponential(x, top, total, total_lost, moment, moment_lost, inverse_t, P: tl.constexpr):
    """Add to the sums of e^d and, where entropies are wanted, of e^d d; d = -inf adds 0."""
    d = centred(x, top, inverse_t, P)
    e = tl.exp(d)
    total, total_lost = add_compensated(total, total_lost, e, P.classes)
    if P.entropy:
        term = tl.where(d == float("-inf"), 0.0, e * d)
        moment, moment_lost = add_compensated(moment, moment_lost, term, P.classes)
    return total, total_lost, moment, moment_lost


@triton.jit
def add_compensated(total, lost, term, C: tl.constexpr):
    """Add a term, and carry the rounding error along (Kahan) where there are many classes.

    A plain float32 sum over hundreds of classes loses 4e-6.
    """
    if C > COMPENSATED_CLASSES:
        corrected = term - lost
        following = total + corrected
        return following, (following - total) - corrected
    else:
        return total + term, lost


@triton.jit
def p_log_p(p):
    """Compute p ln p with 0 ln 0 = 0."""
    positive = p > 0
    return tl.where(positive, p * tl.log(tl.where(positive, p, 1.0)), 0.0)


@triton.jit
def entropy_term(p, MULTILABEL: tl.constexpr):
    """Compute -p ln p, plus -(1 - p) ln (1 - p) where the class is a Bernoulli variable."""
    q = tl.where(p < 0, 0.0, p)
    if MULTILABEL:
        q = tl.where(q > 1, 1.0, q)
        return -(p_log_p(q) + p_log_p(1 - q))
    else:
        return -p_log_p(q)


@triton.jit
def add_weighted(total, x, weight, P: tl.constexpr):
    """Compute total + weight x with one rounding."""
    if P.weighted:
        return tl.fma(tl.zeros_like(x) + weight, x, total)
    else:
        return total + x


@triton.jit
def summand(x, top, inverse_total, inverse_t, P: tl.constexpr):
    """Give what a member adds to the sum of a class: its probability, or its logit over T."""
    if P.logit_space:
        if P.scaled:
            x = x * inverse_t
        return x
    else:
        return probability(x, top, inverse_total, inverse_t, P)
