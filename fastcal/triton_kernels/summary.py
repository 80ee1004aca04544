# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
"""The summary of a voxel: gathered class by class from the mean, then written as maps."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from fastcal.triton_kernels.activation import add_compensated, divide, entropy_term, outside
from fastcal.triton_kernels.walk import class_pointers, voxel_offsets


class Summary(NamedTuple):
    """What the classes of a voxel amount to, in a kernel."""

    lowest: Any
    """The lowest mean probability, or 0."""
    highest: Any
    """The highest mean probability: the confidence."""
    label: Any
    """The lowest class of this probability."""
    class_sum: Any
    """Sum of the mean probabilities."""
    entropy: Any
    """Entropy of the mean."""
    expected_entropy: Any
    """Mean entropy of the members."""
    variance: Any
    """Variance over the members, summed over classes."""
    most: Any
    """The largest number of votes for a class."""
    minority: Any
    """Sum over classes of the smaller number among votes for and against."""


@triton.jit
def not_negative(p):
    """Replace negative numbers, which come from rounding, by 0. NaN stays."""
    return tl.where(p < 0, 0.0, p)


@triton.jit
def normalised(p, total, spread, anywhere_outside, F: tl.constexpr):
    """Divide p by the sum of the classes.

    ``total`` is the sum of the probabilities with negative ones replaced by 0. ``spread`` is the
    sum of the probabilities as they are, which is NaN or infinite where one of them is. Where
    ``anywhere_outside`` is 1, a class was out of range. The result is then 2, so that the range
    check that follows finds it.
    """
    share = divide(not_negative(p), total, F.wide) + (spread - spread)
    if F.check_range:
        flagged = (anywhere_outside != 0) & (spread - spread == 0)
        share = tl.where(flagged, 2.0, share)
    return share


@triton.jit
def add_to_total(p, total, spread, anywhere_outside):
    """Update the running sums for `normalised`."""
    off = anywhere_outside | outside(p).to(tl.int32)
    return total + not_negative(p), spread + p, off


@triton.jit
def summarise(raw, k, lowest, highest, label, class_sum):
    """Update the running summary with the mean probability ``raw`` of class ``k``.

    ``lowest`` and ``highest`` are the extremes so far. Both start at 0, and ``highest`` becomes the
    confidence. ``label`` is the lowest class that is as probable as ``highest``. ``class_sum`` adds
    classes in ascending order, which fixes its bits, and is NaN where a class is.
    """
    p = not_negative(raw)
    lowest = tl.where(raw < lowest, raw, lowest)
    higher = p > highest
    label = tl.where(higher, k, label)
    highest = tl.where(higher, p, highest)
    class_sum += p
    return lowest, highest, label, class_sum


@triton.jit
def add_entropy(raw, entropy, lost, F: tl.constexpr):
    """Add a class to the entropy of the mean, where it is wanted."""
    if F.entropy:
        term = entropy_term(not_negative(raw), F.multilabel)
        entropy, lost = add_compensated(entropy, lost, term, F.classes)
    return entropy, lost


@triton.jit
def validity(lowest, highest, class_sum, F: tl.constexpr):
    """Find the voxels whose probabilities are all finite, and those that are also in range."""
    finite = (class_sum - class_sum == 0) & (lowest - lowest == 0)
    valid = finite
    if F.check_range:
        valid = finite & (lowest >= -1e-3) & (highest <= 1.001)
    return finite, valid


@triton.jit
def add_variance(variance, square, p):
    """Add ``max(0, sum w p^2 / W - (sum w p / W)^2)`` of a class."""
    return variance + not_negative(square - p * p)


@triton.jit
def add_votes(most, minority, votes, n_members):
    """Update the largest number of votes for a class, and the sum of each class's minority."""
    most = tl.where(votes > most, votes, most)
    against = n_members - votes
    return most, minority + tl.where(votes > against, against, votes)


@triton.jit
def store_map(view, value, valid, lanes):
    """Write a float map of the voxel shape, with NaN where a voxel is invalid."""
    pointers = view.pointer + voxel_offsets(lanes, view.strides)
    tl.store(pointers, tl.where(valid, value, float("nan")), mask=lanes.m_voxels)


@triton.jit
def store_label(pointers, label, valid, m_voxels):
    """Write labels of any integer type, with all bits set where a voxel is invalid."""
    marked = tl.where(valid, label, -1)
    tl.store(pointers, marked.to(pointers.dtype.element_ty), mask=m_voxels)


@triton.jit
def store_summary(stage, summary, valid, lanes, F: tl.constexpr):
    """Write every map of the voxel shape that is wanted, from a `Summary`."""
    maps = stage.maps
    # Entropies below 0 are those of probabilities a little beyond 1.
    if maps.entropy is not None:
        store_map(maps.entropy, not_negative(summary.entropy), valid, lanes)
    if maps.expected_entropy is not None:
        store_map(maps.expected_entropy, not_negative(summary.expected_entropy), valid, lanes)
    if maps.mutual_information is not None:
        # A single member has no information on itself: 0, not the rounding of two entropies.
        information = not_negative(summary.entropy - summary.expected_entropy)
        value = tl.where(stage.n_members > 1, information, 0.0)
        store_map(maps.mutual_information, value, valid, lanes)
    if maps.variance is not None:
        n_classes = tl.zeros_like(summary.variance) + F.classes
        store_map(maps.variance, divide(summary.variance, n_classes, F.wide), valid, lanes)
    if maps.disagreement is not None:
        n = tl.zeros_like(summary.most) + stage.n_members
        if F.multilabel:
            value = divide(summary.minority, n * F.classes, F.wide)
        else:
            value = 1 - divide(summary.most, n, F.wide)
        store_map(maps.disagreement, value, valid, lanes)
    if not F.multilabel:
        if maps.confidence is not None:
            store_map(maps.confidence, summary.highest, valid, lanes)
        if maps.label is not None:
            o_label = voxel_offsets(lanes, maps.label.strides)
            store_label(maps.label.pointer + o_label, summary.label, valid, lanes.m_voxels)


@triton.jit
def store_class(maps, p, k, valid, lanes, F: tl.constexpr):
    """Write every map with a class axis that is wanted, for class ``k``."""
    if maps.mean is not None:
        o_mean = voxel_offsets(lanes, maps.mean.strides)
        value = tl.where(valid, p, float("nan"))
        tl.store(class_pointers(maps.mean, o_mean, k), value, mask=lanes.m_voxels)
    if F.multilabel:
        if maps.confidence is not None:
            o_confidence = voxel_offsets(lanes, maps.confidence.strides)
            value = tl.where(valid, tl.where(p > 0.5, p, 1 - p), float("nan"))
            tl.store(class_pointers(maps.confidence, o_confidence, k), value, mask=lanes.m_voxels)
        if maps.label is not None:
            o_label = voxel_offsets(lanes, maps.label.strides)
            pointers = class_pointers(maps.label, o_label, k)
            store_label(pointers, (p > 0.5).to(tl.int32), valid, lanes.m_voxels)
