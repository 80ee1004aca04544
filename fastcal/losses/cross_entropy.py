"""Cross entropies from sums over voxels."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcal.losses.sums import ClassSums


def cross_entropy(
    sums: ClassSums, weight: Tensor | None, *, smoothing: float = 0.0, divisor: str
) -> Tensor:
    """Compute the cross entropy of a softmax, a float64 scalar.

    It is ``sum_i ((1 - s) w_y (-ln p_iy) + (s / C) sum_k w_k (-ln p_ik))`` over a divisor, and 0
    where no voxel counts.

    Args:
        sums: Sums with ``nll``, and with ``rest`` where targets are smoothed.
        weight: ``w_k`` ``[C]``; None is 1 for every class.
        smoothing: The share s.
        divisor: ``"voxels"`` (the paper's), the sum of the voxels' ``"weights"`` (torch's), or
            ``"none"``.
    """
    nll, reference = sums.nll, sums.reference
    rest = sums.rest if smoothing > 0 else None
    if weight is not None:
        weights = weight.to(nll)
        nll, rest = weights * nll, None if rest is None else weights * rest
        reference = weights * reference if divisor == "weights" else reference
    total = nll.sum()
    if rest is not None:
        total = (1 - smoothing) * total + smoothing / nll.shape[1] * rest.sum()
    return total if divisor == "none" else total / _not_zero(reference.sum())


def binary_cross_entropy(sums: ClassSums, weight: Tensor | None, *, mean: bool) -> Tensor:
    """Compute the cross entropy of each class on its own, a float64 scalar.

    Args:
        sums: Sums of a sigmoid, with ``nll`` and ``rest``.
        weight: Factor ``[C]`` of the voxels of each class, torch's ``pos_weight``.
        mean: Return the mean over classes and the voxels that count, which is 0 without any such
            voxel; otherwise the sum.
    """
    nll = sums.nll if weight is None else sums.nll * weight.to(sums.nll)
    total = (nll + sums.rest).sum()
    if not mean:
        return total
    return total / _not_zero(sums.voxels.sum() * nll.shape[1])


def _not_zero(amount: Tensor) -> Tensor:
    """Avoid a division by 0: where no voxel counts, the sum that is divided is 0 as well."""
    return amount.clamp(min=torch.finfo(amount.dtype).tiny)
