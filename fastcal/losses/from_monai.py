"""MONAI's losses as this package's losses: of logits ``[B, C, *S]`` and integers ``[B, *S]``.

MONAI is imported when one is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from torch import Tensor, nn

from fastcal.losses.checks import check_head, check_shapes, class_weights


class FocalLoss(nn.Module):
    """Focal loss ``-(1/N) sum_i (1 - p_i,y_i)^gamma ln p_i,y_i``: cross entropy at ``gamma=0``.

    `monai.losses.FocalLoss` (in float32), whose mean is taken over voxels here and over voxels and
    classes there: this one is C times as large, and the same with ignored voxels as without them.

    Args:
        gamma: exponent.
        head: ``"softmax"``, or ``"sigmoid"`` for the sum of every class's binary focal loss.
        weight: one factor a class.
        ignore_index: voxels of this target count neither in the sum nor in N.

    ``forward(logits [B, C, *S], target [B, *S] of any integer type) -> scalar``

    Raises:
        ImportError: MONAI is missing.
        ValueError: a negative gamma, an unknown head, shapes that do not match, or a weight that is
            not one a class.

    Source: Lin et al., ICCV 2017; for calibration Mukhoti et al., NeurIPS 2020.
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
            raise ValueError(f"gamma: got {gamma}, expected 0 or more")
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
        total = _apply(self.loss, logits, target).sum()
        if self.ignore_index is None:
            return total / max(target.numel(), 1)
        return total / (target != self.ignore_index).sum().clamp(min=1)


class NACLLoss(nn.Module):
    """Neighbour-aware calibration: cross entropy and ``alpha`` times the distance of the logits
    from the class shares of each voxel's neighbourhood.

    `monai.losses.NACLLoss`.

    Args:
        num_classes: C.
        dims: spatial axes, 2 or 3. None: as many as the logits have.
        kernel_size: of the neighbourhood along every axis.
        kernel: ``"mean"`` or ``"gaussian"``.
        distance: ``"l1"`` or ``"l2"``.
        alpha: factor of the distance.
        sigma: of the Gaussian, in voxels.

    ``forward(logits [B, C, *S], target [B, *S] of any integer type) -> scalar``

    Raises:
        ImportError: MONAI is missing.
        ValueError: an argument MONAI does not know, or shapes that do not match.

    Source: Murugesan et al., MICCAI 2023.
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
        check_shapes(logits, target)
        dims = str(logits.ndim - 2)
        if dims not in self.losses:
            axes = " or ".join(self.losses)
            raise ValueError(f"logits: got {tuple(logits.shape)}, expected {axes} spatial axes")
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
            "this loss is MONAI's, which is missing: pip install 'fastcal[train]'"
        ) from error
    module: ModuleType = monai.losses
    return module
