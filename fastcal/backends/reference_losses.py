"""Sums and gradients of the losses in plain PyTorch: the fallback, and the kernels' oracle."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastcal.core.bins import thresholds_on
from fastcal.core.problem import GapBins, LossReading, SumsWanted


def class_sums(
    logits: Tensor, target: Tensor, reading: LossReading, wanted: SumsWanted, sums: Tensor
) -> None:
    """Write the sums of `fastcal.core.problem.SUM_ROWS`, NaN where a target is not a class."""
    z = _rows(logits)
    hot, kept, bad = _outcomes(target, z, reading)
    p = _probabilities(z, reading).masked_fill(~kept, 0.0)
    sums.zero_()
    if wanted.overlaps:
        sums[:, :, 0] = (p * hot).sum(-1, dtype=torch.float64)
        sums[:, :, 1] = p.sum(-1, dtype=torch.float64)
        sums[:, :, 2] = (p * p).sum(-1, dtype=torch.float64)
    sums[:, :, 3] = hot.sum(-1)
    if wanted.likelihood:
        if reading.head == "softmax":
            lost = -z.log_softmax(2)
            rest = lost.masked_fill(~kept, 0.0)
        else:
            lost = -torch.nn.functional.logsigmoid(z)
            other = -torch.nn.functional.logsigmoid(-z)
            rest = other.masked_fill(~kept | hot, 0.0)
        sums[:, :, 4] = lost.masked_fill(~hot, 0.0).sum(-1, dtype=torch.float64)
        if wanted.rest:
            sums[:, :, 5] = rest.sum(-1, dtype=torch.float64)
    sums += bad.unsqueeze(-1)


def class_gradient(
    logits: Tensor,
    target: Tensor,
    reading: LossReading,
    wanted: SumsWanted,
    factors: Tensor,
    gradient: Tensor,
) -> None:
    """Write the gradient by the logits, given the factors dL/dS of each sum S.

    For a softmax, ``dL/dz_k = p_k (g_k - sum_j p_j g_j) + E_y (p_k - y_k) + p_k sum_j R_j - R_k``.
    Here ``g = A y + B + 2 D p`` is the derivative by p. A, B and D are the factors of the rows
    ``overlap``, ``predicted`` and ``squared``, E is that of ``nll`` and R that of ``rest``.
    """
    z = _rows(logits)
    hot, kept, _ = _outcomes(target, z, reading)
    p = _probabilities(z, reading)
    overlap, predicted, squared, _, nll, rest = factors.to(z.dtype).unsqueeze(-1).unbind(2)
    slope = torch.zeros_like(p)
    if wanted.overlaps:
        slope = overlap * hot + predicted + 2 * squared * p
    if reading.head == "softmax":
        found = p * (slope - (p * slope).sum(2, keepdim=True))
        if wanted.likelihood:
            own = nll * hot
            found = found + p * own.sum(2, keepdim=True) - own
            found = found + p * rest.sum(2, keepdim=True) - rest
    else:
        q = (-z).sigmoid()
        found = p * q * slope
        if wanted.likelihood:
            found = found + torch.where(hot, -q * nll, p * rest)
    _write(gradient, found, kept)


def bin_gaps(
    logits: Tensor, target: Tensor, reading: LossReading, bins: GapBins, sums: Tensor
) -> None:
    """Write the gaps p - y and the amounts of each bin, and the number of voxels of each class."""
    z = _rows(logits)
    hot, kept, bad = _outcomes(target, z, reading)
    p = _probabilities(z, reading)
    gaps = torch.zeros(*p.shape[:3], bins.count, dtype=torch.float64, device=p.device)
    amounts = torch.zeros_like(gaps)
    off = p - hot.to(p.dtype)
    for cell, share, _ in _shares(p, bins):
        part = share.masked_fill(~kept, 0.0)
        gaps.scatter_add_(3, cell, (part * off.masked_fill(~kept, 0.0)).double())
        amounts.scatter_add_(3, cell, part.double())
    reference = hot.sum(-1, dtype=torch.float64).unsqueeze(-1)
    sums.copy_(torch.cat((gaps, amounts, reference), -1) + bad.unsqueeze(-1))


def bin_gradient(
    logits: Tensor,
    target: Tensor,
    reading: LossReading,
    bins: GapBins,
    factors: Tensor,
    gradient: Tensor,
) -> None:
    """Write the gradient by the logits, given the derivative by each sum."""
    z = _rows(logits)
    hot, kept, _ = _outcomes(target, z, reading)
    p = _probabilities(z, reading)
    off = p - hot.to(p.dtype)
    gap, amount = factors.to(z.dtype)[..., :-1].reshape(*z.shape[:3], 2, -1).unbind(-2)
    slope = torch.zeros_like(p)
    for cell, share, moved in _shares(p, bins):
        own = gap.gather(3, cell)
        slope += own * share + moved * (own * off + amount.gather(3, cell))
    if reading.head == "softmax":
        found = p * (slope - (p * slope).sum(2, keepdim=True))
    else:
        found = p * (1 - p) * slope
    _write(gradient, found, kept)


def _rows(logits: Tensor) -> Tensor:
    """Give ``[G, B, C, voxels]`` as float32 or float64."""
    rows = logits.flatten(3) if logits.ndim > 3 else logits.unsqueeze(3)
    return rows if rows.dtype == torch.float64 else rows.float()


def _outcomes(target: Tensor, z: Tensor, reading: LossReading) -> tuple[Tensor, Tensor, Tensor]:
    """Find each voxel's class and which voxels count; NaN ``[G, B, 1]`` marks a bad target.

    On the CPU a target that is not a class is a ValueError. On a GPU the question would wait for
    the device.
    """
    classes = z.shape[2]
    labels = target.reshape(*z.shape[:2], 1, -1).long()
    kept = torch.ones_like(labels, dtype=torch.bool)
    if reading.ignore_index is not None:
        kept = labels != reading.ignore_index
    wrong = kept & ((labels < 0) | (labels >= max(classes, 2)))
    if wrong.device.type == "cpu" and bool(wrong.any()):
        found = labels[wrong]
        which = f"the value {int(found[0])}"
        if len(found) > 1:
            which = f"{len(found)} other values"
        raise ValueError(
            f"target must hold 0 to {max(classes, 2) - 1} or the ignore_index, got {which}"
        )
    own = torch.arange(classes, device=z.device).view(-1, 1) + (classes == 1)
    bad = torch.where(wrong.any(-1), math.nan, 0.0).double()
    return (labels == own) & kept, kept, bad


def _probabilities(z: Tensor, reading: LossReading) -> Tensor:
    return z.softmax(2) if reading.head == "softmax" else z.sigmoid()


def _shares(p: Tensor, bins: GapBins) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Give the bins of each voxel, its share in each bin, and the derivative of the share by p."""
    if not bins.soft:
        inner = thresholds_on(bins.count, p.dtype, p.device)[: bins.count - 1]
        return [(torch.bucketize(p, inner), torch.ones_like(p), torch.zeros_like(p))]
    place = p * bins.count - 0.5  # in bins, counted from the first centre
    left = place.floor().nan_to_num(0.0).clamp(0, bins.count - 1)
    along = place - left
    share = along.clamp(0, 1)
    cell = left.long()
    moved = torch.where((along >= 0) & (along <= 1), float(bins.count), 0.0).to(p.dtype)
    right = (cell + 1).clamp(max=bins.count - 1)
    return [(cell, 1 - share, -moved), (right, share, moved)]


def _write(gradient: Tensor, values: Tensor, kept: Tensor) -> None:
    gradient.copy_(values.masked_fill(~kept, 0.0).view(gradient.shape))
