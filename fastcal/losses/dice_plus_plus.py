"""Dice that punishes overconfidence."""

from __future__ import annotations

from torch import Tensor, nn

from fastcal.losses.checks import (
    check_head,
    check_logits,
    loss_value,
    one_hot,
    real_logits,
    without_ignored,
)


class DicePlusPlusLoss(nn.Module):
    """DSC++: ``1 - 2 TP / (2 TP + FP + FN)`` with ``FP = sum_i ((1 - y) p)^gamma`` and
    ``FN = sum_i (y (1 - p))^gamma``, mean over images and classes.

    A wrong voxel of which the network is unsure costs less than in the Dice loss, so that it is not
    driven to be sure of everything. ``gamma=1`` is soft Dice.

    Args:
        gamma: exponent of the wrong voxels, 1 or more.
        head: ``"softmax"`` or ``"sigmoid"``.
        include_background: count class 0.
        smooth: added to numerator and denominator.
        ignore_index: voxels of this target leave all sums.

    ``forward(logits [B, C, *S], target [B, *S] of any integer type) -> scalar``

    Raises:
        ValueError: an exponent below 1, an unknown head, or shapes that do not match.

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
            raise ValueError(f"gamma: got {gamma}, expected 1 or more")
        self.gamma, self.smooth = gamma, smooth
        self.head = check_head(head)
        self.include_background = include_background
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        check_logits(logits, target, None, self.head)
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
        return loss_value(losses.mean(), logits)
