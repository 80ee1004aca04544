# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# ruff: noqa: SIM108
"""What a voxel's mean probabilities amount to: gathered class by class, then written as maps."""

from __future__ import annotations

import triton
import triton.language as tl

from fastcal.triton_kernels.activation import add_compensated, divide, entropy_term
from fastcal.triton_kernels.walk import class_pointers, voxel_offsets


@triton.jit
def not_negative(p):
    """Rounding below 0 removed; NaN stays."""
    return tl.where(p < 0, 0.0, p)


@triton.jit
def outside(p):
    """Further off [0, 1] than interpolation goes."""
    return (p < -1e-3) | (p > 1.001)


@triton.jit
def normalised(p, total, spread, anywhere_outside, F: tl.constexpr, WIDE: tl.constexpr):
    """p over the sum of the classes.

    Args:
        total: Sum of the probabilities, none of them negative.
        spread: Sum of the probabilities as they are: NaN or infinite where one of them is.
        anywhere_outside: 1 where a class is out of range. Two is no probability: the range check
            that follows sees what was out of range before.
    """
    share = divide(not_negative(p), total, WIDE) + (spread - spread)
    if F.check_range:
        flagged = (anywhere_outside != 0) & (spread - spread == 0)
        share = tl.where(flagged, 2.0, share)
    return share


@triton.jit
def add_to_total(p, total, spread, anywhere_outside):
    """Running sums for `normalised`."""
    off = anywhere_outside | outside(p).to(tl.int32)
    return total + not_negative(p), spread + p, off


@triton.jit
def summarise(
    raw, k, lowest, highest, label, class_sum, entropy, lost, F: tl.constexpr, C: tl.constexpr
):
    """Running summary of a voxel's classes.

    Args:
        raw: Mean probability of class ``k``.
        lowest, highest: Extremes seen; both start at 0, and ``highest`` is the confidence.
        label: Lowest class that is as probable as ``highest``.
        class_sum: Sum in ascending order, which fixes its bits; NaN where a class is.
    """
    p = not_negative(raw)
    lowest = tl.where(raw < lowest, raw, lowest)
    higher = p > highest
    label = tl.where(higher, k, label)
    highest = tl.where(higher, p, highest)
    class_sum += p
    if F.entropy:
        entropy, lost = add_compensated(entropy, lost, entropy_term(p, F.multilabel), C)
    return lowest, highest, label, class_sum, entropy, lost


@triton.jit
def validity(lowest, highest, class_sum, F: tl.constexpr):
    """Voxels whose probabilities are all finite, and those that are in range as well."""
    finite = (class_sum - class_sum == 0) & (lowest - lowest == 0)
    valid = finite
    if F.check_range:
        valid = finite & (lowest >= -1e-3) & (highest <= 1.001)
    return finite, valid


@triton.jit
def add_variance(variance, square, p):
    """Adds ``max(0, sum w p^2 / W - (sum w p / W)^2)`` of a class."""
    return variance + not_negative(square - p * p)


@triton.jit
def add_votes(most, minority, votes, n_members):
    """Largest number of votes for a class, and the sum of the smaller sides of yes and no."""
    most = tl.where(votes > most, votes, most)
    against = n_members - votes
    return most, minority + tl.where(votes > against, against, votes)


@triton.jit
def store_map(view, value, valid, i_outer, o_voxels, extents, m_voxels):
    """Writes a float map of the voxel shape; NaN where a voxel is invalid."""
    pointers = view.pointer + voxel_offsets(i_outer, o_voxels, extents, view.strides)
    tl.store(pointers, tl.where(valid, value, float("nan")), mask=m_voxels)


@triton.jit
def store_label(pointers, label, valid, m_voxels):
    """Writes labels of any integer type; all bits set where a voxel is invalid."""
    marked = tl.where(valid, label, -1)
    tl.store(pointers, marked.to(pointers.dtype.element_ty), mask=m_voxels)


@triton.jit
def store_summary(
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
    F: tl.constexpr,
    WIDE: tl.constexpr,
    C: tl.constexpr,
):
    """Every map of the voxel shape that is wanted.

    Args:
        maps: `MapViews`.
        expected_entropy: Already divided by the total weight.
        variance: Sum over classes.
        n_members: As the accumulation type.
    """
    if maps.entropy is not None:
        store_map(maps.entropy, entropy, valid, i_outer, o_voxels, extents, m_voxels)
    if maps.expected_entropy is not None:
        value = expected_entropy
        store_map(maps.expected_entropy, value, valid, i_outer, o_voxels, extents, m_voxels)
    if maps.mutual_information is not None:
        # One member tells itself nothing: 0, not the rounding of two equal entropies.
        value = tl.where(n_members > 1, not_negative(entropy - expected_entropy), 0.0)
        store_map(maps.mutual_information, value, valid, i_outer, o_voxels, extents, m_voxels)
    if maps.variance is not None:
        value = divide(variance, tl.zeros_like(variance) + C, WIDE)
        store_map(maps.variance, value, valid, i_outer, o_voxels, extents, m_voxels)
    if maps.disagreement is not None:
        n = tl.zeros_like(most) + n_members
        if F.multilabel:
            value = divide(minority, n * C, WIDE)
        else:
            value = 1 - divide(most, n, WIDE)
        store_map(maps.disagreement, value, valid, i_outer, o_voxels, extents, m_voxels)
    if not F.multilabel:
        if maps.confidence is not None:
            store_map(maps.confidence, highest, valid, i_outer, o_voxels, extents, m_voxels)
        if maps.label is not None:
            o_label = voxel_offsets(i_outer, o_voxels, extents, maps.label.strides)
            store_label(maps.label.pointer + o_label, label, valid, m_voxels)


@triton.jit
def store_class(maps, p, k, valid, i_outer, o_voxels, extents, m_voxels, F: tl.constexpr):
    """Every map with a class axis that is wanted, of class ``k``."""
    if maps.mean is not None:
        o_mean = voxel_offsets(i_outer, o_voxels, extents, maps.mean.strides)
        value = tl.where(valid, p, float("nan"))
        tl.store(class_pointers(maps.mean, o_mean, k), value, mask=m_voxels)
    if F.multilabel:
        if maps.confidence is not None:
            o_confidence = voxel_offsets(i_outer, o_voxels, extents, maps.confidence.strides)
            value = tl.where(valid, tl.where(p > 0.5, p, 1 - p), float("nan"))
            tl.store(class_pointers(maps.confidence, o_confidence, k), value, mask=m_voxels)
        if maps.label is not None:
            o_label = voxel_offsets(i_outer, o_voxels, extents, maps.label.strides)
            pointers = class_pointers(maps.label, o_label, k)
            store_label(pointers, (p > 0.5).to(tl.int32), valid, m_voxels)
