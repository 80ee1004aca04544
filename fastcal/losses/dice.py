"""Soft Dice, and Dice with cross entropy, from sums over voxels in one pass each way."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastcal.losses.base import Loss
from fastcal.losses.checks import (
    check_head,
    check_logits,
    check_reduction,
    class_weights,
    loss_value,
)
from fastcal.losses.cross_entropy import binary_cross_entropy, cross_entropy
from fastcal.losses.sums import ClassSums, class_sums


class DiceLoss(Loss):
    """Soft Dice loss of logits and label maps, computed in one pass.

    ``1 - (2 sum_i y p + nr) / (sum_i y + sum_i p + dr)``, mean over images and classes

    The values are those of `monai.losses.DiceLoss`. (`PaperDiceLoss` squares the denominator, sums
    over the batch, and adds up over classes.)

    ``forward`` takes logits ``[B, C, *S]`` and a target ``[B, *S]`` of any integer type, and
    returns a scalar. With one class, its voxels are those of target 1.

    Args:
        head: ``"softmax"`` or ``"sigmoid"``.
        include_background: Whether class 0 counts.
        weight: One factor per class, class 0 included. As in MONAI, it has no effect where the
            loss is that of one class alone (one class, or two without the background).
        batch: Whether the sums run over the batch too.
        smooth_nr: Number nr that is added to the numerator.
        smooth_dr: Number dr that is added to the denominator.
        squared_pred: Use ``sum_i p^2`` in the denominator in place of ``sum_i p``.
        jaccard: Compute ``1 - (2 sum y p + nr) / (2 (sum y + sum p - sum y p) + dr)``.
        ignore_index: Voxels with this target do not count.
        reduction: ``"mean"`` or ``"sum"`` over images and classes, or ``"none"`` for ``[B, C]``
            (``[C]`` with ``batch``).

    Raises:
        ValueError: The head or reduction is unknown, shapes do not match, there is not one weight
            per class, there is a softmax of one class, or a target is not a class.

    Source: Milletari et al., 3DV 2016, with the denominator not squared; Drozdzal et al., 2016.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[50.0, -50.0], [-50.0, 50.0]]])
        >>> round(DiceLoss()(logits, torch.tensor([[0, 1]])).item(), 4)
        0.0
    """

    weight: Tensor | None

    def __init__(
        self,
        *,
        head: str = "softmax",
        include_background: bool = True,
        weight: Sequence[float] | Tensor | None = None,
        batch: bool = False,
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        squared_pred: bool = False,
        jaccard: bool = False,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.head = check_head(head)
        self.include_background = include_background
        self.batch = batch
        self.smooth_nr, self.smooth_dr = smooth_nr, smooth_dr
        self.squared_pred = squared_pred
        self.jaccard = jaccard
        self.ignore_index = ignore_index
        self.reduction = check_reduction(reduction, ("mean", "sum", "none"))
        self.register_buffer("weight", class_weights(weight), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of logits ``[B, C, *S]`` and targets ``[B, *S]``."""
        check_logits(logits, target, self.weight, self.head)
        sums = class_sums(
            logits, target, head=self.head, ignore_index=self.ignore_index, overlaps=True
        )
        return loss_value(self.of_sums(sums), logits)

    def of_sums(self, sums: ClassSums) -> Tensor:
        """Compute the loss in float64 from sums over voxels."""
        first = 0 if self.include_background or sums.overlap.shape[1] == 1 else 1
        overlap, reference = sums.overlap, sums.reference
        predicted = sums.squared if self.squared_pred else sums.predicted
        if first:
            overlap, predicted, reference = overlap[:, 1:], predicted[:, 1:], reference[:, 1:]
        if self.batch:
            overlap, predicted, reference = overlap.sum(0), predicted.sum(0), reference.sum(0)
        size = predicted + reference
        if self.jaccard:
            size = 2 * (size - overlap)
        losses = 1 - (2 * overlap + self.smooth_nr) / (size + self.smooth_dr)
        # With one class left there is nothing to balance, and MONAI leaves the weight out, too.
        if self.weight is not None and losses.shape[-1] > 1:
            losses = losses * self.weight.to(losses)[first:]
        if self.reduction == "none":
            return losses
        return losses.mean() if self.reduction == "mean" else losses.sum()


