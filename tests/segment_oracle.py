"""The judge of segment scores: NumPy float64, straight from the formulas, as `oracle` is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import oracle
from numpy.typing import NDArray
from oracle import Array, Ints, p_ln_p
from scipy import ndimage


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


def scores(
    members: Sequence[Array],
    *,
    multilabel: bool,
    spacing: tuple[float, ...],
    paper_clip: bool,
    depth: float,
    patch: int,
    smallest: int,
) -> dict[str, Array]:
    """Every score of an ensemble of logits ``[B, C, *S]``, the long way."""
    found = oracle.maps(members, multilabel=multilabel)
    batch, classes = members[0].shape[:2]
    one = [oracle.maps([member], multilabel=multilabel) for member in members]
    volume = float(np.prod(spacing))
    result: dict[str, Array] = {}

    def put(name: str, b: int, c: int, value: float) -> None:
        result.setdefault(name, np.full((batch, classes), np.nan))[b, c] = value

    for b, c in np.ndindex(batch, classes):
        chosen = [it.label[b, c] == 1 if multilabel else it.label[b] == c for it in one]
        member = found.label[b, c] == 1 if multilabel else found.label[b] == c
        p = q = found.mean[b, c]
        if paper_clip:
            q = np.where(p < 0.01, 0.001, np.where(p > 0.99, 0.999, p))
        binary, h = -(p_ln_p(q) + p_ln_p(1 - q)), found.entropy[b]
        deep = member & (ndimage.distance_transform_edt(member) > depth)
        around = _patch_means(h, patch)
        parts, n = ndimage.label(member, np.ones((3,) * member.ndim))
        v = np.sum(chosen, axis=0)
        put("binary_entropy", b, c, _mean(binary[member]))
        put("entropy", b, c, _mean(h[member]))
        put("mutual_information", b, c, _mean(found.mutual_information[b][member]))
        put("confidence", b, c, _mean(p[member]))
        put("volume", b, c, member.sum() * volume)
        put("soft_volume", b, c, p.sum() * volume)
        put("volume_spread", b, c, np.std([it.sum() * volume for it in chosen], ddof=1))
        soft = [it.mean[b, c].sum() * volume for it in one]
        put("soft_volume_spread", b, c, np.std(soft, ddof=1))
        put("interior_entropy", b, c, _mean(h[deep]))
        put("patch_entropy", b, c, around[member].max() if member.any() else np.nan)
        sizes = [(parts == k + 1).sum() for k in range(n)]
        put("components", b, c, sum(size >= smallest for size in sizes))
        pairs = list(itertools.combinations(chosen, 2))
        put("pooled_pairwise_dice", b, c, (v * (v - 1)).sum() / ((len(members) - 1) * v.sum()))
        dice = [2 * (a & b_).sum() / (a.sum() + b_.sum()) for a, b_ in pairs if (a | b_).any()]
        put("pairwise_dice", b, c, _mean(np.asarray(dice)))
    return result


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else np.nan


def _patch_means(values: Array, size: int) -> Array:
    """The mean over the patch of each voxel, which begins ``size // 2`` before it."""
    means = np.empty(values.shape)
    for where in np.ndindex(values.shape):
        box = []
        for at, extent in zip(where, values.shape, strict=True):
            first = min(max(at - size // 2, 0), max(extent - size, 0))
            box.append(slice(first, min(first + size, extent)))
        means[where] = values[tuple(box)].mean()
    return means
