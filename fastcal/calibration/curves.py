"""Curves and histograms read from calibration statistics: plain arrays to draw or to save."""

from __future__ import annotations

from dataclasses import dataclass

from fastcal.calibration.values import Floats, Integers


@dataclass(frozen=True, slots=True)
class Reliability:
    """One reliability diagram; arrays over the bins, NaN for the means of an empty bin.

    With ``convention="torchmetrics"`` there is one bin more, [1, 1], for probabilities of 1.
    """

    edges: Floats
    """``[n_bins + 1]``"""
    count: Integers
    """``[n_bins]``"""
    mean_confidence: Floats
    """``[n_bins]``, mean confidence (or probability of the class) in the bin."""
    accuracy: Floats
    """``[n_bins]``, share of hits (or of the class) in the bin."""


@dataclass(frozen=True, slots=True)
class OutcomeHistogram:
    """Right and wrong voxels by their confidence, or by their entropy."""

    edges: Floats
    """``[n + 1]``, of the confidence, or of the entropy in nats."""
    right: Integers
    """``[n]``, voxels labelled as the target."""
    wrong: Integers
    """``[n]``"""


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """The error rate of the most confident voxels, by how many these are.

    A point a fine cell that holds voxels, from the most confident on; nothing counted gives none.
    """

    coverage: Floats
    """``[n]``, share of the voxels that are kept, ascending; the last is 1."""
    risk: Floats
    """``[n]``, share of the kept voxels whose label is wrong; the last is 1 - accuracy."""
    confidence: Floats
    """``[n]``, the lowest confidence that is kept (the lower edge of the cell)."""
    optimal: Floats
    """``[n]``, the risk at this coverage if every right voxel were more confident than every wrong
    one."""
