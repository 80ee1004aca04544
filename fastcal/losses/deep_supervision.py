"""A loss at every resolution that a network returns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastcal.losses.base import Loss


class DeepSupervisionLoss(Loss):
    """The sum ``sum_l w_l L(logits_l, target_l)`` over the resolutions of a network, finest first.

    The target is resampled to each resolution by taking the voxel nearest to the centre of each
    coarse one, so that no new label appears.

    ``forward`` takes a list of logits ``[B, C, *S_l]`` and a target ``[B, *S]``, and returns a
    scalar. For a single tensor, which is what a network returns in evaluation mode, it returns
    ``loss`` itself.

    Args:
        loss: The loss of one resolution, a function of logits ``[B, C, *S]`` and a target
            ``[B, *S]``.
        weights: ``w_l``, one per resolution, used as they are. None is ``2^-l`` divided by their
            sum, as in nnU-Net, which leaves out its coarsest output.

    Raises:
        ValueError: A weight is below 0, there are no logits, or more resolutions than weights.

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
            raise ValueError(f"weights must be numbers of at least 0, got {tuple(weights)}")
        self.loss = loss
        self.weights = None if weights is None else tuple(weights)

    def forward(self, logits: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """Compute the loss of logits by resolution and a target ``[B, *S]``, a scalar."""
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
            raise ValueError("logits must hold one tensor per resolution, got an empty list")
        if self.weights is None:
            total = 2 - 0.5 ** (levels - 1)
            return tuple(0.5**level / total for level in range(levels))
        if levels > len(self.weights) or not any(self.weights[:levels]):
            raise ValueError(
                "logits must have at most one resolution per weight, and weights that are not all "
                f"0, got {levels} resolutions for the weights {self.weights}"
            )
        return self.weights


def resized_target(target: Tensor, extents: tuple[int, ...]) -> Tensor:
    """Resample labels ``[B, *S]`` to ``[B, *extents]`` by the nearest voxel centre."""
    for axis, extent in enumerate(extents, start=1):
        size = target.shape[axis]
        if size != extent:
            centres = torch.arange(extent, device=target.device) * 2 + 1
            target = target.index_select(axis, (centres * size) // (2 * extent))
    return target
