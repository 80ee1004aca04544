"""The float64 values that candidates are compared with, computed in slabs to save memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_SLAB = 500_000


def maps_64(members: Sequence[Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Compute maps of softmax logits ``[1, C, *S]`` in float64, flattened to ``[(C,) V]``.

    The mean is always among them, because labels are judged by it.
    """
    flat = [m.reshape(m.shape[1], -1) for m in members]
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, flat[0].shape[1], _SLAB):
        z = torch.stack([m[:, start : start + _SLAB].double() for m in flat])
        for name, values in _slab(z, names).items():
            parts.setdefault(name, []).append(values)
    return {name: torch.cat(values, dim=-1) for name, values in parts.items()}


def _slab(z: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    p = z.softmax(1)
    mean = p.mean(0)
    found = {"mean": mean}
    entropy = torch.special.entr(mean).sum(0)
    if {"expected_entropy", "mutual_information"} & set(names):
        found["expected_entropy"] = torch.special.entr(p).sum(1).mean(0)
        found["mutual_information"] = (entropy - found["expected_entropy"]).clamp_min(0)
    if {"label", "confidence"} & set(names):
        found["confidence"], found["label"] = mean.max(0)
    if "variance" in names:
        found["variance"] = p.var(0, unbiased=False).mean(0)
    if "disagreement" in names:
        # Ties go to the lowest class, which argmax does not promise on any device.
        rank = torch.arange(z.shape[1], 0, -1, device=z.device)[:, None]
        label = ((z == z.amax(1, keepdim=True)) * rank).argmax(1)
        votes = torch.zeros_like(mean, dtype=torch.int64)
        votes.scatter_add_(0, label, torch.ones_like(label))
        found["disagreement"] = 1 - votes.amax(0).double() / len(z)
    return {**found, "entropy": entropy}


def map_error(got: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> float:
    """Find the largest error of any map.

    The error of a label is the difference between the probabilities of the best class and of its
    class.
    """
    worst = 0.0
    for name, values in got.items():
        flat = values.reshape(want[name].shape)
        if name == "label":
            mean, label = want["mean"], flat.long()
            known = label.clamp(0, len(mean) - 1)
            lack = mean.amax(0) - mean.gather(0, known.unsqueeze(0))[0]
            error = lack.where(known == label, float("inf")).max()
        else:
            error = (flat - want[name]).abs().max()
        worst = max(worst, float("inf") if error.isnan() else error.item())
    return worst


@dataclass(frozen=True)
class Scores64:
    """Scores of float32 or float64 probabilities, with all sums in float64."""

    ece: float
    classwise_ece: np.ndarray
    nll: float
    brier: float
    dice: np.ndarray


def scores_64(mean: Tensor, target: Tensor, n_bins: int) -> Scores64:
    """Compute the scores of probabilities ``[1, C, *S]`` as they are, with right-closed bins."""
    n_classes = mean.shape[1]
    p, t = mean.reshape(n_classes, -1), target.reshape(-1)
    edges = torch.from_numpy(np.linspace(0, 1, n_bins + 1)[1:-1]).to(p)

    def ece(q: Tensor, hit: Tensor) -> float:
        cell = torch.bucketize(q, edges)
        gap = torch.bincount(cell, weights=hit.double() - q.double(), minlength=n_bins)
        return gap.abs().sum().item() / q.numel()

    confidence, label = p.max(0)
    p_true = p.gather(0, t.unsqueeze(0))[0].double()
    brier = torch.zeros_like(p_true)
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
        dice=dice.cpu().numpy(),
    )
