"""The pass of temperature scaling in plain PyTorch: float64, one block of voxels at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastcal.backends.boxes import boxes
from fastcal.core.likelihood import finite_logits, likelihood, temperature_terms, valid
from fastcal.core.problem import TemperatureProblem

BLOCK_ELEMENTS = 1 << 17
"""Voxels times classes in a block: 1 MB of doubles, which the cache of a core holds."""


def temperature_sums(
    problem: TemperatureProblem,
    inverse_temperatures: list[float],
    per_class: bool,
    counts: Tensor,
    sums: Tensor,
) -> None:
    """Add a volume to ``counts`` and ``sums``; see `fastcal.core.problem.TemperatureLayout`."""
    values, device = problem.values, problem.values.device
    scale = torch.tensor(inverse_temperatures, dtype=torch.float64, device=device)
    found = torch.zeros_like(sums)
    for box in boxes(values.shape[1:], max(1, BLOCK_ELEMENTS // values.shape[0])):
        n_voxels = math.prod(part.stop - part.start for part in box)
        block = values[(slice(None), *box)].reshape(-1, n_voxels)
        target = _target(problem, box, n_voxels)
        kept = _kept(problem, block, target, box, counts)
        z = finite_logits(
            block[:, kept],
            from_logits=problem.from_logits,
            bernoulli=problem.bernoulli,
            tiny=problem.tiny,
            rest=problem.rest,
        )
        y = _wanted(problem, target[:, kept])
        if not per_class:
            found += temperature_terms(z, y, inverse_temperatures[0]).sum(1)
            continue
        loss, residual, p = likelihood(scale[:, None] * z, y)
        pz = p * z
        hessian = torch.diag((pz * z).sum(1))
        hessian -= torch.diag(pz.square().sum(1)) if problem.bernoulli else pz @ pz.T
        found += torch.cat([loss.sum()[None], (residual * z).sum(1), hessian.flatten()])
    sums += found


def _target(problem: TemperatureProblem, box: tuple[slice, ...], n_voxels: int) -> Tensor:
    """Give class indices [1, n], or [C, n] of 0 and 1 when multilabel."""
    where = (slice(None), *box) if problem.multilabel else box
    # torch lacks some comparisons of unsigned integers.
    return problem.target[where].reshape(-1, n_voxels).long()


def _wanted(problem: TemperatureProblem, target: Tensor) -> Tensor:
    if not problem.bernoulli:
        return target[0]
    if problem.multilabel:
        return target.double()
    classes = torch.arange(len(problem.values), device=target.device)[:, None]
    return (target == classes).double()


def _kept(
    problem: TemperatureProblem,
    block: Tensor,
    target: Tensor,
    box: tuple[slice, ...],
    counts: Tensor,
) -> Tensor:
    """Find the voxels that count, bool [n], and add to the counts."""
    top = 2 if problem.multilabel else len(block)
    inside = ((target >= 0) & (target < top)).all(0)
    wanted = torch.ones_like(inside) if problem.mask is None else problem.mask[box].reshape(-1)
    if problem.ignore_index is not None:
        wanted = wanted & (target != problem.ignore_index).all(0)
    numbers = valid(block, from_logits=problem.from_logits, bernoulli=problem.bernoulli)
    kept = wanted & inside & numbers
    counts += torch.stack(
        [kept.sum(), (wanted & inside & ~numbers).sum(), (wanted & ~inside).sum()]
    )
    return kept
