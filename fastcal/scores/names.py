"""The scores of a predicted structure: their names, and what a high value says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Unsure = Literal["high", "low"]
"""Which values speak of a poor or unusual segmentation."""


@dataclass(frozen=True, slots=True)
class SegmentScore:
    """A score that ``segments.json`` holds for every case and structure."""

    title: str
    unsure: Unsure | None
    """Which values speak of a poor segmentation; None where both ends do, as for a volume."""
    meaning: str


SEGMENT_SCORES: Mapping[str, SegmentScore] = {
    "binary_entropy": SegmentScore(
        "Segment entropy", "high", "Mean one-vs-rest entropy over the predicted structure."
    ),
    "entropy": SegmentScore("Entropy", "high", "Mean entropy of all classes over the structure."),
    "mutual_information": SegmentScore(
        "Mutual information", "high", "Mean mutual information over the structure."
    ),
    "confidence": SegmentScore("Confidence", "low", "Mean confidence over the structure."),
    "volume": SegmentScore("Volume", None, "Volume of the structure."),
    "soft_volume": SegmentScore("Soft volume", None, "Sum of its probabilities as a volume."),
    "volume_spread": SegmentScore(
        "Spread of volume", "high", "How much the members' volumes differ."
    ),
    "soft_volume_spread": SegmentScore(
        "Spread of soft volume", "high", "How much the members' soft volumes differ."
    ),
    "interior_entropy": SegmentScore(
        "Interior entropy", "high", "Mean entropy away from the structure's boundary."
    ),
    "patch_entropy": SegmentScore("Patch entropy", "high", "Largest mean entropy of a patch."),
    "components": SegmentScore("Components", "high", "Number of separate parts."),
    "pooled_pairwise_dice": SegmentScore(
        "Pooled pairwise Dice", "low", "Agreement of the members, from their votes."
    ),
    "pairwise_dice": SegmentScore("Pairwise Dice", "low", "Mean Dice of all pairs of members."),
}
"""What is known of the scores by name. A table may hold others: they have no direction."""

BACKGROUND = frozenset({"background", "0"})
"""Names of what is no structure: its rows are left out."""


def unsure_end(name: str) -> Unsure | None:
    """Which values of a score speak of a poor segmentation; None for a name that is not known.

    Example:
        >>> unsure_end("entropy"), unsure_end("pairwise_dice"), unsure_end("volume")
        ('high', 'low', None)
    """
    known = SEGMENT_SCORES.get(name)
    return None if known is None else known.unsure
