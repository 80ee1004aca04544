"""What the statistics are counted against: targets, mask, regions and case ids, checked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from fastcal.core.arguments import whole_number
from fastcal.core.arrays import INTEGERS, Array, to_tensor
from fastcal.core.region_bits import Regions, read_regions

CaseId: TypeAlias = str | int

NAN_POLICIES = ("raise", "omit")


@dataclass(frozen=True, slots=True)
class Targets:
    """Tensors as the ops take them, and the case of each row of the statistics."""

    target: Tensor
    mask: Tensor | None
    ignore_index: int | None
    case_ids: tuple[str, ...] | None
    class_dim: int
    """Where the voxel shape lacks the class axis."""
    regions: Regions | None = None

    def values_outside(self, top: int) -> list[int]:
        """The distinct kept values outside [0, top)."""
        values = self.target.to(torch.int64)
        outside = (values < 0) | (values >= top)
        if self.ignore_index is not None:
            outside &= values != self.ignore_index
        if self.mask is not None:
            same = self.mask.dim() == values.dim()
            outside &= self.mask if same else self.mask.unsqueeze(self.class_dim)
        return sorted(set(values[outside].tolist()))

    @property
    def n_groups(self) -> int:
        return 1 if self.case_ids is None else len(self.case_ids)

    @property
    def region_names(self) -> tuple[str, ...]:
        return () if self.regions is None else self.regions.names


def read_targets(
    target: Array,
    mask: Array | None,
    ignore_index: int | None,
    case_id: CaseId | Sequence[CaseId] | Array | None,
    shape: torch.Size,
    device: torch.device,
    class_dim: int,
    multilabel: bool,
    regions: Regions | Mapping[str, Array] | None = None,
    region_names: tuple[str, ...] | None = None,
) -> Targets:
    """Check everything that goes with a target.

    Args:
        target: Integers, ``[B, *S]``; ``[B, C, *S]`` when multilabel (or ``[B, *S]`` for one
            class). bool counts as 0 and 1.
        mask: bool ``[B, *S]``, True keeps.
        ignore_index: The target value that is left out.
        case_id: One id a batch item.
        shape: Of the predictions.
        device: Of the predictions.
        class_dim: Their class axis, not negative.
        multilabel: Every class has a target of its own.
        regions: Masks by name, packed or not.
        region_names: Those expected; None for whatever comes.

    Raises:
        TypeError, ValueError: An argument does not fit the predictions.
    """
    voxels = torch.Size((*shape[:class_dim], *shape[class_dim + 1 :]))
    labels = to_tensor(target, "target")
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
    kept = None if mask is None else to_tensor(mask, "mask")
    if kept is not None:
        if kept.dtype != torch.bool:
            raise TypeError(f"mask must be bool (True keeps), got {kept.dtype}")
        if kept.shape != voxels:
            raise ValueError(f"mask must have shape {tuple(voxels)}, got {tuple(kept.shape)}")
        if kept.device != device:
            raise ValueError(f"mask must be on {device}, got {kept.device}")
    ids = None if case_id is None else _case_ids(case_id, shape[0] if class_dim > 0 else 1)
    return Targets(
        labels,
        kept,
        None if ignore_index is None else whole_number(ignore_index, "ignore_index"),
        ids,
        class_dim,
        read_regions(regions, region_names, voxels, device),
    )


def check_nan_policy(nan_policy: str) -> None:
    if nan_policy not in NAN_POLICIES:
        raise ValueError(f"nan_policy must be one of {NAN_POLICIES}, got {nan_policy!r}")


def _case_ids(case_id: CaseId | Sequence[CaseId] | Array, n_items: int) -> tuple[str, ...]:
    listed = case_id.tolist() if hasattr(case_id, "tolist") else case_id
    if isinstance(listed, str | int):
        listed = (listed,)
    if not isinstance(listed, list | tuple):
        raise TypeError(f"case_id must be ids, one a batch item, got {type(case_id).__name__}")
    if len(listed) != n_items:
        raise ValueError(f"case_id must have one id a batch item: {n_items}, got {len(listed)}")
    for item in listed:
        if not isinstance(item, str | int):
            raise TypeError(f"case_id must hold strings or integers, got {item!r}")
    return tuple(str(item) for item in listed)
