"""What statistics are counted against: target, mask, regions and case ids, checked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from fastcal.core.arguments import choice, whole_number
from fastcal.core.arrays import INTEGERS, Array, to_tensor
from fastcal.core.predictions import Predictions
from fastcal.core.region_bits import Regions, read_regions

CaseId: TypeAlias = str | int

NAN_POLICIES = ("raise", "omit")


class GivenTarget(NamedTuple):
    """A target and what belongs to it, as a call gave them. `read_targets` checks them."""

    target: Array | None
    """Integers, ``[B, *S]``; ``[B, C, *S]`` when multilabel (or ``[B, *S]`` for one class). bool
    counts as 0 and 1."""
    mask: Array | None = None
    """bool ``[B, *S]``; True keeps a voxel."""
    ignore_index: int | None = None
    """The target value that is left out."""
    case_id: CaseId | Sequence[CaseId] | Array | None = None
    """One id per batch item."""
    regions: Regions | Mapping[str, Array] | None = None
    """Masks by name, packed or not."""
    nan_policy: str = "raise"
    """One of `NAN_POLICIES`: what invalid voxels among those counted do."""


class Wording(NamedTuple):
    """What messages about invalid voxels call the arguments of the function that was called."""

    predictions: str
    omit: str = "nan_policy='omit'"
    """What leaves invalid voxels out; "" where nothing does."""
    logits: str = "pass from_logits=True, or call update_from_logits"
    """What to do where the predictions are logits."""


VALIDATING = Wording("preds", "validate_args=False", "pass from_logits=True")
"""The words of torchmetrics, which the metrics and the functions of one call share."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Tensors as the ops take them, and the case of each row of the statistics."""

    target: Tensor
    mask: Tensor | None
    ignore_index: int | None
    case_ids: tuple[str, ...] | None
    class_dim: int
    """The class axis of the predictions, which the voxel shape lacks."""
    regions: Regions | None
    nan_policy: str

    def values_outside(self, top: int) -> list[int]:
        """Find the distinct kept values outside [0, top)."""
        values = self.target.to(torch.int64)
        wrapped = 1 << 64 if self.target.dtype == torch.uint64 else 0
        outside = (values < 0) | (values >= top)
        if self.ignore_index is not None:
            outside &= values != self.ignore_index
        if self.mask is not None:
            same = self.mask.dim() == values.dim()
            outside &= self.mask if same else self.mask.unsqueeze(self.class_dim)
        found = set(values[outside].tolist())
        return sorted(value + wrapped if value < 0 else value for value in found)

    @property
    def n_groups(self) -> int:
        """Number of groups of rows: one, or one per batch item."""
        return 1 if self.case_ids is None else len(self.case_ids)

    @property
    def region_names(self) -> tuple[str, ...]:
        """Names of the regions, none where there are no regions."""
        return () if self.regions is None else self.regions.names


def read_targets(
    given: GivenTarget, predictions: Predictions, region_names: tuple[str, ...] | None = None
) -> Targets:
    """Check a target, and everything that belongs to it, against the predictions.

    Args:
        given: What the call gave.
        predictions: What the target is compared with.
        region_names: The regions that are expected. None accepts any regions.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument does not fit the predictions.
    """
    check_nan_policy(given.nan_policy)
    shape, class_dim, device = predictions.shape, predictions.class_dim, predictions.device
    voxels, multilabel = predictions.voxel_shape, predictions.multilabel
    labels = to_tensor(given.target, "target")
    if labels.dtype == torch.bool:
        labels = labels.view(torch.uint8)
    elif labels.dtype not in INTEGERS:
        raise TypeError(f"target must hold integers, got {labels.dtype}")
    if multilabel and shape[class_dim] == 1 and labels.shape == voxels:
        labels = labels.unsqueeze(class_dim)
    expected = shape if multilabel else voxels
    if labels.shape != expected:
        raise ValueError(
            f"target must have shape {tuple(expected)} for predictions of shape {tuple(shape)}, "
            f"got {tuple(labels.shape)}"
        )
    if labels.device != device:
        raise ValueError(f"target must be on {device}, got {labels.device}")
    kept = None if given.mask is None else to_tensor(given.mask, "mask")
    if kept is not None:
        if kept.dtype != torch.bool:
            raise TypeError(f"mask must be bool (True keeps a voxel), got {kept.dtype}")
        if kept.shape != voxels:
            raise ValueError(f"mask must have shape {tuple(voxels)}, got {tuple(kept.shape)}")
        if kept.device != device:
            raise ValueError(f"mask must be on {device}, got {kept.device}")
    ids = given.case_id
    return Targets(
        labels,
        kept,
        None if given.ignore_index is None else ignored_value(given.ignore_index, labels.dtype),
        None if ids is None else _case_ids(ids, shape[0] if class_dim > 0 else 1),
        class_dim,
        read_regions(given.regions, region_names, voxels, device),
        given.nan_policy,
    )


def ignored_value(ignore_index: object, dtype: torch.dtype) -> int | None:
    """Read the target value that is left out; None where targets of this type cannot hold it.

    Kernels compare 64 bits with a sign. There 2^64 - 1 would be -1, and what needs more bits would
    be cut.

    Raises:
        TypeError: It is not an integer.
    """
    value = whole_number(ignore_index, "ignore_index")
    limits = torch.iinfo(torch.int64 if dtype == torch.uint64 else dtype)
    lowest = 0 if dtype == torch.uint64 else limits.min
    return value if lowest <= value <= limits.max else None


def check_nan_policy(nan_policy: str) -> None:
    """Check that a policy is one of `NAN_POLICIES`."""
    choice(nan_policy, "nan_policy", NAN_POLICIES)


def _case_ids(case_id: CaseId | Sequence[CaseId] | Array, n_items: int) -> tuple[str, ...]:
    listed = case_id.tolist() if hasattr(case_id, "tolist") else case_id
    if isinstance(listed, str | int):
        listed = (listed,)
    if not isinstance(listed, list | tuple):
        raise TypeError(
            f"case_id must be a list of ids, one per batch item, got {type(case_id).__name__}"
        )
    if len(listed) != n_items:
        raise ValueError(f"case_id must hold one id per batch item: {n_items}, got {len(listed)}")
    for item in listed:
        if not isinstance(item, str | int):
            raise TypeError(f"case_id must hold strings or integers, got {item!r}")
    return tuple(str(item) for item in listed)
