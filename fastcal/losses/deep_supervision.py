"""A loss at every resolution a network puts out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class DeepSupervisionLoss(nn.Module):
    """``sum_l w_l L(logits_l, target_l)`` over the resolutions of a network, finest first.

    The target is brought to each resolution by taking the voxel nearest to the centre of each
    coarse one, so that no new label appears.

    Args:
        loss: the loss of one resolution, of ``(logits [B, C, *S], target [B, *S])``.
        weights: ``w_l``, one a resolution, used as they are. None is ``2^-l``, divided by its sum
            (nnU-Net's, which leaves its coarsest output out).

    ``forward(logits, target [B, *S]) -> scalar`` with ``logits`` a list of ``[B, C, *S_l]``, or one
    tensor (what the network gives in evaluation), whose loss is ``loss`` itself.

    Raises:
        ValueError: a weight below 0, no logits, or more resolutions than weights.

    Source: Lee et al., AISTATS 2015; Isensee et al., Nature Methods 18, 2021.

    Example:
        >>> import torch
        >>> from fastcal.losses import WeightedCrossEntropy
        >>> loss = DeepSupervisionLoss(WeightedCrossEntropy())
        >>> pyramid = [torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 2, 2)]
        >>> round(loss(pyramid, torch.zeros(1, 4, 4, dtype=torch.int64)).item(), 4)
        0.6931
    """

    def __init__(self, loss: nn.Module, *, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if weights is not None and not all(weight >= 0 for weight in weights):
            raise ValueError(f"weights: got {tuple(weights)}, expected numbers >= 0")
        self.loss = loss
        self.weights = None if weights is None else tuple(weights)

    def forward(self, logits: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        if isinstance(logits, Tensor):
            value: Tensor = self.loss(logits, target)
            return value
        terms = [
            weight * self.loss(level, resized_target(target, tuple(level.shape[2:])))
            for weight, level in zip(self._weights(len(logits)), logits, strict=False)
            if weight > 0
        ]
        return torch.stack(terms).sum()

    def _weights(self, levels: int) -> tuple[float, ...]:
        if levels == 0:
            raise ValueError("logits: got an empty list, expected one tensor a resolution")
        if self.weights is None:
            total = 2 - 0.5 ** (levels - 1)
            return tuple(0.5**level / total for level in range(levels))
        if levels > len(self.weights) or not any(self.weights[:levels]):
            raise ValueError(
                f"logits: got {levels} resolutions for the weights {self.weights}, expected one "
                "weight a resolution, not all 0"
            )
        return self.weights


def resized_target(target: Tensor, extents: tuple[int, ...]) -> Tensor:
    """Labels ``[B, *S]`` at another resolution ``[B, *extents]``, by the nearest voxel centre."""
    for axis, extent in enumerate(extents, start=1):
        size = target.shape[axis]
        if size != extent:
            centres = torch.arange(extent, device=target.device) * 2 + 1
            target = target.index_select(axis, (centres * size) // (2 * extent))
    return target
