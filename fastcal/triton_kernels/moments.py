# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
"""What the classes of a member have in common: maximum, vote, sum of exponentials, entropy."""

from __future__ import annotations

import triton
import triton.language as tl

from fastcal.triton_kernels.activation import (
    add_compensated,
    add_exponential,
    divide,
    entropy_term,
    load_member,
    probability,
    raise_top,
)


@triton.constexpr_function
def needs_top(P):
    """Whether the largest class is needed: to centre a softmax, or for a vote."""
    softmax = P.softmax and P.from_logits and not P.logit_space
    return softmax or (P.votes and not P.multilabel)


@triton.jit
def ranked(x, inverse_t, P: tl.constexpr):
    """Give the number by which classes are ranked. Distant logits can share one sigmoid."""
    if P.softmax or P.logit_space:
        return x
    else:
        return probability(x, x, x, inverse_t, P)


@triton.jit
def softmax_moments(total, moment, P: tl.constexpr):
    """Compute 1 / total, and the entropy of the member, ``ln total - moment / total``."""
    inverse_total = divide(tl.full(total.shape, 1.0, P.real), total, P.wide)
    entropy = total
    if P.entropy:
        entropy = tl.log(total) - moment * inverse_total
    return inverse_total, entropy


@triton.jit
def member_moments(view, o_view, m_voxels, inverse_t, P: tl.constexpr):
    """Compute maximum, its class, 1 / sum of e^d and entropy of a member.

    ``o_view`` are the offsets of the voxels in ``view``, and ``inverse_t`` is 1 / temperature.
    """
    C: tl.constexpr = P.classes
    top = ranked(load_member(view, o_view, 0, m_voxels, P), inverse_t, P)
    best = tl.zeros(top.shape, tl.int32)
    entropy = tl.zeros(top.shape, P.real)
    inverse_total = entropy
    if needs_top(P):
        for k in range(1, C):
            x = load_member(view, o_view, k, m_voxels, P)
            top, best = raise_top(ranked(x, inverse_t, P), k, top, best)
    if not P.logit_space:
        if P.softmax and P.from_logits:
            total = tl.zeros(top.shape, P.real)
            moment = total
            total_lost = total
            moment_lost = total
            for k in range(C):
                x = load_member(view, o_view, k, m_voxels, P)
                total, total_lost, moment, moment_lost = add_exponential(
                    x, top, total, total_lost, moment, moment_lost, inverse_t, P
                )
            inverse_total, entropy = softmax_moments(total, moment, P)
        elif P.entropy:
            lost = entropy
            for k in range(C):
                x = load_member(view, o_view, k, m_voxels, P)
                p = probability(x, top, inverse_total, inverse_t, P)
                term = entropy_term(p, P.multilabel)
                entropy, lost = add_compensated(entropy, lost, term, P.classes)
    return top, best, inverse_total, entropy


@triton.jit
def row_moments(rows, inverse_t, P: tl.constexpr):
    """Compute `member_moments` of a member whose classes are in registers.

    ``rows`` is a tuple of what `load_member` gave for each class.
    """
    C: tl.constexpr = P.classes
    top = ranked(rows[0], inverse_t, P)
    best = tl.zeros(top.shape, tl.int32)
    entropy = tl.zeros(top.shape, P.real)
    inverse_total = entropy
    if needs_top(P):
        for k in tl.static_range(1, C):
            top, best = raise_top(ranked(rows[k], inverse_t, P), k, top, best)
    if not P.logit_space:
        if P.softmax and P.from_logits:
            total = tl.zeros(top.shape, P.real)
            moment = total
            total_lost = total
            moment_lost = total
            for k in tl.static_range(C):
                total, total_lost, moment, moment_lost = add_exponential(
                    rows[k], top, total, total_lost, moment, moment_lost, inverse_t, P
                )
            inverse_total, entropy = softmax_moments(total, moment, P)
        elif P.entropy:
            lost = entropy
            for k in tl.static_range(C):
                p = probability(rows[k], top, inverse_total, inverse_t, P)
                term = entropy_term(p, P.multilabel)
                entropy, lost = add_compensated(entropy, lost, term, P.classes)
    return top, best, inverse_total, entropy
