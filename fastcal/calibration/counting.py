"""How a batch of predictions is read and counted into rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcal import ops
from fastcal.calibration.settings import CalibrationSettings
from fastcal.core.arrays import Array, real_dtype, to_tensor
from fastcal.core.members import check_member
from fastcal.core.targets import Targets

NOTHING_COUNTED = (None, None, None, None, False, "both", 0.0, None)
"""What an op takes in place of `count_arguments` where there is no target."""


def read_batch(
    array: Array, target: Array, class_dim: int, name: str, settings: CalibrationSettings
) -> tuple[Tensor, int]:
    """Return a batch as a tensor with a class axis, and that axis.

    Raises:
        TypeError, ValueError: The batch has another type or another number of classes.
    """
    values = to_tensor(array, name)
    if settings.num_classes == 1 and _lacks_classes(values, target, class_dim):
        values, class_dim = values.unsqueeze(-1), values.dim()
    real_dtype(values, name)
    axis = check_member(values, class_dim, name, stacklevel=4)
    if values.shape[axis] != settings.num_classes:
        raise ValueError(
            f"{name} must have {settings.num_classes} classes along axis {axis}, "
            f"got shape {tuple(values.shape)}"
        )
    return values, axis


def clipped(values: Tensor) -> Tensor:
    """Return ``values`` with what lies in [0, 1] clipped to [eps, 1 - eps], eps of their type."""
    eps = torch.finfo(values.dtype).eps
    inside = (values >= 0) & (values <= 1)
    return torch.where(inside, values.clamp(eps, 1 - eps), values)


def count_arguments(
    settings: CalibrationSettings, targets: Targets, rows: Tensor, real: torch.dtype
) -> tuple[Any, ...]:
    """Return the last arguments of an op, from the target on.

    Args:
        settings: What is counted.
        targets: Checked.
        rows: Integers to add to.
        real: Accumulation type of the predictions.
    """
    return (
        targets.target,
        targets.mask,
        targets.ignore_index,
        settings.thresholds(real),
        settings.closed == "left",
        settings.calibration,
        settings.smallest(real),
        rows,
        None if targets.regions is None else targets.regions.bits,
        len(targets.region_names),
        settings.moments,
        settings.fine_bins,
        settings.entropy_bins,
    )


def count_batch(
    values: Tensor,
    axis: int,
    settings: CalibrationSettings,
    arguments: tuple[Any, ...],
    *,
    from_logits: bool = False,
    normalise: bool = False,
) -> None:
    """Run the pass that counts one batch.

    Args:
        values: Probabilities or logits.
        axis: Of the classes.
        settings: What is counted.
        arguments: See `count_arguments`.
        from_logits: ``values`` are logits.
        normalise: Divide each voxel's probabilities by their sum first.
    """
    ops.ensemble_statistics(
        [values],
        [1.0],
        [1.0],
        axis,
        from_logits,
        "sigmoid" if settings.multilabel else "softmax",
        settings.multilabel,
        "prob",
        [],
        [],
        normalise,
        *arguments,
    )


def _lacks_classes(values: Tensor, target: Array, class_dim: int) -> bool:
    if values.shape != getattr(target, "shape", None):
        return False
    return class_dim >= values.dim() or values.shape[class_dim] != 1
