"""Scores of the predicted segments of a case, for ensembles whose maps came in slabs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fastcal.core.arrays import Floats


class MemberOverlaps:
    """How far the members of an ensemble overlap in each structure, added up slab by slab.

    Args:
        members: M.
        structures: K, the classes without the background.
    """

    def __init__(self, members: int, structures: int) -> None:
        self._pairs = np.zeros((structures, members, members))

    def add(self, labels: NDArray[np.uint8]) -> None:
        """Count the labels of every member in a slab, ``[M, *S]``."""
        flat = labels.reshape(len(labels), -1)
        flat = flat[:, flat.any(0)]
        for structure, pairs in enumerate(self._pairs):
            chosen = (flat == structure + 1).astype(np.float64)
            pairs += chosen @ chosen.T

    @property
    def sizes(self) -> Floats:
        """Voxels of each member's segment, ``[K, M]``."""
        found: Floats = self._pairs.diagonal(axis1=1, axis2=2)
        return found

    def pairwise_dice(self) -> Floats:
        """Return the mean Dice over the pairs of members that have the structure, ``[K]``."""
        first, second = np.triu_indices(self._pairs.shape[1], 1)
        if not len(first):
            return np.full(len(self._pairs), np.nan)
        with np.errstate(invalid="ignore"):
            dice = (
                2 * self._pairs[:, first, second] / (self.sizes[:, first] + self.sizes[:, second])
            )
        return np.array([values[~np.isnan(values)].mean() if (~np.isnan(values)).any() else np.nan
                         for values in dice])  # fmt: skip

    def pooled_pairwise_dice(self) -> Floats:
        """Return ``sum v (v - 1) / ((M - 1) sum v)`` with v the votes of a voxel, ``[K]``."""
        votes = self.sizes.sum(1)
        members = self._pairs.shape[1]
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Floats = (self._pairs.sum((1, 2)) - votes) / ((members - 1) * votes)
        return found


def segment_scores(
    maps: Mapping[str, Floats], overlaps: MemberOverlaps | None, voxel_volume: float
) -> dict[str, Floats]:
    """Return scores of the predicted segment of each structure, ``[K]`` by name.

    Args:
        maps: ``mean`` ``[C, X, Y, Z]``, ``label``, ``entropy`` and ``mutual_information``.
        overlaps: Of the members; None for a single one.
        voxel_volume: In mm^3.
    """
    mean, label = maps["mean"].astype(np.float64), maps["label"]
    structures = len(mean) - 1
    found = {name: np.full(structures, np.nan) for name in _NAMES}
    for k in range(structures):
        inside = label == k + 1
        p = mean[k + 1]
        found["volume"][k] = inside.sum() * voxel_volume
        found["soft_volume"][k] = p.sum() * voxel_volume
        if not inside.any():
            continue
        p = p[inside]
        with np.errstate(divide="ignore", invalid="ignore"):
            both = [np.where(q > 0, q * np.log(q), 0.0) for q in (p, 1.0 - p)]
        found["binary_entropy"][k] = -(both[0] + both[1]).mean()
        found["entropy"][k] = maps["entropy"][inside].mean(dtype=np.float64)
        found["mutual_information"][k] = maps["mutual_information"][inside].mean(dtype=np.float64)
        found["confidence"][k] = p.mean()
    if overlaps is not None:
        found["pairwise_dice"] = overlaps.pairwise_dice()
        found["pooled_pairwise_dice"] = overlaps.pooled_pairwise_dice()
    return found


_NAMES = (
    *("binary_entropy", "entropy", "mutual_information", "confidence", "volume", "soft_volume"),
    *("pairwise_dice", "pooled_pairwise_dice"),
)
