"""The one pass of temperature scaling: loss, gradient and curvature of a volume.

Everything a fit needs of a volume goes through `temperature_pass`. It is plain torch, a block of
voxels at a time in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastcal.recalibrate.volumes import Volume


@dataclass(frozen=True, slots=True)
class TemperatureSums:
    """Sums over voxels, float64, at one inverse temperature b = 1 / T."""

    n_voxels: int = 0
    loss: float = 0.0
    """Negative log-likelihood in nats."""
    gradient: float = 0.0
    """Its first derivative by b."""
    curvature: float = 0.0
    """Its second derivative by b, never negative."""

    def __add__(self, other: TemperatureSums) -> TemperatureSums:
        return TemperatureSums(
            self.n_voxels + other.n_voxels,
            self.loss + other.loss,
            self.gradient + other.gradient,
            self.curvature + other.curvature,
        )


def temperature_pass(volume: Volume, inverse_temperature: float) -> TemperatureSums:
    """Read a volume once.

    Args:
        volume: Predictions and target.
        inverse_temperature: b = 1 / T, by which the logits are multiplied.

    Returns:
        The sums over the voxels that count.

    Raises:
        ValueError: Targets outside [0, C), or voxels without valid values.
    """
    sums = TemperatureSums()
    for block in volume.blocks():
        logits = volume.reading.logits(block.values, volume.dtype)
        terms = temperature_terms(logits, block.target, inverse_temperature)
        loss, gradient, curvature = terms.sum(1).tolist()
        sums = sums + TemperatureSums(logits.shape[1], loss, gradient, curvature)
    return sums


def temperature_terms(logits: Tensor, target: Tensor, inverse_temperature: float) -> Tensor:
    """Loss, gradient and curvature of each voxel by b = 1 / T, ``[3, n]``.

    Softmax: ``-ln p_y``, ``E[z] - z_y`` and ``Var[z]`` under p = softmax(b z). Bernoulli, summed
    over classes: ``ln(1 + e^(b z)) - y b z``, ``(s - y) z``, ``s (1 - s) z^2`` with
    s = sigmoid(b z).

    Args:
        logits: float64 [C, n], finite.
        target: Class indices [n], or float64 [C, n] of 0 and 1 for Bernoullis.
        inverse_temperature: b.
    """
    b = inverse_temperature
    if target.dim() == 2:
        s = (b * logits).sigmoid()
        loss = -torch.nn.functional.logsigmoid(-b * logits) - b * target * logits
        gradient = (s - target) * logits
        curvature = s * (1 - s) * logits.square()
        return torch.stack([loss.sum(0), gradient.sum(0), curvature.sum(0)])
    # Centred logits: the sums of softmax do not change, and nothing cancels.
    z = logits - logits.amax(0)
    e = (b * z).exp()
    total = e.sum(0)
    p = e / total
    mean = (p * z).sum(0)
    right = z.gather(0, target[None])[0]
    loss = total.log() - b * right
    return torch.stack([loss, mean - right, (p * (z - mean).square()).sum(0)])
