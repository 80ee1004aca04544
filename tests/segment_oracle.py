"""The judge of segment scores: NumPy float64, straight from the formulas, as `oracle` is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from oracle import Array, Ints, p_ln_p


def segment_sums(
    mean: Array,
    label: Ints,
    *,
    entropy: Array,
    mutual_information: Array,
    votes: Ints,
    interior: NDArray[np.bool_],
    paper_clip: bool = False,
) -> dict[str, NDArray[np.generic]]:
    """Sums over the segments of ``mean [B, C, *S]``, each ``[B, C]``; label -1 is left out."""
    batch, classes = mean.shape[:2]
    found: dict[str, NDArray[np.generic]] = {
        name: np.zeros((batch, classes))
        for name in (
            *("voxels", "interior", "votes", "vote_pairs", "soft", "confidence"),
            *("binary_entropy", "entropy", "mutual_information", "interior_entropy"),
        )
    }
    multilabel = label.ndim == mean.ndim
    for b, c in np.ndindex(batch, classes):
        labels = label[b, c] if multilabel else label[b]
        counted = labels >= 0
        member = labels == (1 if multilabel else c)
        deep = member & (interior[b, c] if multilabel else interior[b])
        p, v = mean[b, c], votes[b, c]
        q = p
        if paper_clip:
            q = np.where(p < 0.01, 0.001, np.where(p > 0.99, 0.999, p))
        found["voxels"][b, c] = member.sum()
        found["interior"][b, c] = deep.sum()
        found["votes"][b, c] = v[counted].sum()
        found["vote_pairs"][b, c] = (v * (v - 1))[counted].sum()
        found["soft"][b, c] = p[counted].sum()
        found["confidence"][b, c] = p[member].sum()
        found["binary_entropy"][b, c] = -(p_ln_p(q) + p_ln_p(1 - q))[member].sum()
        found["entropy"][b, c] = entropy[b][member].sum()
        found["mutual_information"][b, c] = mutual_information[b][member].sum()
        found["interior_entropy"][b, c] = entropy[b][deep].sum()
    return found
