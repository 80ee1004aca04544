"""DSC++, a Dice loss that punishes overconfidence."""

from __future__ import annotations

from torch import Tensor

from fastcal.losses.base import Loss
from fastcal.losses.checks import (
    check_head,
    check_logits,
    loss_value,
    one_hot,
    outside_classes,
    real_logits,
    without_ignored,
)


class DicePlusPlusLoss(Loss):
    """The DSC++ loss ``1 - 2 TP / (2 TP + FP + FN)``, mean over images and classes.

    Here ``FP = sum_i ((1 - y) p)^gamma`` and ``FN = sum_i (y (1 - p))^gamma``. A wrong voxel about
    which the network is unsure costs less than in the Dice loss, so that the network is not driven
    to be sure of everything. With ``gamma=1`` it is soft Dice.

    ``forward`` takes logits ``[B, C, *S]`` and a target ``[B, *S]`` of any integer type, and
    returns a scalar.

    Args:
        gamma: Exponent of the wrong voxels, at least 1.
        head: ``"softmax"`` or ``"sigmoid"``.
        include_background: Whether class 0 counts.
        smooth: Number that is added to numerator and denominator.
        ignore_index: Voxels with this target do not count.

    Raises:
        ValueError: The exponent is below 1, the head is unknown, or shapes do not match.

    Source: Yeung et al., Journal of Digital Imaging 36, 2023.

    Example:
        >>> import torch
        >>> loss = DicePlusPlusLoss()
        >>> round(loss(torch.zeros(1, 2, 2), torch.tensor([[0, 1]])).item(), 4)  # 1 - 1 / 1.5
        0.3333
    """

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        head: str = "softmax",
        include_background: bool = True,
        smooth: float = 1e-5,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        if not gamma >= 1:
            raise ValueError(f"gamma must be at least 1, got {gamma}")
        self.gamma, self.smooth = gamma, smooth
        self.head = check_head(head)
        self.include_background = include_background
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of logits ``[B, C, *S]`` and targets ``[B, *S]``, a scalar."""
        check_logits(logits, target, None, self.head)
        outside = outside_classes(target, logits.shape[1], self.ignore_index)
        z = real_logits(logits)
        p = z.softmax(1) if self.head == "softmax" else z.sigmoid()
        labels, kept = without_ignored(target, self.ignore_index)
        y = one_hot(labels, p) if p.shape[1] > 1 else labels.unsqueeze(1).to(p.dtype)
        first = 0 if self.include_background or p.shape[1] == 1 else 1
        p, y = p[:, first:].flatten(2), y[:, first:].flatten(2)
        mask = 1.0 if kept is None else kept.flatten(1).unsqueeze(1).to(p.dtype)
        overlap = 2 * (mask * y * p).sum(-1)
        wrong = (mask * ((1 - y) * p + y * (1 - p)) ** self.gamma).sum(-1)
        losses = 1 - (overlap + self.smooth) / (overlap + wrong + self.smooth)
        return loss_value(losses.mean() + outside, logits)