class DiceCELoss(Loss):
    """The sum of `DiceLoss` and cross entropy, with which nnU-Net trains.

    Values and gradients are those of `monai.losses.DiceCELoss`, from logits and label maps in one
    pass each way. In addition there is ``ignore_index``.

    ``forward`` takes logits ``[B, C, *S]`` and a target ``[B, *S]`` of any integer type, and
    returns a scalar.

    Args:
        head: ``"softmax"``, or ``"sigmoid"``, whose cross entropy is that of each class on its
            own, mean over voxels and classes (as nnU-Net has for label groups, its regions).
        ce_head: The head of the cross entropy where it differs. MONAI's `DiceCELoss` with
            ``sigmoid=True`` uses a softmax there as soon as there are two classes.
        include_background: Whether class 0 counts in the Dice loss.
        weight: One factor per class in both terms. In the Dice loss see `DiceLoss`. In the cross
            entropy it is torch's ``weight`` of a softmax (divided by the sum of the voxels'
            weights), or the ``pos_weight`` of a sigmoid.
        batch: Whether the sums of the Dice loss run over the batch too.
        smooth_nr: See `DiceLoss`.
        smooth_dr: See `DiceLoss`.
        squared_pred: See `DiceLoss`.
        jaccard: See `DiceLoss`.
        lambda_dice: The factor of the Dice loss.
        lambda_ce: The factor of the cross entropy.
        label_smoothing: Share of a softmax's targets that is spread over all classes.
        ignore_index: Voxels with this target do not count.
        reduction: ``"mean"``, or ``"sum"`` over images and classes, and over voxels.

    Raises:
        ValueError: See `DiceLoss`; or a factor is below 0, or ``label_smoothing`` is not in
            [0, 1).

    Source: Isensee et al., Nature Methods 18, 2021.

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 2, 4)
        >>> round(DiceCELoss()(logits, torch.tensor([[0, 0, 1, 1]])).item(), 4)  # 1/2 + ln 2
        1.1931
    """

    weight: Tensor | None

    def __init__(
        self,
        *,
        head: str = "softmax",
        ce_head: str | None = None,
        include_background: bool = True,
        weight: Sequence[float] | Tensor | None = None,
        batch: bool = False,
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        squared_pred: bool = False,
        jaccard: bool = False,
        lambda_dice: float = 1.0,
        lambda_ce: float = 1.0,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        for name, factor in (("lambda_dice", lambda_dice), ("lambda_ce", lambda_ce)):
            if not factor >= 0:
                raise ValueError(f"{name} must be at least 0, got {factor}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
        self.head = check_head(head)
        self.ce_head = self.head if ce_head is None else check_head(ce_head, "ce_head")
        if label_smoothing > 0 and self.ce_head == "sigmoid":
            raise ValueError(
                "label_smoothing must be 0 for the cross entropy of a sigmoid, "
                f"got {label_smoothing}"
            )
        self.lambda_dice, self.lambda_ce = lambda_dice, lambda_ce
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        self.reduction = check_reduction(reduction, ("mean", "sum"))
        self.register_buffer("weight", class_weights(weight), persistent=False)
        self.dice = DiceLoss(
            head=head,
            include_background=include_background,
            weight=weight,
            batch=batch,
            smooth_nr=smooth_nr,
            smooth_dr=smooth_dr,
            squared_pred=squared_pred,
            jaccard=jaccard,
            ignore_index=ignore_index,
            reduction=reduction,
        )

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of logits ``[B, C, *S]`` and targets ``[B, *S]``, a scalar."""
        ce_head = "sigmoid" if logits.shape[1] == 1 else self.ce_head
        check_logits(logits, target, self.weight, self.head)
        one_pass = ce_head == self.head
        sums = class_sums(
            logits,
            target,
            head=self.head,
            ignore_index=self.ignore_index,
            overlaps=True,
            likelihood=one_pass,
            rest=one_pass and (ce_head == "sigmoid" or self.label_smoothing > 0),
        )
        likelihoods = sums
        if not one_pass:
            likelihoods = class_sums(
                logits,
                target,
                head=ce_head,
                ignore_index=self.ignore_index,
                likelihood=True,
                rest=ce_head == "sigmoid" or self.label_smoothing > 0,
            )
        if ce_head == "softmax":
            ce = cross_entropy(
                likelihoods,
                self.weight,
                smoothing=self.label_smoothing,
                divisor="weights" if self.reduction == "mean" else "none",
            )
        else:
            ce = binary_cross_entropy(likelihoods, self.weight, mean=self.reduction == "mean")
        total = self.lambda_dice * self.dice.of_sums(sums) + self.lambda_ce * ce
        return loss_value(total, logits)
