"""Cross entropy with a margin on the logits."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastcal.losses.base import Loss
from fastcal.losses.checks import kept_mean, real_logits
from fastcal.losses.paper import WeightedCrossEntropy


class MbLSLoss(Loss):
    """Margin-based label smoothing: cross entropy, and a penalty on the distance between logits.

    ``L = CE + (alpha / (N C)) sum_i sum_k max(0, max_j z_ij - z_ik - margin)``

    Distances up to the margin cost nothing, so that a confident network is not pulled towards
    uniform probabilities.

    ``forward`` takes logits ``[B, C, *S]`` and a target ``[B, *S]`` of any integer type, and
    returns a scalar.

    Args:
        margin: Distance between two logits that costs nothing.
        alpha: The factor of what exceeds the margin.
        weight: One factor per class of the cross entropy.
        ignore_index: Voxels with this target do not count.

    Raises:
        ValueError: The margin or factor is negative, shapes do not match, or there is not one
            weight per class.

    Source: Liu et al., CVPR 2022; Murugesan et al., Medical Image Analysis 87, 2023.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[12.0], [0.0]]])  # 2 beyond the margin, for one of two classes
        >>> round(MbLSLoss(margin=10.0, alpha=0.1)(logits, torch.tensor([[0]])).item(), 4)
        0.1
    """

    def __init__(
        self,
        *,
        margin: float = 10.0,
        alpha: float = 0.1,
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("margin", margin), ("alpha", alpha)):
            if not value >= 0:
                raise ValueError(f"{name} must be at least 0, got {value}")
        self.margin, self.alpha, self.ignore_index = margin, alpha, ignore_index
        self.cross_entropy = WeightedCrossEntropy(weight=weight, ignore_index=ignore_index)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of logits ``[B, C, *S]`` and targets ``[B, *S]``, a scalar."""
        value: Tensor = self.cross_entropy(logits, target)
        z = real_logits(logits)
        beyond = (z.amax(1, keepdim=True) - z - self.margin).clamp(min=0).mean(1)
        kept = None if self.ignore_index is None else target != self.ignore_index
        return value + self.alpha * kept_mean(beyond, kept)
