"""MONAI's calibration metric over exact counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.metrics.calibration import CalibrationReduction
from monai.metrics.metric import CumulativeIterationMetric
from monai.metrics.utils import do_metric_reduction, ignore_background
from monai.utils.enums import MetricReduction
from torch import Tensor

from fastcal.calibration import CalibrationStatistics, ConventionName
from fastcal.calibration.values import Floats
from fastcal.core import bins
from fastcal.core.arguments import flag, whole_number
from fastcal.core.targets import GivenTarget, Wording
from fastcal.core.whole import Whole


class CalibrationErrorMetric(CumulativeIterationMetric):
    """Calibration error of every class of every image: `monai.metrics.CalibrationErrorMetric`.

    It has the same arguments, calls, reductions and edges, but makes one pass over the volume
    instead of one per class, and its counts do not stop at 2^24 voxels per bin.

    Args:
        num_bins: Bins of equal width over [0, 1].
        include_background: Count channel 0.
        calibration_reduction: ``"expected"`` (ECE), ``"average"`` (ACE, the mean over the bins
            that hold a voxel) or ``"maximum"`` (MCE).
        metric_reduction: Over images and classes: ``"none"``, ``"mean"``, ``"sum"``,
            ``"mean_batch"``, ``"sum_batch"``, ``"mean_channel"`` or ``"sum_channel"``.
        get_not_nans: `aggregate` also gives the number of values that are not NaN.
        right: False: bins (lo, hi] between MONAI's edges, which end at 1 + 2^-23; True: [lo, hi)
            between those of ``numpy.linspace(0, 1)``. MONAI 1.6's documentation has the two sides
            the other way round; its code does this.

    ``metric(y_pred, y)`` takes probabilities (no logits) and one-hot targets ``[B, C, *S]``, or
    lists of ``[C, *S]``, and gives the errors ``[B, C]`` of this batch.

    Raises:
        ValueError: An argument is not one of these; shapes differ; targets are not 0 or 1;
            probabilities are NaN or outside [0, 1].

    Example:
        >>> import torch
        >>> metric = CalibrationErrorMetric(num_bins=10)
        >>> metric(torch.tensor([[[0.25, 0.25], [0.75, 0.75]]]), torch.tensor([[[0, 1], [1, 0]]]))
        tensor([[0.2500, 0.2500]])
        >>> metric.aggregate()
        tensor([0.2500])
    """

    def __init__(
        self,
        num_bins: int = 20,
        include_background: bool = True,
        calibration_reduction: CalibrationReduction | str = CalibrationReduction.EXPECTED,
        metric_reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
        right: bool = False,
    ) -> None:
        super().__init__()
        self.closed: bins.Closed = "left" if flag(right, "right") else "right"
        self.convention: ConventionName = "default" if right else "monai"
        self.num_bins = whole_number(num_bins, "num_bins")
        if self.num_bins < 1:
            raise ValueError(f"num_bins must be at least 1, got {num_bins}")
        bins.check_bins(self.num_bins, self.closed)
        self.include_background = flag(include_background, "include_background")
        self.calibration_reduction = CalibrationReduction(calibration_reduction)
        self.metric_reduction = MetricReduction(metric_reduction)
        self.get_not_nans = flag(get_not_nans, "get_not_nans")
        self._whole = Whole()

    def extend(self, *data: Any) -> None:
        """Add the errors of a batch; several threads may do so."""
        with self._whole:
            super().extend(*data)

    def _compute_tensor(  # type: ignore[override]  # takes no further arguments
        self, y_pred: Tensor, y: Tensor | None = None
    ) -> Tensor:
        if y is None or y_pred.shape != y.shape:
            raise ValueError(
                f"y must have the shape of y_pred, {tuple(y_pred.shape)}, "
                f"got {None if y is None else tuple(y.shape)}"
            )
        if y_pred.dim() < 3:
            raise ValueError(f"y_pred must be [B, C, *S], got shape {tuple(y_pred.shape)}")
        if not self.include_background:
            y_pred, y = ignore_background(y_pred=y_pred, y=y)
        n_images, num_classes = y_pred.shape[:2]
        statistics = CalibrationStatistics(
            num_classes,
            self.num_bins,
            self.closed,
            "classwise",
            multilabel=True,
            convention=self.convention,
        )
        images = list(range(n_images))
        given = GivenTarget(_zeros_and_ones(y), case_id=images)
        statistics.count(y_pred, given, Wording("y_pred", "", "apply the activation first"))
        errors = [self._errors(statistics.case(image)) for image in images]
        found = torch.from_numpy(np.array(errors).reshape(n_images, num_classes))
        return found.to(torch.float32).to(y_pred.device)

    def _errors(self, image: CalibrationStatistics) -> Floats:
        if self.calibration_reduction == CalibrationReduction.EXPECTED:
            return image.classwise_ece("l1")
        if self.calibration_reduction == CalibrationReduction.MAXIMUM:
            return image.classwise_ece("max")
        return image.classwise_ace()

    def aggregate(
        self, reduction: MetricReduction | str | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Reduce what was computed since `reset`, over all processes.

        Args:
            reduction: Used instead of ``metric_reduction``.

        Raises:
            ValueError: Nothing was computed.
        """
        errors = self.get_buffer()  # type: ignore[no-untyped-call]
        if not isinstance(errors, Tensor):
            raise ValueError("y_pred and y must be given before aggregate is called, got none")
        reduced, not_nans = do_metric_reduction(
            errors.clone(), MetricReduction(reduction or self.metric_reduction)
        )
        return (reduced, not_nans) if self.get_not_nans else reduced


def _zeros_and_ones(y: Tensor) -> Tensor:
    if not y.is_floating_point():
        return y
    ones = y != 0
    if not bool((ones == y).all()):
        raise ValueError("y must hold 0 and 1 (one-hot), got other values")
    return ones
