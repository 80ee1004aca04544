"""The paper's two losses, of logits and integer targets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class WeightedCrossEntropy(nn.Module):
    """``L = -(1/N) sum_i sum_k w_k 1(y_i = k) ln p_ik`` with ``p = softmax(logits)``.

    Divided by the number of voxels N, as in the paper; `torch.nn.CrossEntropyLoss` divides by the
    sum of the voxels' weights, which is another number as soon as the weights differ.

    Args:
        weight: one ``w_k`` a class; None is 1 for every class.
        ignore_index: voxels of this target count neither in the sum nor in N. Where nothing is
            left, the loss is 0.

    ``forward(logits [B, C, *S], target [B, *S] of any integer type) -> scalar``

    Raises:
        ValueError: shapes that do not match, or a weight that is not one a class.

    Source: Mehrtash et al., IEEE TMI 39(12), 2020.

    Example:
        >>> import torch
        >>> loss = WeightedCrossEntropy(weight=[1.0, 3.0])
        >>> round(loss(torch.zeros(1, 2, 2), torch.tensor([[0, 1]])).item(), 4)  # 2 ln 2
        1.3863
    """

    weight: Tensor | None

    def __init__(
        self, *, weight: Sequence[float] | Tensor | None = None, ignore_index: int | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("weight", _class_weights(weight), persistent=False)
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        _check_shapes(logits, target, self.weight)
        target = target.long()
        if self.ignore_index is None:
            kept, n_voxels = target, target.numel()
        else:
            ignored = target == self.ignore_index
            kept = target.masked_fill(ignored, -100)
            n_voxels = target.numel() - int(ignored.sum())
        weight = None if self.weight is None else self.weight.to(logits.dtype)
        total = functional.cross_entropy(
            logits, kept, weight=weight, reduction="sum", ignore_index=-100
        )
        return total / max(n_voxels, 1)


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
        if head not in ("softmax", "sigmoid"):
            raise ValueError(f"head: got {head!r}, expected 'softmax' or 'sigmoid'")
        self.head = head
        self.register_buffer("weight", _class_weights(weight), persistent=False)
        self.eps = eps
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        _check_shapes(logits, target, self.weight)
        target = target.long().unsqueeze(1)
        p = logits.softmax(1) if self.head == "softmax" else logits.sigmoid()
        if self.ignore_index is not None:
            ignored = target == self.ignore_index
            target = target.masked_fill(ignored, 0)
            p = p.masked_fill(ignored, 0.0)
        y = torch.zeros_like(p).scatter_(1, target, 1.0)
        if self.ignore_index is not None:
            y = y.masked_fill(ignored, 0.0)
        summed = [axis for axis in range(p.ndim) if axis != 1]
        overlap = (y * p).sum(summed)
        size = (y + p * p).sum(summed)  # y is 0 or 1, its own square
        dice = 2.0 * overlap / (size + self.eps)
        return -(dice if self.weight is None else self.weight.to(dice.dtype) * dice).sum()


def _class_weights(weight: Sequence[float] | Tensor | None) -> Tensor | None:
    if weight is None:
        return None
    weights = torch.as_tensor(weight, dtype=torch.float64)
    if weights.ndim != 1 or not bool((weights >= 0).all()):
        raise ValueError(f"weight: got {weight!r}, expected one number >= 0 a class")
    return weights


def _check_shapes(logits: Tensor, target: Tensor, weight: Tensor | None) -> None:
    expected = (logits.shape[0], *logits.shape[2:])
    if tuple(target.shape) != expected:
        raise ValueError(
            f"target: got shape {tuple(target.shape)}, expected {expected} "
            f"for logits {tuple(logits.shape)}"
        )
    if target.is_floating_point():
        raise TypeError(f"target: got {target.dtype}, expected an integer type")
    if weight is not None and weight.numel() != logits.shape[1]:
        raise ValueError(
            f"weight: got {weight.numel()} numbers, expected one a class: {logits.shape[1]}"
        )
