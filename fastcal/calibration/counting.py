"""How a batch of predictions is read and counted into rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from fastcal import ops
from fastcal.calibration.settings import CalibrationSettings
from fastcal.calibration.state import CalibrationState
from fastcal.core.arrays import Array, real_dtype, to_tensor
from fastcal.core.members import check_member
from fastcal.core.predictions import Predictions
from fastcal.core.problem import Counting, Finish, Reading
from fastcal.core.targets import GivenTarget, Targets, Wording

Owner = TypeVar("Owner")


@dataclass(frozen=True, slots=True)
class OpenCount(Generic[Owner]):
    """Statistics that a call is counting."""

    statistics: Owner
    state: CalibrationState
    """Their integers."""
    counting: Counting
    """What the op counts, into new integers."""
    targets: Targets
    wording: Wording

    def close(self) -> Owner:
        """Check what was counted, merge it, and return the statistics.

        Raises:
            ValueError: Bad data were counted (CPU tensors; otherwise at the first read).
        """
        self.state.take(self.counting.statistics, self.targets, self.wording)
        return self.statistics


def read_batch(
    array: Array, given: GivenTarget, class_dim: int, name: str, settings: CalibrationSettings
) -> tuple[Tensor, Predictions]:
    """Return a batch as a tensor with a class axis, and what targets have to fit.

    Raises:
        TypeError, ValueError: The batch has another type or another number of classes.
    """
    values = to_tensor(array, name)
    if settings.num_classes == 1 and _lacks_classes(values, given.target, class_dim):
        values, class_dim = values.unsqueeze(-1), values.dim()
    real = real_dtype(values, name)
    axis = check_member(values, class_dim, name, stacklevel=4)
    if values.shape[axis] != settings.num_classes:
        raise ValueError(
            f"{name} must have {settings.num_classes} classes along axis {axis}, "
            f"got shape {tuple(values.shape)}"
        )
    return values, Predictions(values.shape, values.device, real, axis, settings.multilabel)


def clipped(values: Tensor) -> Tensor:
    """Return ``values`` with what lies in [0, 1] clipped to [eps, 1 - eps], eps of their type."""
    eps = torch.finfo(values.dtype).eps
    inside = (values >= 0) & (values <= 1)
    return torch.where(inside, values.clamp(eps, 1 - eps), values)


def counting_into(
    rows: Tensor, settings: CalibrationSettings, targets: Targets, predictions: Predictions
) -> Counting:
    """Return what an op counts, and into which integers.

    Args:
        rows: Integers to add to.
        settings: What is counted.
        targets: Checked.
        predictions: Whose types decide edges and the clip of the likelihood.
    """
    real = predictions.real
    return Counting(
        targets.target,
        targets.mask,
        targets.ignore_index,
        settings.thresholds(real),
        settings.closed == "left",
        settings.calibration,
        settings.smallest(real, predictions.stored or real),
        rows,
        None if targets.regions is None else targets.regions.bits,
        len(targets.region_names),
        settings.layout.extras,
    )


def count_batch(
    values: Tensor,
    predictions: Predictions,
    counting: Counting,
    from_logits: bool,
    normalise: bool,
) -> None:
    """Run the pass that counts one batch.

    Args:
        values: Probabilities or logits.
        predictions: Their shape and kind.
        counting: See `counting_into`.
        from_logits: ``values`` are logits.
        normalise: Divide each voxel's probabilities by their sum first.
    """
    multilabel = predictions.multilabel
    activation = "sigmoid" if multilabel else "softmax"
    reading = Reading(predictions.class_dim, from_logits, activation, multilabel, "prob")
    finish = Finish({}, normalise, counting)
    ops.ensemble_statistics([values], [1.0], [1.0], *reading.flatten(), *finish.flatten())


def _lacks_classes(values: Tensor, target: Array | None, class_dim: int) -> bool:
    if values.shape != getattr(target, "shape", None):
        return False
    return class_dim >= values.dim() or values.shape[class_dim] != 1
