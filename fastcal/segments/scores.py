"""The scores of predicted segments, and how they are handed on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from fastcal.core.arrays import Array

NEEDS = {
    "mutual_information": "the map of the mutual information of the members",
    "volume_spread": "the members, as ensemble_statistics and EnsembleAccumulator see them",
    "soft_volume_spread": "the members, as ensemble_statistics and EnsembleAccumulator see them",
    "pooled_pairwise_dice": "the members, as ensemble_statistics and EnsembleAccumulator see them",
    "pairwise_dice": "the labels of the members: segments=SegmentSettings(pairs=True)",
    "components": "component_voxels, which was None",
}
"""What a score is made of that need not be there."""

VOLUMES = ("volume", "soft_volume", "volume_spread", "soft_volume_spread")
"""Scores in mm^3, or in voxels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentTotals:
    """What is counted of segments. The integers of the parts of a volume add up to its own."""

    sums: Tensor
    """int64 ``[B, C, SegmentWords.COUNT]``."""
    patches: Tensor
    """The largest mean entropy over a patch, float64 ``[B, C]``."""
    components: Tensor | None
    """Numbers of components, int64 ``[B, C]``."""
    members: Tensor | None
    """The words of each member, int64 ``[M, B, C, SegmentWords.COUNT]``."""
    overlaps: Tensor | None
    """Voxels that each pair of members gives to each class, int64 ``[B, C, M, M]``."""
    informed: bool
    """Whether the mutual information was summed."""

    def added(self, other: SegmentTotals) -> SegmentTotals:
        """Return the sums of two parts; what depends on the whole volume is that of this part."""
        pairs = ((self.members, other.members), (self.overlaps, other.overlaps))
        members, overlaps = (None if a is None or b is None else a + b for a, b in pairs)
        return replace(self, sums=self.sums + other.sums, members=members, overlaps=overlaps)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentScores:
    """Scores of the segment of each batch item and class, ``[B, C]`` in float64.

    The segment of a class is the voxels that the prediction gives to it. An empty segment has NaN
    in every score but ``volume``, ``soft_volume`` and ``components``, which need no voxel of it.
    A score whose material was not given is None.
    """

    binary_entropy: Array
    """Mean entropy of the class against the rest, in nats: the mean over the segment of
    ``-(p ln p + (1 - p) ln (1 - p))`` (Mehrtash et al., 2020, equation 6)."""
    entropy: Array
    """Mean entropy of the mean prediction over the segment, in nats."""
    mutual_information: Array | None
    """Mean mutual information over the segment, in nats."""
    confidence: Array
    """Mean probability of the class over the segment."""
    volume: Array
    """Size of the segment, in mm^3, or in voxels where there is no spacing."""
    soft_volume: Array
    """Sum of the probability of the class over all voxels, in the same unit."""
    volume_spread: Array | None
    """Standard deviation of ``volume`` over the members, with M - 1; NaN for one member."""
    soft_volume_spread: Array | None
    """Standard deviation of ``soft_volume`` over the members."""
    interior_entropy: Array
    """Mean entropy over the voxels of the segment that are far from its boundary; NaN where there
    are none."""
    patch_entropy: Array
    """Largest mean entropy over a patch among those around the voxels of the segment."""
    components: Array | None
    """Number of connected components of the segment that are not small."""
    pooled_pairwise_dice: Array | None
    """Dice coefficient of the members' segments, with all pairs pooled:
    ``sum_i v_i (v_i - 1) / ((M - 1) sum_i v_i)`` with v the votes of a voxel. Like the next score
    it is NaN only where no member has the structure."""
    pairwise_dice: Array | None
    """Mean Dice coefficient over the pairs of members."""
    totals: SegmentTotals | None = field(default=None, repr=False, compare=False)
    """What the scores were computed from; None for those that were made in another way."""

    @property
    def available(self) -> tuple[str, ...]:
        """Names of the scores that are there."""
        return tuple(name for name in SCORES if getattr(self, name) is not None)

    def __getitem__(self, name: str) -> Array:
        """Give a score by its name.

        Raises:
            ValueError: There is no score of that name, or its material was not given.

        Example:
            >>> import torch
            >>> from fastcal import segment_scores
            >>> scores = segment_scores(torch.tensor([[[0.9, 0.2], [0.1, 0.8]]]))
            >>> scores["volume"].tolist()
            [[1.0, 1.0]]
            >>> scores["pairwise_dice"]
            Traceback (most recent call last):
            ValueError: pairwise_dice must be asked of a pass that was given the labels of the \
members: segments=SegmentSettings(pairs=True), got None
        """
        if name not in SCORES:
            raise ValueError(f"score must be among {', '.join(SCORES)}, got {name!r}")
        value = getattr(self, name)
        if value is None:
            raise ValueError(
                f"{name} must be asked of a pass that was given {NEEDS[name]}, got None"
            )
        return value

    def in_mm(self, spacing: Sequence[float]) -> SegmentScores:
        """Give scores whose volumes are in mm^3, for scores of voxels.

        Args:
            spacing: Distance between voxels in mm, one number per axis.

        Example:
            >>> import torch
            >>> from fastcal import segment_scores
            >>> scores = segment_scores(torch.tensor([[[0.9, 0.2], [0.1, 0.8]]]))
            >>> scores.in_mm([2.5]).volume.tolist()
            [[2.5, 2.5]]
        """
        volume = math.prod(spacing)
        sizes = {name: getattr(self, name) for name in VOLUMES}
        scaled = {name: it if it is None else it * volume for name, it in sizes.items()}
        return replace(self, **scaled)

    def rows(
        self, structures: Sequence[str] | None = None
    ) -> Iterator[dict[str, dict[str, float]]]:
        """Give, for each batch item, the scores of each structure by name.

        Args:
            structures: Name of each class; the numbers of the classes by default.

        Raises:
            ValueError: There is another number of names than of classes.

        Example:
            >>> import torch
            >>> from fastcal import segment_scores
            >>> scores = segment_scores(torch.tensor([[[0.9, 0.2], [0.1, 0.8]]]))
            >>> [item["tumour"]["volume"] for item in scores.rows(["background", "tumour"])]
            [1.0]
        """
        values = {name: torch.as_tensor(getattr(self, name)).tolist() for name in self.available}
        batch, classes = torch.as_tensor(self.volume).shape
        names = [str(k) for k in range(classes)] if structures is None else list(structures)
        if len(names) != classes:
            raise ValueError(f"structures must be {classes} names, got {len(names)}")
        for item in range(batch):
            yield {
                structure: {name: score[item][k] for name, score in values.items()}
                for k, structure in enumerate(names)
            }


SCORES = tuple(one.name for one in fields(SegmentScores) if one.name != "totals")
"""Names of all scores, in the order in which they are written."""
