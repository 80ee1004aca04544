"""Optimisers, and the moving average of the weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fastcal.models import SegmentationNetwork
from fastcal.train.config import OptimiserConfig


def build_optimiser(
    config: OptimiserConfig, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Build the optimiser of a member, with torch's fused kernels: one launch for all weights."""
    match config.name:
        case "sgd":
            return torch.optim.SGD(
                parameters,
                lr=config.learning_rate,
                momentum=config.momentum,
                nesterov=config.momentum > 0,
                weight_decay=config.weight_decay,
                fused=True,
            )
        case "adam" | "adamw":
            kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
            return kind(
                parameters,
                lr=config.learning_rate,
                betas=config.betas,
                weight_decay=config.weight_decay,
                fused=True,
            )


class MovingAverage:
    """Exponential moving average of a network's weights: ``a += (1 - d) (w - a)`` per step.

    The decay starts low, ``d = min(decay, (1 + t) / (10 + t))``, so that the first weights are
    soon forgotten. Buffers such as running statistics, which are averages already, are copied.

    Args:
        network: The network whose weights are averaged.
        decay: The decay d after the first steps.
    """

    def __init__(self, network: SegmentationNetwork, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Add the weights after a step.

        Args:
            network: The network after the step.
            step: Counted from 1.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        averages: list[Tensor] = list(self.network.parameters())
        weights: list[Tensor] = list(network.parameters())
        torch._foreach_lerp_(averages, weights, 1 - decay)
        for average, buffer in zip(self.network.buffers(), network.buffers(), strict=True):
            average.copy_(buffer)
