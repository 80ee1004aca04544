"""How well a network does on the validation cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastcal import CalibrationStatistics, ensemble_statistics
from fastcal.models import SegmentationNetwork, sliding_window


@dataclass(frozen=True, slots=True)
class Validation:
    """Scores on the preprocessed grid, padding included."""

    dice: float
    """Mean over foreground classes and cases, each case's slices taken together; a class that a
    case neither has nor is given does not count."""
    dice_per_class: list[float]
    """Mean over cases, the background first; NaN where no case counts."""
    nll: float
    """Mean over voxels of ``-ln p_y``, nats."""
    ece: float
    """Of the predicted class, 15 bins, over all voxels."""


@torch.inference_mode()
def validate(
    network: SegmentationNetwork,
    names: Sequence[str],
    images: Sequence[Tensor],
    labels: Sequence[Tensor],
    *,
    patch: tuple[int, ...] | None,
    batch_size: int,
    overlap: float = 0.5,
    ignore_label: int | None = None,
    autocast: torch.autocast | None = None,
) -> Validation:
    """Scores of a network by `CalibrationStatistics`; its training mode is left as it was.

    Args:
        network: gives logits ``[B, C, *P]``.
        names: of the cases.
        images: of each case, ``[N, Ch, *P]``: slices, or a volume.
        labels: of each case, ``[N, *P]``.
        patch: windows that slide over larger images; None: whole images.
        batch_size: windows or slices in a forward pass.
        overlap: of neighbouring windows.
        ignore_label: voxels of this label do not count.
        autocast: entered for the network alone.
    """
    training = network.training
    network.eval()
    statistics = CalibrationStatistics(network.num_classes)
    device = next(network.parameters()).device

    def forward(windows: Tensor) -> Tensor:
        with autocast or torch.autocast(device.type, enabled=False):
            logits: Tensor = network(windows)
        return logits.float()

    for name, image, label in zip(names, images, labels, strict=True):
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
    dice = statistics.dice(reduction="case")
    return Validation(
        dice=float(np.nanmean(dice[1:])) if np.isfinite(dice[1:]).any() else np.nan,
        dice_per_class=dice.tolist(),
        nll=statistics.nll(),
        ece=statistics.ece(),
    )
