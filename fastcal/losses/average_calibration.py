"""The marginal L1 average calibration error as a loss, with hard and with soft bins."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fastcal.core import bins
from fastcal.losses.checks import check_head, check_logits, class_weights, loss_value
from fastcal.losses.sums import bin_gaps


class _L1ACELoss(nn.Module):
    """What both losses share: reading the arguments, and the mean over bins, classes and images."""

    weight: Tensor | None
    soft: bool
    """A voxel is shared between the two nearest bin centres."""
    empty_weight: float = 0.0
    """Bins that hold less than this, in voxels, are left out; the empty ones always are."""

    def __init__(
        self,
        *,
        n_bins: int = 20,
        head: str = "softmax",
        include_background: bool = True,
        ignore_empty_classes: bool = True,
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        bins.check_bins(n_bins, "right")
        self.n_bins = n_bins
        self.head = check_head(head)
        self.include_background = include_background
        self.ignore_empty_classes = ignore_empty_classes
        self.ignore_index = ignore_index
        self.register_buffer("weight", class_weights(weight), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        check_logits(logits, target, self.weight, self.head)
        if not self.include_background and logits.shape[1] == 1:
            raise ValueError("include_background: got False, but the logits have one class")
        sums = bin_gaps(
            logits,
            target,
            head=self.head,
            n_bins=self.n_bins,
            soft=self.soft,
            ignore_index=self.ignore_index,
        )
        first = 0 if self.include_background else 1
        gap, amount = sums.gap[:, first:], sums.amount[:, first:]
        filled = (amount > 0) & (amount >= self.empty_weight)
        error = (gap / amount.masked_fill(~filled, 1.0)).abs().masked_fill(~filled, 0.0).sum(-1)
        error = error / filled.sum(-1).clamp(min=1)
        if self.ignore_empty_classes:
            error = error * (sums.reference[:, first:] > 0)
        if self.weight is not None:
            error = error * self.weight[first:].to(error)
        return loss_value(error.mean(), logits)


class HardL1ACELoss(_L1ACELoss):
    """``L = mean_{b,k} (1/n_bk) sum_j |mean_{i in j} p_ik - mean_{i in j} y_ik|``, hard bins.

    For every image b and class k, the voxels fall into bins j of equal width by their probability;
    the gap between mean probability and frequency is averaged over the n_bk bins that hold a voxel,
    whatever their size. Bins are those of `CalibrationStatistics`: (lo, hi]. Which bin a voxel
    falls into has no gradient; the mean probability of the bin has one: ``sign(gap) / count``.

    Meant to be added to a segmentation loss; it says nothing of which class is where.

    Args:
        n_bins: bins over [0, 1].
        head: ``"softmax"`` or ``"sigmoid"``.
        include_background: count class 0.
        ignore_empty_classes: a class that an image lacks contributes 0 (and still counts in the
            mean), as in the authors' code.
        weight: one factor a class, the background's included; None is 1 for every class.
        ignore_index: voxels of this target leave all bins.

    ``forward(logits [B, C, *S], target [B, *S] of any integer type) -> scalar``

    Raises:
        TypeError, ValueError: an argument out of range, shapes that do not match, or a weight that
            is not one a class.

    Source: Barfoot et al., MICCAI 2024; Barfoot et al., arXiv 2506.03942.

    Example:
        >>> import torch
        >>> loss = HardL1ACELoss()
        >>> logits = torch.tensor([[[2.0, 2.0], [0.0, 0.0]]])
        >>> round(loss(logits, torch.tensor([[0, 1]])).item(), 4)  # p = 0.8808, half are right
        0.3808
    """

    soft = False


class SoftL1ACELoss(_L1ACELoss):
    """`HardL1ACELoss` with soft bins: each voxel is shared between the two nearest bin centres.

    The shares fall linearly with the distance from the centre (all of a voxel goes to the outermost
    bins beyond their centres), so that the loss is continuous in p, and moving a voxel towards a
    better bin has a gradient too.

    Args:
        n_bins: see `HardL1ACELoss`, as for the arguments not listed here.
        empty_weight: bins that hold less than this, in voxels, are left out.

    ``forward(logits [B, C, *S], target [B, *S] of any integer type) -> scalar``

    Raises:
        TypeError, ValueError: as `HardL1ACELoss`.

    Source: Barfoot et al., arXiv 2506.03942.

    Example:
        >>> import torch
        >>> loss = SoftL1ACELoss()
        >>> logits = torch.tensor([[[2.0, 2.0], [0.0, 0.0]]])
        >>> round(loss(logits, torch.tensor([[0, 1]])).item(), 4)
        0.3808
    """

    def __init__(
        self,
        *,
        n_bins: int = 20,
        head: str = "softmax",
        include_background: bool = True,
        ignore_empty_classes: bool = True,
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
        empty_weight: float = 0.01,
    ) -> None:
        super().__init__(
            n_bins=n_bins,
            head=head,
            include_background=include_background,
            ignore_empty_classes=ignore_empty_classes,
            weight=weight,
            ignore_index=ignore_index,
        )
        if not empty_weight > 0:
            raise ValueError(f"empty_weight: got {empty_weight}, expected more than 0")
        self.empty_weight = empty_weight

    soft = True
