"""The marginal L1 average calibration error as a loss, with hard and with soft bins."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastcal.core import bins
from fastcal.losses.base import Loss
from fastcal.losses.checks import check_head, check_logits, class_weights, loss_value
from fastcal.losses.sums import bin_gaps


class _L1ACELoss(Loss):
    """The common part of both losses: arguments, and the mean over bins, classes and images."""

    weight: Tensor | None
    soft: bool
    """Whether a voxel is shared between the two nearest bin centres."""
    empty_weight: float = 0.0
    """Bins with fewer voxels than this are left out; empty bins always are."""

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
        """Compute the loss of logits ``[B, C, *S]`` and targets ``[B, *S]``, a scalar."""
        check_logits(logits, target, self.weight, self.head)
        if not self.include_background and logits.shape[1] == 1:
            raise ValueError("include_background must be True for logits of one class, got False")
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
        # NaN is no empty bin: a network that has diverged must not look calibrated.
        filled = ~((amount <= 0) | (amount < self.empty_weight))
        error = (gap / amount.masked_fill(~filled, 1.0)).abs().masked_fill(~filled, 0.0).sum(-1)
        error = error / filled.sum(-1).clamp(min=1)
        if self.ignore_empty_classes:
            error = error * (sums.reference[:, first:] > 0)
        if self.weight is not None:
            error = error * self.weight[first:].to(error)
        return loss_value(error.mean(), logits)


class HardL1ACELoss(_L1ACELoss):
    """Average calibration error with hard bins, meant to be added to a segmentation loss.

    ``L = mean_{b,k} (1/n_bk) sum_j |mean_{i in j} p_ik - mean_{i in j} y_ik|``

    For every image b and class k, voxels fall into bins j of equal width by their probability. The
    gap between mean probability and frequency is averaged over the n_bk bins that hold a voxel,
    whatever their size. The bins are those of `CalibrationStatistics`: (lo, hi]. The choice of the
    bin has no gradient; the mean probability of a bin has the gradient ``sign(gap) / count``.

    On its own the loss does not tell which class is where.

    ``forward`` takes logits ``[B, C, *S]`` and a target ``[B, *S]`` of any integer type, and
    returns a scalar.

    Args:
        n_bins: Number of bins over [0, 1].
        head: ``"softmax"`` or ``"sigmoid"``.
        include_background: Whether class 0 counts.
        ignore_empty_classes: A class that is absent from an image contributes 0 and still counts
            in the mean, as in the authors' code.
        weight: One factor per class, the background included; None is 1 for every class.
        ignore_index: Voxels with this target do not count.

    Raises:
        TypeError, ValueError: An argument is out of range, shapes do not match, or there is not
            one weight per class.

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

    The share falls linearly with the distance from the centre. A voxel beyond the outermost centres
    belongs to the outermost bin alone. The loss is therefore continuous in p, and moving a voxel
    towards a better bin has a gradient too.

    ``forward`` takes logits ``[B, C, *S]`` and a target ``[B, *S]`` of any integer type, and
    returns a scalar.

    Args:
        n_bins: Number of bins over [0, 1].
        head: ``"softmax"`` or ``"sigmoid"``.
        include_background: Whether class 0 counts.
        ignore_empty_classes: See `HardL1ACELoss`.
        weight: One factor per class; see `HardL1ACELoss`.
        ignore_index: Voxels with this target do not count.
        empty_weight: Bins with fewer voxels than this are left out.

    Raises:
        TypeError, ValueError: See `HardL1ACELoss`.

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
            raise ValueError(f"empty_weight must be above 0, got {empty_weight}")
        self.empty_weight = empty_weight

    soft = True
