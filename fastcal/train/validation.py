"""Scores of a network on the validation cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastcal import CalibrationStatistics, ensemble_statistics
from fastcal.data.prepared import PreparedCases
from fastcal.models import SegmentationNetwork, sliding_window


@dataclass(frozen=True, slots=True)
class Validation:
    """Scores on the preprocessed grid, padding included."""

    dice: float
    """Mean over foreground classes and cases, with the slices of a case taken together. A class
    that is neither in the label map nor in the prediction of a case does not count there."""
    dice_per_class: list[float]
    """Mean over cases, the background first; NaN where no case counts."""
    nll: float
    """Mean over voxels of ``-ln p_y``, in nats."""
    ece: float
    """Expected calibration error of the predicted class with 15 bins, over all voxels."""


@torch.inference_mode()
def validate(
    network: SegmentationNetwork,
    cases: PreparedCases,
    *,
    patch: tuple[int, ...] | None,
    batch_size: int,
    overlap: float = 0.5,
    ignore_label: int | None = None,
    autocast: torch.autocast | None = None,
) -> Validation:
    """Score a network by `CalibrationStatistics`, and leave its training mode as it was.

    Args:
        network: Returns logits ``[B, C, *P]``.
        cases: The cases, with images ``[N, Ch, *P]`` (slices, or a volume) and labels ``[N, *P]``.
        patch: Extents of windows that slide over larger images; None for whole images.
        batch_size: Windows or slices per forward pass.
        overlap: Share by which neighbouring windows overlap.
        ignore_label: Voxels of this label do not count.
        autocast: Context for the network alone.
    """
    training = network.training
    network.eval()
    statistics = CalibrationStatistics(network.num_classes)
    device = next(network.parameters()).device

    def forward(windows: Tensor) -> Tensor:
        with autocast or torch.autocast(device.type, enabled=False):
            logits: Tensor = network(windows)
        return logits.float()

    for name, image, label in zip(cases.names, cases.images, cases.labels, strict=True):
        logits = sliding_window(
            forward,
            image.to(device),
            patch=patch,
            overlap=overlap,
            batch_size=batch_size,
            device=device,
        )
        found = ensemble_statistics(
            [logits],
            label.to(device).long(),
            maps=(),
            activation=network.head,
            ignore_index=ignore_label,
            case_id=[name] * len(logits),
        ).calibration
        assert found is not None
        statistics.merge(found)
    network.train(training)
    dice = statistics.per_class("dice", "case")
    return Validation(
        dice=float(np.nanmean(dice[1:])) if np.isfinite(dice[1:]).any() else np.nan,
        dice_per_class=dice.tolist(),
        nll=statistics.nll(),
        ece=statistics.ece(),
    )
