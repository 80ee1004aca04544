"""What a pass over predicted segments reads, and the integers it adds to.

This is the Python mirror of ``csrc/core/segment_problem.h``. Nothing here computes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fastcal.core.op_arguments import OpArguments


@dataclass(frozen=True, slots=True)
class SegmentProblem(OpArguments):
    """Mean probabilities with the labels that divide the voxels into segments."""

    mean: Tensor
    """``[B, C, *S]``, of any strides."""
    label: Tensor
    """Any integer type; ``[B, *S]``, or ``[B, C, *S]`` of 0 and 1 when multilabel."""
    entropy: Tensor | None
    """``[B, *S]``, of the accumulation type."""
    mutual_information: Tensor | None
    """``[B, *S]``, of the accumulation type."""
    votes: Tensor | None
    """``[B, C, *S]``, of the accumulation type: how many members chose the class."""
    interior: Tensor | None
    """bool, of the shape of the labels: the voxels that are far from the boundary."""
    ignore_index: int | None
    """Label of the voxels that belong to nothing."""
    multilabel: bool
    binary: bool
    """Sum the binary entropies."""
    clip: bool
    """Clip the probabilities in the binary entropy, as the paper's code does."""


class SegmentWords:
    """Index of each int64 word in the row of a batch item and class.

    A real sum is two words, ``hi + lo * 2**-40``.
    """

    VOXELS = 0
    INTERIOR = 1
    VOTES = 2
    VOTE_PAIRS = 3  # sum of v (v - 1)
    BAD_LABEL = 4  # in the row of the first class only
    BAD_MEAN = 5
    BAD_ENTROPY = 6
    BAD_INFORMATION = 7
    SOFT = 8  # hi, lo: sum of p over all voxels
    CONFIDENCE = 10  # hi, lo: sum of p over the segment, as are the next ones
    BINARY_ENTROPY = 12
    ENTROPY = 14
    INFORMATION = 16
    INTERIOR_ENTROPY = 18  # hi, lo: over the interior of the segment
    COUNT = 20


OUT_OF_RANGE = 1e-3
"""How far outside [0, 1] a probability may lie (interpolation does this)."""

ENTROPY_RANGE = (-1.0, 1024.0)
"""Entropies must lie between these, so that fixed point holds them."""

CLIP = ((0.01, 0.001), (0.99, 0.999))
"""The paper's code reads p below 0.01 as 0.001, and p above 0.99 as 0.999."""
