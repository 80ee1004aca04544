"""From probabilities and labels to scores: the fused pass, and what needs the shape of segments."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastcal import ops
from fastcal.core.problem import FRACTION_BITS
from fastcal.core.segment_problem import SegmentProblem, SegmentWords
from fastcal.segments.agreement import overlaps, pairwise_dice, pooled_pairwise_dice
from fastcal.segments.components import count_components
from fastcal.segments.interior import interior
from fastcal.segments.patches import patch_maxima
from fastcal.segments.scores import SCORES, SegmentScores, SegmentTotals
from fastcal.segments.settings import SegmentSettings


@dataclass(frozen=True, slots=True)
class Prediction:
    """A mean prediction with its segments, class axis second."""

    mean: Tensor
    """``[B, C, *S]``."""
    label: Tensor
    """Integers, ``[B, *S]``; ``[B, C, *S]`` of 0 and 1 when multilabel. -1 (all bits set in
    unsigned types that have the room) belongs to nothing."""
    entropy: Tensor
    """``[B, *S]``, of the accumulation type."""
    mutual_information: Tensor | None
    """The same."""
    votes: Tensor | None
    """``[B, C, *S]``, of the accumulation type."""
    multilabel: bool


@dataclass(frozen=True, slots=True)
class MemberSegments:
    """What is known of the segments of each member."""

    sums: list[Tensor]
    """The words of each member, ``[B, C, SegmentWords.COUNT]``."""
    labels: list[Tensor]
    """The labels of each member, or nothing where they were not kept."""


def measure(
    prediction: Prediction,
    settings: SegmentSettings,
    members: MemberSegments | None = None,
    *,
    numpy: bool = False,
) -> SegmentScores:
    """Compute every score that there is material for.

    Args:
        prediction: The mean prediction.
        settings: What the scores depend on.
        members: What is known of the members.
        numpy: Give NumPy arrays instead of tensors.

    Raises:
        ImportError: Components are counted, and SciPy is not installed.
        ValueError: There are numbers that are no probabilities, labels or entropies.
    """
    label, multilabel = prediction.label, prediction.multilabel
    classes, axes = prediction.mean.shape[1], prediction.mean.dim() - 2
    steps = settings.steps(axes)
    narrow = label_bytes(label, 2 if multilabel else classes)
    volumes = narrow.flatten(0, 1) if multilabel else narrow
    inside = interior(volumes, settings.depth, steps).view(label.shape)
    problem = SegmentProblem(
        prediction.mean,
        label,
        prediction.entropy,
        prediction.mutual_information,
        prediction.votes,
        inside,
        nothing(label.dtype, 2 if multilabel else classes),
        multilabel,
        True,
        settings.paper_clip,
    )
    components = None
    if settings.component_voxels is not None:
        components = count_components(
            narrow, classes, settings.component_voxels, multilabel=multilabel
        )
    words = SegmentTotals(
        sums=segment_sums(problem),
        patches=patch_maxima(prediction.entropy, narrow, classes, settings.patch),
        components=components,
        members=None if members is None else torch.stack(members.sums),
        overlaps=overlaps(members.labels, classes, multilabel=multilabel)
        if members is not None and members.labels
        else None,
        informed=prediction.mutual_information is not None,
    )
    return scores_of(words, settings, numpy=numpy)


def scores_of(
    totals: SegmentTotals, settings: SegmentSettings, *, numpy: bool = False
) -> SegmentScores:
    """Compute the scores from what was counted.

    Args:
        totals: What was counted of whole volumes.
        settings: What the scores depend on.
        numpy: Give NumPy arrays instead of tensors.

    Raises:
        ValueError: There were numbers that are no probabilities, labels or entropies.
    """
    sums = totals.sums
    _check(sums)
    found = _means(sums, settings.voxel_volume)
    if totals.informed:
        found["mutual_information"] = _mean(sums, SegmentWords.INFORMATION)
    found["patch_entropy"] = totals.patches
    if totals.components is not None:
        found["components"] = totals.components.to(torch.float64)
    if totals.members is not None:
        found.update(_of_members(sums, totals.members, totals.overlaps, settings))
    arrays = {name: value.numpy() if numpy else value for name, value in found.items()}
    return SegmentScores(**{name: arrays.get(name) for name in SCORES}, totals=totals)


def segment_sums(problem: SegmentProblem) -> Tensor:
    """Run the fused pass: int64 ``[B, C, SegmentWords.COUNT]``."""
    shape = (*problem.mean.shape[:2], SegmentWords.COUNT)
    sums = torch.zeros(shape, dtype=torch.int64, device=problem.mean.device)
    ops.segment_sums(*problem.flatten(), sums)
    return sums


def nothing(dtype: torch.dtype, classes: int) -> int | None:
    """Give the label of voxels that belong to nothing; None where every value is a class."""
    if dtype.is_signed or dtype == torch.uint64:  # whose largest value is read as -1
        return -1
    largest = torch.iinfo(dtype).max
    return largest if classes <= largest else None


def label_type(classes: int) -> torch.dtype:
    """Give the smallest type that holds the labels of a member."""
    return torch.uint8 if classes < 256 else torch.int32


def label_bytes(label: Tensor, classes: int) -> Tensor:
    """Give labels as bytes where these tell the classes apart from what is marked as nothing.

    Numbers that are neither may become a class; `scores_of` refuses them.

    Args:
        label: Integers; -1 belongs to nothing, as all bits set do in unsigned types.
        classes: C.

    Example:
        >>> label_bytes(torch.tensor([0, 2, -1]), 3)
        tensor([  0,   2, 255], dtype=torch.uint8)
    """
    return label.to(torch.uint8) if classes < 255 else label


def _check(sums: Tensor) -> None:
    words = SegmentWords
    bad = sums[..., words.BAD_LABEL : words.BAD_INFORMATION + 1].sum((0, 1)).tolist()
    label, mean, entropy, information = bad
    if label:
        raise ValueError(f"label must be a class in every voxel, or -1, got {label} other values")
    if mean:
        raise ValueError(
            "mean must hold probabilities in [0, 1] wherever label is a class, "
            f"got {mean} other numbers"
        )
    for name, count in (("entropy", entropy), ("mutual_information", information)):
        if count:
            raise ValueError(f"{name} must be finite in every segment, got {count} other numbers")


def _real(sums: Tensor, word: int) -> Tensor:
    """Give a sum of two words in float64."""
    return sums[..., word].double() + sums[..., word + 1].double() * 2.0**-FRACTION_BITS


def _mean(sums: Tensor, word: int, count: int = SegmentWords.VOXELS) -> Tensor:
    """Divide a sum by a count; NaN where that is 0."""
    return _real(sums, word) / sums[..., count].double()


def _means(sums: Tensor, voxel_volume: float) -> dict[str, Tensor]:
    words = SegmentWords
    return {
        "binary_entropy": _mean(sums, words.BINARY_ENTROPY),
        "entropy": _mean(sums, words.ENTROPY),
        "confidence": _mean(sums, words.CONFIDENCE),
        "volume": sums[..., words.VOXELS].double() * voxel_volume,
        "soft_volume": _real(sums, words.SOFT) * voxel_volume,
        "interior_entropy": _mean(sums, words.INTERIOR_ENTROPY, words.INTERIOR),
    }


def _of_members(
    sums: Tensor, each: Tensor, overlapping: Tensor | None, settings: SegmentSettings
) -> dict[str, Tensor]:
    n_members, volume = len(each), settings.voxel_volume
    found = {
        "volume_spread": _spread(each[..., SegmentWords.VOXELS].double() * volume),
        "soft_volume_spread": _spread(_real(each, SegmentWords.SOFT) * volume),
        "pooled_pairwise_dice": pooled_pairwise_dice(
            sums[..., SegmentWords.VOTES], sums[..., SegmentWords.VOTE_PAIRS], n_members
        ),
    }
    if overlapping is not None:
        found["pairwise_dice"] = pairwise_dice(overlapping)
    return found


def _spread(values: Tensor) -> Tensor:
    """Compute the standard deviation over the members, the first axis."""
    if len(values) < 2:
        return torch.full_like(values[0], torch.nan)
    return values.std(0)
