"""The float64 values every candidate is held against, computed in slabs to keep memory small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SIX = ("mean", "label", "confidence", "entropy", "expected_entropy", "mutual_information")
_SLAB = 500_000


def six_maps_64(members: Sequence[Tensor]) -> dict[str, Tensor]:
    """The six maps of softmax logits ``[1, C, *S]`` in float64, flattened to ``[(C,) V]``."""
    flat = [m.reshape(m.shape[1], -1) for m in members]
    parts: dict[str, list[Tensor]] = {name: [] for name in SIX}
    for start in range(0, flat[0].shape[1], _SLAB):
        p = torch.stack([m[:, start : start + _SLAB].double() for m in flat]).softmax(1)
        mean = p.mean(0)
        entropy = torch.special.entr(mean).sum(0)
        expected = torch.special.entr(p).sum(1).mean(0)
        confidence, label = mean.max(0)
        values = (mean, label, confidence, entropy, expected, (entropy - expected).clamp_min(0))
        for name, value in zip(SIX, values, strict=True):
            parts[name].append(value)
    return {name: torch.cat(values, dim=-1) for name, values in parts.items()}


def map_error(got: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> float:
    """Largest error of any map given. A label errs by what its class lacks to the best one."""
    worst = 0.0
    for name, values in got.items():
        flat = values.reshape(want[name].shape)
        if name == "label":
            mean = want["mean"]
            lack = mean.amax(0) - mean.gather(0, flat.long().unsqueeze(0))[0]
            error = lack.max()
        else:
            error = (flat - want[name]).abs().max()
        worst = max(worst, float("inf") if error.isnan() else error.item())
    return worst


@dataclass(frozen=True)
class Scores64:
    """Scores of float32 or float64 probabilities, everything summed in float64."""

    ece: float
    classwise_ece: np.ndarray
    nll: float
    brier: float
    dice: np.ndarray


def scores_64(mean: Tensor, target: Tensor, n_bins: int) -> Scores64:
    """Scores of the probabilities as they are, ``[1, C, *S]``, right-closed bins."""
    n_classes = mean.shape[1]
    p, t = mean.reshape(n_classes, -1), target.reshape(-1)
    edges = torch.from_numpy(np.linspace(0, 1, n_bins + 1)[1:-1]).to(p.dtype)

    def ece(q: Tensor, hit: Tensor) -> float:
        cell = torch.bucketize(q, edges)
        gap = torch.bincount(cell, weights=hit.double() - q.double(), minlength=n_bins)
        return gap.abs().sum().item() / q.numel()

    confidence, label = p.max(0)
    p_true = p.gather(0, t.unsqueeze(0))[0].double()
    brier = torch.zeros(t.numel(), dtype=torch.float64)
    for k in range(n_classes):
        brier += (p[k].double() - (t == k).double()).square()
    confusion = torch.bincount(t * n_classes + label, minlength=n_classes**2)
    confusion = confusion.reshape(n_classes, n_classes).double()
    dice = 2 * confusion.diagonal() / (confusion.sum(0) + confusion.sum(1))
    return Scores64(
        ece=ece(confidence, label == t),
        classwise_ece=np.array([ece(p[k], t == k) for k in range(n_classes)]),
        nll=-p_true.clamp_min(torch.finfo(p.dtype).tiny).log().mean().item(),
        brier=brier.mean().item(),
        dice=dice.numpy(),
    )
