"""Cross entropy against smoothed targets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fastcal.losses.base import Loss
from fastcal.losses.checks import (
    check_several_classes,
    check_shapes,
    kept_mean,
    one_hot,
    outside_classes,
    real_logits,
    without_ignored,
)
from fastcal.losses.paper import WeightedCrossEntropy


class LabelSmoothingLoss(WeightedCrossEntropy):
    """`WeightedCrossEntropy` against the smoothed target ``(1 - s) y + s / C``.

    Args:
        smoothing: The share s, in [0, 1).
        weight: See `WeightedCrossEntropy`.
        ignore_index: See `WeightedCrossEntropy`.

    Source: Szegedy et al., CVPR 2016.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[2.0], [0.0]]])
        >>> round(LabelSmoothingLoss(smoothing=0.1)(logits, torch.tensor([[0]])).item(), 4)
        0.2269
    """

    def __init__(
        self,
        *,
        smoothing: float = 0.1,
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
    ) -> None:
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must lie in [0, 1), got {smoothing}")
        super().__init__(weight=weight, ignore_index=ignore_index, label_smoothing=smoothing)


class SVLSLoss(Loss):
    """Spatially varying label smoothing: ``L = -(1/N) sum_i sum_k s_ik ln p_ik``.

    ``s`` is the one-hot target seen through a Gaussian window whose centre weighs as much as all
    its neighbours together. Inside a structure it is the target itself; at a border it is the share
    of each class in the neighbourhood. Beyond the image, the nearest voxel is repeated.

    ``forward`` takes logits ``[B, C, *S]`` with 1 to 3 spatial axes and a target ``[B, *S]`` of any
    integer type, and returns a scalar.

    Args:
        kernel_size: Extent of the window along every axis, odd.
        sigma: Standard deviation of the Gaussian, in voxels.
        ignore_index: Voxels with this target count neither in the mean nor in the windows of
            others.

    Raises:
        ValueError: An argument is out of range, or shapes do not match.

    Source: Islam and Glocker, IPMI 2021.

    Example:
        >>> import torch
        >>> loss = SVLSLoss()
        >>> logits = torch.zeros(1, 2, 4, 4)
        >>> round(loss(logits, torch.zeros(1, 4, 4, dtype=torch.uint8)).item(), 4)
        0.6931
    """

    def __init__(
        self, *, kernel_size: int = 3, sigma: float = 1.0, ignore_index: int | None = None
    ) -> None:
        super().__init__()
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be an odd number of at least 3, got {kernel_size}")
        if not sigma > 0:
            raise ValueError(f"sigma must be above 0, got {sigma}")
        self.kernel_size = kernel_size
        self.sigma = sigma
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of logits ``[B, C, *S]`` and targets ``[B, *S]``, a scalar."""
        check_shapes(logits, target)
        check_several_classes(logits)
        if not 1 <= logits.ndim - 2 <= 3:
            raise ValueError(
                f"logits must have 1 to 3 spatial axes, got shape {tuple(logits.shape)}"
            )
        outside = outside_classes(target, logits.shape[1], self.ignore_index)
        target, kept = without_ignored(target, self.ignore_index)
        z = real_logits(logits)
        found = -(self.smoothed(target, kept, z) * z.log_softmax(1)).sum(1)
        return kept_mean(found, kept) + outside

    @torch.no_grad()
    def smoothed(self, target: Tensor, kept: Tensor | None, like: Tensor) -> Tensor:
        """Return soft targets in shape and type of ``like`` ``[B, C, *S]``; they sum to 1.

        Args:
            target: int64 ``[B, *S]``, a class everywhere.
            kept: Which voxels count, bool ``[B, *S]``; None for all.
            like: The logits.
        """
        dims = like.ndim - 2
        window = self.window(dims).to(like)
        hot = one_hot(target, like)
        if kept is not None:
            hot = hot * kept.unsqueeze(1)
        batch, classes, *extents = hot.shape
        reach = self.kernel_size // 2
        padded = functional.pad(
            hot.reshape(batch * classes, 1, *extents), (reach,) * 2 * dims, mode="replicate"
        )
        convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[dims - 1]
        soft = convolve(padded, window[None, None]).reshape(hot.shape)
        if kept is None:
            return soft
        total = soft.sum(1, keepdim=True)
        return soft / total.masked_fill(total == 0, 1.0)

    def window(self, dims: int) -> Tensor:
        """Return the float64 window ``[kernel_size] * dims``; its centre holds half of its sum, 1.

        Args:
            dims: Number of spatial axes.
        """
        offset = torch.arange(self.kernel_size, dtype=torch.float64) - self.kernel_size // 2
        line = torch.exp(-(offset**2) / (2 * self.sigma**2))
        window = line
        for _ in range(dims - 1):
            window = window.unsqueeze(-1) * line
        centre = (self.kernel_size // 2,) * dims
        window[centre] = window.sum() - window[centre]
        return window / window.sum()
