"""The paper's two losses, of logits and integer targets."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from fastcal.losses.checks import check_head, check_shapes, class_weights, one_hot, real_logits


class WeightedCrossEntropy(nn.Module):
    """``L = -(1/N) sum_i sum_k w_k 1(y_i = k) ln p_ik`` with ``p = softmax(logits)``.

    Divided by the number of voxels N, as in the paper; `torch.nn.CrossEntropyLoss` divides by the
    sum of the voxels' weights, which is another number as soon as the weights differ.

    Args:
        weight: one ``w_k`` a class; None is 1 for every class.
        ignore_index: voxels of this target count neither in the sum nor in N. Where nothing is
            left, the loss is 0.
        label_smoothing: share of each target that is spread evenly over all classes, in [0, 1)
            (Szegedy et al., CVPR 2016).

    ``forward(logits [B, C, *S], target [B, *S] of any integer type) -> scalar``

    Raises:
        ValueError: shapes that do not match, a weight that is not one a class, or a share that is
            none.

    Source: Mehrtash et al., IEEE TMI 39(12), 2020.

    Example:
        >>> import torch
        >>> loss = WeightedCrossEntropy(weight=[1.0, 3.0])
        >>> round(loss(torch.zeros(1, 2, 2), torch.tensor([[0, 1]])).item(), 4)  # 2 ln 2
        1.3863
    """

    weight: Tensor | None

    def __init__(
        self,
        *,
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing: got {label_smoothing}, expected 0 <= share < 1")
        self.register_buffer("weight", class_weights(weight), persistent=False)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        check_shapes(logits, target, self.weight)
        z, target = real_logits(logits), target.long()
        n_voxels: Tensor | int = max(target.numel(), 1)
        if self.ignore_index is not None:
            kept = target != self.ignore_index
            target, n_voxels = target.masked_fill(~kept, -100), kept.sum().clamp(min=1)
        total = functional.cross_entropy(
            z,
            target,
            weight=None if self.weight is None else self.weight.to(z.dtype),
            reduction="sum",
            ignore_index=-100,
            label_smoothing=self.label_smoothing,
        )
        return total / n_voxels


class PaperDiceLoss(nn.Module):
    """``L = -2 sum_k w_k sum_i y_ik p_ik / (sum_i (y_ik^2 + p_ik^2) + eps)``.

    The squared denominator is V-Net's. Sums run over all voxels of the batch, and over all classes,
    the background included, so that the loss lies in ``[-sum_k w_k, 0]``.

    Args:
        head: ``"sigmoid"`` (the paper's Dice models: classes unnormalised) or ``"softmax"``.
        weight: one ``w_k`` a class; None is 1 for every class.
        eps: added to each denominator.
        ignore_index: voxels of this target leave all sums.

    ``forward(logits [B, C, *S], target [B, *S] of any integer type) -> scalar``

    Raises:
        ValueError: an unknown head, shapes that do not match, or a weight that is not one a class.

    Source: Mehrtash et al., IEEE TMI 39(12), 2020; Milletari et al., 3DV 2016.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[50.0, -50.0], [-50.0, 50.0]]])
        >>> round(PaperDiceLoss()(logits, torch.tensor([[0, 1]])).item(), 4)
        -2.0
    """

    weight: Tensor | None

    def __init__(
        self,
        *,
        head: str = "sigmoid",
        weight: Sequence[float] | Tensor | None = None,
        eps: float = 1e-5,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        self.head = check_head(head)
        self.register_buffer("weight", class_weights(weight), persistent=False)
        self.eps = eps
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        check_shapes(logits, target, self.weight)
        z = real_logits(logits)
        p = z.softmax(1) if self.head == "softmax" else z.sigmoid()
        y = one_hot(target, p)
        if self.ignore_index is not None:
            ignored = (target == self.ignore_index).unsqueeze(1)
            p, y = p.masked_fill(ignored, 0.0), y.masked_fill(ignored, 0.0)
        summed = [axis for axis in range(p.ndim) if axis != 1]
        overlap = (y * p).sum(summed)
        size = (y + p * p).sum(summed)  # y is 0 or 1, its own square
        dice = 2.0 * overlap / (size + self.eps)
        return -(dice if self.weight is None else self.weight.to(dice.dtype) * dice).sum()
