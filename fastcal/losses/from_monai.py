"""Losses of MONAI, adapted to logits ``[B, C, *S]`` and integer targets ``[B, *S]``.

MONAI is imported when one of them is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from torch import Tensor, nn

from fastcal.losses.base import Loss
from fastcal.losses.checks import (
    check_head,
    check_several_classes,
    check_shapes,
    class_weights,
    outside_classes,
)


class FocalLoss(Loss):
    """Focal loss ``-(1/N) sum_i (1 - p_i,y_i)^gamma ln p_i,y_i``; cross entropy at ``gamma=0``.

    It is computed by `monai.losses.FocalLoss` in float32. The mean is taken over voxels here, but
    over voxels and classes there, so that this loss is C times as large. Voxels that are ignored
    do not change it.

    ``forward`` takes logits ``[B, C, *S]`` and a target ``[B, *S]`` of any integer type, and
    returns a scalar.

    Args:
        gamma: The exponent, at least 0.
        head: ``"softmax"``, or ``"sigmoid"`` for the sum of the binary focal losses of the classes.
        weight: One factor per class.
        ignore_index: Voxels with this target count neither in the sum nor in N.

    Raises:
        ImportError: MONAI is missing.
        ValueError: The exponent is negative, the head is unknown, shapes do not match, or there is
            not one weight per class.

    Source: Lin et al., ICCV 2017; for calibration Mukhoti et al., NeurIPS 2020.

    Example:
        >>> import torch
        >>> loss = FocalLoss()
        >>> round(loss(torch.zeros(1, 2, 2), torch.tensor([[0, 1]])).item(), 4)  # ln 2 / 4
        0.1733
    """

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        head: str = "softmax",
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        if not gamma >= 0:
            raise ValueError(f"gamma must be at least 0, got {gamma}")
        self.ignore_index = ignore_index
        self.loss = _monai_losses().FocalLoss(
            to_onehot_y=True,
            gamma=gamma,
            weight=class_weights(weight),
            reduction="none",
            use_softmax=check_head(head) == "softmax",
            ignore_index=ignore_index,
        )

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of logits ``[B, C, *S]`` and targets ``[B, *S]``, a scalar."""
        if self.loss.use_softmax:
            check_several_classes(logits)
        check_shapes(logits, target)
        outside_classes(target, logits.shape[1], self.ignore_index)
        total = _apply(self.loss, logits, target).sum()
        if self.ignore_index is None:
            return total / max(target.numel(), 1)
        return total / (target != self.ignore_index).sum().clamp(min=1)


class NACLLoss(Loss):
    """Neighbour-aware calibration loss: cross entropy and a distance from the neighbourhood.

    To the cross entropy, ``alpha`` times the distance of the logits from the class shares of each
    voxel's neighbourhood is added. It is computed by `monai.losses.NACLLoss`.

    ``forward`` takes logits ``[B, C, *S]`` and a target ``[B, *S]`` of any integer type, and
    returns a scalar.

    Args:
        num_classes: C.
        dims: Spatial axes, 2 or 3; None for as many as the logits have.
        kernel_size: Extent of the neighbourhood along every axis.
        kernel: ``"mean"`` or ``"gaussian"``.
        distance: ``"l1"`` or ``"l2"``.
        alpha: The factor of the distance.
        sigma: Standard deviation of the Gaussian, in voxels.

    Raises:
        ImportError: MONAI is missing.
        ValueError: MONAI does not know an argument, or shapes do not match.

    Source: Murugesan et al., MICCAI 2023.

    Example:
        >>> import torch
        >>> loss = NACLLoss(2)
        >>> loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)).shape
        torch.Size([])
    """

    def __init__(
        self,
        num_classes: int,
        *,
        dims: int | None = None,
        kernel_size: int = 3,
        kernel: str = "mean",
        distance: str = "l1",
        alpha: float = 0.1,
        sigma: float = 1.0,
    ) -> None:
        super().__init__()
        self.losses = nn.ModuleDict(
            {
                str(axes): _monai_losses().NACLLoss(
                    num_classes,
                    axes,
                    kernel_size=kernel_size,
                    kernel_ops=kernel,
                    distance_type=distance,
                    alpha=alpha,
                    sigma=sigma,
                )
                for axes in ((2, 3) if dims is None else (dims,))
            }
        )

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of logits ``[B, C, *S]`` and targets ``[B, *S]``, a scalar."""
        check_shapes(logits, target)
        check_several_classes(logits)
        outside_classes(target, logits.shape[1], None)
        dims = str(logits.ndim - 2)
        if dims not in self.losses:
            axes = " or ".join(self.losses)
            raise ValueError(
                f"logits must have {axes} spatial axes, got shape {tuple(logits.shape)}"
            )
        loss: Tensor = self.losses[dims](logits, target.long())
        return loss


def _apply(loss: nn.Module, logits: Tensor, target: Tensor) -> Tensor:
    check_shapes(logits, target)
    found: Tensor = loss(logits, target.long().unsqueeze(1))
    return found


def _monai_losses() -> ModuleType:
    try:
        import monai.losses
    except ImportError as error:
        raise ImportError(
            "this loss needs MONAI, which is missing: pip install 'fastcal[train]'"
        ) from error
    module: ModuleType = monai.losses
    return module
