"""Predictions as finite logits, and what temperatures and linear maps of them cost in likelihood.

Plain torch in float64 on blocks ``[C, n]``: what the reference backend sums, and what a fit does
with a sample of voxels.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SLACK = 1e-3
"""How far outside [0, 1] a probability may lie, as in the statistics."""


def valid(values: Tensor, *, from_logits: bool, bernoulli: bool) -> Tensor:
    """The voxels of ``values`` [C, n] that hold numbers, probabilities in [0, 1]; bool [n]."""
    if from_logits:
        # A NaN stays NaN in the maximum; -inf for all classes is no distribution.
        top = values.amax(0)
        return top.isfinite() if not bernoulli else values.lt(torch.inf).all(0)
    return ((values >= -_SLACK) & (values <= 1 + _SLACK)).all(0)


def finite_logits(
    values: Tensor, *, from_logits: bool, bernoulli: bool, tiny: float, rest: float
) -> Tensor:
    """Logits of valid ``values`` [C, n], float64 and finite.

    Args:
        values: Logits or probabilities.
        from_logits: Which of them.
        bernoulli: Probabilities are read as ``ln p - ln (1 - p)``, else as ``ln p``.
        tiny: What a probability of 0 is read as; a logit of -inf as the voxel's largest plus
            ``ln tiny``.
        rest: What 1 - p = 0 of a Bernoulli is read as.
    """
    values = values.double()
    if from_logits:
        top = 0.0 if bernoulli else values.amax(0, keepdim=True)
        low = torch.tensor(tiny, dtype=torch.float64).log()
        return torch.where(values == -torch.inf, top + low, values)
    logits = values.clamp(min=tiny).log()
    return logits if not bernoulli else logits - (1 - values).clamp(min=rest).log()


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
        loss, residual, s = likelihood(b * logits, target)
        curvature = s * (1 - s) * logits.square()
        return torch.stack([loss, (residual * logits).sum(0), curvature.sum(0)])
    # Centred logits: the sums of softmax do not change, and nothing cancels.
    z = logits - logits.amax(0)
    e = (b * z).exp()
    total = e.sum(0)
    p = e / total
    mean = (p * z).sum(0)
    right = z.gather(0, target[None])[0]
    loss = total.log() - b * right
    return torch.stack([loss, mean - right, (p * (z - mean).square()).sum(0)])


def likelihood(a: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss [n] in nats, its derivative by the logits ``a`` [C, n], and their probabilities.

    Args:
        a: Logits, float64 [C, n].
        target: Class indices [n] (softmax), or float64 [C, n] of 0 and 1 (Bernoullis, whose
            losses are summed over classes).
    """
    if target.dim() == 2:
        p = a.sigmoid()
        loss = (-torch.nn.functional.logsigmoid(-a) - target * a).sum(0)
        return loss, p - target, p
    log_p = a.log_softmax(0)
    p = log_p.exp()
    ones = torch.ones_like(a[:1])
    return -log_p.gather(0, target[None])[0], p.scatter_add(0, target[None], -ones), p
