"""Arguments of a launch of the second stage, and the fold that follows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastcal.core.problem import MAP_TABLE, Counting, Finish, Reading, StatisticsLayout
from fastcal.triton_kernels import policy
from fastcal.triton_kernels.fold_statistics import fold_statistics
from fastcal.triton_kernels.plan import CountViews, MapViews, bits
from fastcal.triton_kernels.walk import PointerView, Walk, class_view, plan_walk, voxel_view

_thresholds: dict[tuple[bytes, torch.dtype, torch.device], Tensor] = {}
"""Bin edges on the device. A copy in every call would wait for it, and break graph capture."""


@dataclass(frozen=True, slots=True)
class FinishLaunch:
    """Where the voxels of a finishing launch lie, and what its kernel is given."""

    walk: Walk
    block: int
    """Voxels of a block."""
    inputs: tuple[PointerView, ...]
    """Members, or the state of an accumulator."""
    maps: MapViews
    count: CountViews | None
    scalars: dict[str, Any]
    """The scalar arguments of the kernel, by name."""
    folded_into: Tensor | None
    """The statistics that the counts of the launch are added to."""
    layout: StatisticsLayout | None

    @property
    def n_blocks(self) -> int:
        """Number of blocks in the launch."""
        return self.walk.n_outer * -(-self.walk.n_inner // self.block)

    @property
    def index_64(self) -> bool:
        """Indices of voxels do not fit 32 bits."""
        return self.walk.n_inner + self.block >= 2**31

    def fold(self) -> None:
        """Add what the kernel counted to the statistics."""
        if self.count is not None and self.folded_into is not None and self.layout is not None:
            fold_statistics(self.count.words, self.folded_into, self.layout)


def finish_launch(
    inputs: list[PointerView],
    lane: int,
    shape: tuple[int, ...],
    num_classes: int,
    n_members: int,
    total_weight: float,
    reading: Reading,
    finish: Finish,
) -> FinishLaunch:
    """Plan a launch over ``inputs`` and everything that ``finish`` names.

    Args:
        inputs: Members, or the state of an accumulator.
        lane: Voxels of a lane.
        shape: The voxel shape, not empty.
        num_classes: C.
        n_members: Number of members.
        total_weight: Sum of their weights.
        reading: How members are read.
        finish: What comes out.
    """
    class_dim = reading.class_dim
    names = list(finish.maps)
    views: list[PointerView | None] = [*inputs]
    for name, tensor in finish.maps.items():
        signed = _signed(tensor)
        with_classes = MAP_TABLE[name].has_class_axis(reading.multilabel)
        views.append(class_view(signed, class_dim) if with_classes else voxel_view(signed))
    counting = finish.counting
    groups = 1
    if counting is not None:
        groups = counting.statistics.shape[0] // counting.rows
        target = _bytes(counting.target)
        views.append(class_view(target, class_dim) if reading.multilabel else voxel_view(target))
        views.append(None if counting.mask is None else voxel_view(_bytes(counting.mask)))
        views.append(None if counting.regions is None else voxel_view(counting.regions))

    walk, laid = plan_walk(shape, views, pinned=groups > 1)
    block = policy.block_voxels(lane, walk.n_inner)
    maps = MapViews(**dict(zip(names, laid[len(inputs) :], strict=False)))
    scalars = {
        "scale": bits(1.0 / total_weight),
        "n_members": n_members,
        "ignore_index": 0,
        "eps": 0,
        "n_cells": 1,
    }
    member_views = tuple(view for view in laid[: len(inputs)] if view is not None)
    if counting is None:
        return FinishLaunch(walk, block, member_views, maps, None, scalars, None, None)
    n_cells = counting.thresholds.numel() + 1
    layout = counting.layout(num_classes)
    words = _empty_words(counting, layout)
    extras = counting.extras
    count = CountViews(
        target=laid[-3],
        mask=laid[-2],
        thresholds=_on_device(counting.thresholds, words.device),
        words=words,
        row_words=counting.rows * layout.words if groups > 1 else 0,
        replica_words=counting.statistics.numel(),
        n_replicas=words.shape[0],
        regions=laid[-1],
        n_regions=counting.n_regions,
        region_words=layout.words,
        moments=layout.moments.start,
        fine_top_label=layout.fine_top_label.start,
        fine_classwise=layout.fine_classwise.start,
        entropies=layout.entropy.start,
        entropy_bins=extras.entropy_bins,
        entropy_scale=bits(extras.entropy_scale(num_classes, reading.multilabel)),
    )
    scalars |= {
        "ignore_index": counting.ignore_index or 0,
        "eps": bits(counting.eps),
        "n_cells": n_cells,
    }
    statistics = counting.statistics
    return FinishLaunch(walk, block, member_views, maps, count, scalars, statistics, layout)


def _empty_words(counting: Counting, layout: StatisticsLayout) -> Tensor:
    rows = counting.statistics.shape[0]
    size = (policy.replicas(rows * layout.words), rows, layout.words)
    return torch.zeros(size, dtype=torch.int64, device=counting.statistics.device)


def _on_device(thresholds: Tensor, device: torch.device) -> Tensor:
    key = (thresholds.numpy().tobytes(), thresholds.dtype, device)
    found = _thresholds.get(key)
    if found is None:
        # One more element, so that a single bin, which has no threshold, still has an address.
        padded = torch.cat([thresholds, thresholds.new_zeros(1)])
        found = _thresholds[key] = padded.to(device)
    return found


def _signed(tensor: Tensor) -> Tensor:
    """View unsigned labels as signed ones of the same width, where -1 has all bits set."""
    signed = {
        torch.uint8: torch.int8,
        torch.uint16: torch.int16,
        torch.uint32: torch.int32,
        torch.uint64: torch.int64,
    }
    return tensor.view(signed[tensor.dtype]) if tensor.dtype in signed else tensor


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.view(torch.uint8) if tensor.dtype == torch.bool else tensor
