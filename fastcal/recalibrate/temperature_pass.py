"""The pass of temperature scaling over a volume: loss, gradient and curvature."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fastcal import ops
from fastcal.core.problem import TemperatureLayout, TemperatureProblem
from fastcal.recalibrate.linear import LinearSums
from fastcal.recalibrate.volumes import Check, FitVolume


def temperature_pass(
    volume: FitVolume, inverse_temperatures: float | Sequence[float]
) -> LinearSums:
    """Read a volume once, and compute loss, gradient and Hessian.

    The derivatives are those of the negative log-likelihood in nats by b = 1 / T, by which the
    logits are multiplied. Terms of half-precision and float32 predictions are computed in float32
    and summed in float64.

    Args:
        volume: Predictions and target.
        inverse_temperatures: b, or one b per class.

    Returns:
        Sums over the voxels that count, with P = 1 or C.

    Raises:
        ValueError: Targets lie outside [0, C), or voxels have no valid values.
    """
    per_class = not isinstance(inverse_temperatures, float)
    each = (
        [inverse_temperatures]
        if isinstance(inverse_temperatures, float)
        else list(inverse_temperatures)
    )
    layout, device, reading = TemperatureLayout(len(each)), volume.values.device, volume.reading
    counts = torch.zeros(layout.COUNTS, dtype=torch.int64, device=device)
    sums = torch.zeros(layout.words, dtype=torch.float64, device=device)
    problem = TemperatureProblem(
        volume.values,
        volume.target if reading.multilabel else volume.target[0],
        volume.mask,
        volume.ignore_index,
        reading.from_logits,
        reading.bernoulli,
        reading.multilabel,
        *reading.floor(volume.dtype),
    )
    ops.temperature_sums(*problem.flatten(), each, per_class, counts, sums)
    found = counts.tolist()
    if found[layout.N_BAD_TARGET] or (found[layout.N_INVALID] and not volume.omit_invalid):
        _complain(volume)
    sums = sums.cpu()
    hessian = sums[layout.hessian].view(len(each), len(each))
    return LinearSums(
        found[layout.N_VOXELS], float(sums[layout.LOSS]), sums[layout.gradient], hessian
    )


def _complain(volume: FitVolume) -> None:
    """Find out what was wrong with a volume, and raise it."""
    check = Check(volume)
    for slab in volume.slabs():
        check.kept(slab)
    check.close()
