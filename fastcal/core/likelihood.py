"""Predictions as finite logits, and the likelihood of temperatures and linear maps of them.

This is plain torch in float64 on blocks ``[C, n]``. The reference backend sums these terms over a
volume, and a fit evaluates them on a sample of voxels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SLACK = 1e-3
"""How far outside [0, 1] a probability may lie, as in the statistics."""


def largest_entropy(num_classes: int, *, multilabel: bool) -> float:
    """Return the largest entropy of a voxel in nats: ln C, or C ln 2 of Bernoulli variables.

    Example:
        >>> [round(largest_entropy(3, multilabel=groups), 4) for groups in (False, True)]
        [1.0986, 2.0794]
    """
    return num_classes * math.log(2) if multilabel else math.log(max(num_classes, 2))


def valid(values: Tensor, *, from_logits: bool, bernoulli: bool) -> Tensor:
    """Find the voxels of ``values`` [C, n] that hold logits or probabilities; bool [n].

    Logits are invalid where one of them is NaN or +inf, or where all are -inf (softmax).
    Probabilities are invalid where one of them lies further outside [0, 1] than rounding goes.
    """
    if from_logits:
        # A NaN stays NaN in the maximum, and -inf for all classes is not a distribution.
        top = values.amax(0)
        return top.isfinite() if not bernoulli else values.lt(torch.inf).all(0)
    return ((values >= -_SLACK) & (values <= 1 + _SLACK)).all(0)


def finite_logits(
    values: Tensor, *, from_logits: bool, bernoulli: bool, tiny: float, rest: float
) -> Tensor:
    """Turn valid values [C, n] into finite float64 logits.

    Args:
        values: Logits or probabilities.
        from_logits: ``values`` are logits.
        bernoulli: A probability becomes ``ln p - ln (1 - p)``. Otherwise it becomes ``ln p``.
        tiny: The number that a probability of 0 is read as. A logit of -inf is read as the largest
            logit of the voxel plus ``ln tiny``.
        rest: The number that 1 - p = 0 is read as, for Bernoulli variables.
    """
    values = values.double()
    if from_logits:
        top = 0.0 if bernoulli else values.amax(0, keepdim=True)
        low = torch.tensor(tiny, dtype=torch.float64).log()
        return torch.where(values == -torch.inf, top + low, values)
    logits = values.clamp(min=tiny).log()
    return logits if not bernoulli else logits - (1 - values).clamp(min=rest).log()


def temperature_terms(logits: Tensor, target: Tensor, inverse_temperature: float) -> Tensor:
    """Compute loss, gradient and curvature of each voxel with respect to b = 1 / T, ``[3, n]``.

    For a softmax these are ``-ln p_y``, ``E[z] - z_y`` and ``Var[z]`` under p = softmax(b z). For
    Bernoulli variables they are ``ln(1 + e^(b z)) - y b z``, ``(s - y) z`` and ``s (1 - s) z^2``
    with s = sigmoid(b z), summed over classes.

    Args:
        logits: float64 [C, n], finite.
        target: Class indices [n], or float64 [C, n] of 0 and 1 for Bernoulli variables.
        inverse_temperature: b.
    """
    b = inverse_temperature
    if target.dim() == 2:
        loss, residual, s = likelihood(b * logits, target)
        curvature = s * (1 - s) * logits.square()
        return torch.stack([loss, (residual * logits).sum(0), curvature.sum(0)])
    # The softmax of centred logits is the same, and nothing cancels in its sums.
    z = logits - logits.amax(0)
    e = (b * z).exp()
    total = e.sum(0)
    p = e / total
    mean = (p * z).sum(0)
    right = z.gather(0, target[None])[0]
    loss = total.log() - b * right
    return torch.stack([loss, mean - right, (p * (z - mean).square()).sum(0)])


def likelihood(a: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the loss [n] in nats, its derivative [C, n] by the logits, and the probabilities.

    Args:
        a: Logits, float64 [C, n].
        target: Class indices [n] for a softmax, or float64 [C, n] of 0 and 1 for Bernoulli
            variables, whose losses are summed over classes.
    """
    if target.dim() == 2:
        p = a.sigmoid()
        loss = (-torch.nn.functional.logsigmoid(-a) - target * a).sum(0)
        return loss, p - target, p
    log_p = a.log_softmax(0)
    p = log_p.exp()
    ones = torch.ones_like(a[:1])
    return -log_p.gather(0, target[None])[0], p.scatter_add(0, target[None], -ones), p
