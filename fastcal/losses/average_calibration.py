"""The marginal L1 average calibration error as a loss, with hard and with soft bins."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastcal import bins
from fastcal.losses.checks import (
    check_head,
    check_shapes,
    class_weights,
    one_hot,
    without_ignored,
)


class _L1ACELoss(nn.Module):
    """What both losses share: reading the arguments, and the mean over bins, classes and images."""

    weight: Tensor | None

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
        check_shapes(logits, target, self.weight)
        if not self.include_background and logits.shape[1] == 1:
            raise ValueError("include_background: got False, but the logits have one class")
        real = logits if logits.dtype == torch.float64 else logits.float()
        p = real.softmax(1) if self.head == "softmax" else real.sigmoid()
        target, kept = without_ignored(target, self.ignore_index)
        first = 0 if self.include_background else 1
        p = p[:, first:].flatten(2)
        y = one_hot(target, real)[:, first:].flatten(2)
        mask = torch.ones_like(y[:, :1]) if kept is None else kept.unsqueeze(1).flatten(2).to(y)
        y = y * mask
        gap, amount = self._binned(p, y, mask)
        filled = amount > 0
        error = (gap.abs() / amount.masked_fill(~filled, 1.0)).sum(-1) / filled.sum(-1).clamp(min=1)
        if self.ignore_empty_classes:
            error = error * (y.amax(-1) > 0)
        if self.weight is not None:
            error = error * self.weight[first:].to(error)
        return error.mean().to(real.dtype)

    def _binned(self, p: Tensor, y: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of p - y and the amount of voxels in each bin, ``[B, C, n_bins]`` in float64.

        float32 sums stop growing at 2^24 voxels a bin. Bins to leave out have the amount 0.
        """
        raise NotImplementedError


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

    def _binned(self, p: Tensor, y: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        inner = bins.thresholds(self.n_bins, p.dtype).to(p.device)
        cell = torch.bucketize(p.detach().contiguous(), inner)
        empty = torch.zeros(*p.shape[:2], self.n_bins, dtype=torch.float64, device=p.device)
        gap = empty.scatter_add(2, cell, ((p - y) * mask).double())
        return gap, empty.scatter_add(2, cell, mask.double().expand_as(p))


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

    def _binned(self, p: Tensor, y: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        place = p * self.n_bins - 0.5  # in bins, counted from the first centre
        left = place.detach().floor().clamp(0, self.n_bins - 1)
        share = (place - left).clamp(0, 1)
        cell = left.long()
        shares = ((cell, (1 - share) * mask), ((cell + 1).clamp(max=self.n_bins - 1), share * mask))
        gap = torch.zeros(*p.shape[:2], self.n_bins, dtype=torch.float64, device=p.device)
        amount = torch.zeros_like(gap)
        for index, part in shares:
            gap = gap.scatter_add(2, index, (part * (p - y)).double())
            amount = amount.scatter_add(2, index, part.double())
        kept = amount >= self.empty_weight
        return gap * kept, amount * kept
