"""Cross entropy with a margin on the logits."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fastcal.losses.checks import kept_mean, real_logits
from fastcal.losses.paper import WeightedCrossEntropy


class MbLSLoss(nn.Module):
    """Margin-based label smoothing: cross entropy, and ``alpha`` times how far logits are apart.

    ``L = CE + (alpha / (N C)) sum_i sum_k max(0, max_j z_ij - z_ik - margin)``: distances of the
    logits up to the margin are free, so that a confident network is not pulled towards uniformity.

    Args:
        margin: distance of two logits that costs nothing.
        alpha: factor of what exceeds it.
        weight: one factor a class, of the cross entropy.
        ignore_index: voxels of this target leave both terms.

    ``forward(logits [B, C, *S], target [B, *S] of any integer type) -> scalar``

    Raises:
        ValueError: a negative margin or factor, shapes that do not match, or a weight that is not
            one a class.

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
                raise ValueError(f"{name}: got {value}, expected 0 or more")
        self.margin, self.alpha, self.ignore_index = margin, alpha, ignore_index
        self.cross_entropy = WeightedCrossEntropy(weight=weight, ignore_index=ignore_index)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        value: Tensor = self.cross_entropy(logits, target)
        z = real_logits(logits)
        beyond = (z.amax(1, keepdim=True) - z - self.margin).clamp(min=0).mean(1)
        kept = None if self.ignore_index is None else target != self.ignore_index
        return value + self.alpha * kept_mean(beyond, kept)
