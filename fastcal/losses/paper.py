"""The two losses of the paper: weighted cross entropy, and a Dice loss with squared denominator.

The paper is Mehrtash et al., IEEE TMI 39(12), 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastcal.losses.base import Loss
from fastcal.losses.checks import check_head, check_logits, class_weights, loss_value
from fastcal.losses.cross_entropy import cross_entropy
from fastcal.losses.sums import class_sums


class WeightedCrossEntropy(Loss):
    """The paper's cross entropy ``L = -(1/N) sum_i sum_k w_k 1(y_i = k) ln p_ik`` of a softmax.

    The sum is divided by the number of voxels N, as in the paper. `torch.nn.CrossEntropyLoss`
    divides by the sum of the voxels' weights, which differs as soon as the weights do.

    ``forward`` takes logits ``[B, C, *S]`` and a target ``[B, *S]`` of any integer type, and
    returns a scalar.

    Args:
        weight: One ``w_k`` per class; None is 1 for every class.
        ignore_index: Voxels with this target count neither in the sum nor in N. Where no voxel is
            left, the loss is 0.
        label_smoothing: Share of each target that is spread evenly over all classes, in [0, 1)
            (Szegedy et al., CVPR 2016).

    Raises:
        ValueError: Shapes do not match, there is not one weight per class, or ``label_smoothing``
            is not in [0, 1).

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
            raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
        self.register_buffer("weight", class_weights(weight), persistent=False)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of logits ``[B, C, *S]`` and targets ``[B, *S]``, a scalar."""
        check_logits(logits, target, self.weight, "softmax")
        sums = class_sums(
            logits,
            target,
            head="softmax",
            ignore_index=self.ignore_index,
            likelihood=True,
            rest=self.label_smoothing > 0,
        )
        value = cross_entropy(sums, self.weight, smoothing=self.label_smoothing, divisor="voxels")
        return loss_value(value, logits)


class PaperDiceLoss(Loss):
    """The paper's Dice loss ``L = -2 sum_k w_k sum_i y_ik p_ik / (sum_i (y_ik^2 + p_ik^2) + eps)``.

    The squared denominator is that of V-Net. Sums run over all voxels of the batch and over all
    classes, the background included, so that the loss lies in ``[-sum_k w_k, 0]``.

    ``forward`` takes logits ``[B, C, *S]`` and a target ``[B, *S]`` of any integer type, and
    returns a scalar.

    Args:
        head: ``"sigmoid"``, as in the paper, whose Dice models do not normalise over classes, or
            ``"softmax"``.
        weight: One ``w_k`` per class; None is 1 for every class.
        eps: Number that is added to each denominator.
        ignore_index: Voxels with this target do not count.

    Raises:
        ValueError: The head is unknown, shapes do not match, or there is not one weight per class.

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
        if not eps >= 0:
            raise ValueError(f"eps must be at least 0, got {eps}")
        self.eps = eps
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of logits ``[B, C, *S]`` and targets ``[B, *S]``, a scalar."""
        check_logits(logits, target, self.weight, self.head)
        sums = class_sums(
            logits, target, head=self.head, ignore_index=self.ignore_index, overlaps=True
        )
        size = (sums.reference + sums.squared).sum(0)  # y is 0 or 1, its own square
        dice = 2.0 * sums.overlap.sum(0) / (size + self.eps)
        value = -(dice if self.weight is None else self.weight.to(dice) * dice).sum()
        return loss_value(value, logits)
