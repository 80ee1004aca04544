"""Arguments and launch of the second stage: maps written, statistics counted and folded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastcal.core.problem import Counting, Finish, Reading, StatisticsLayout
from fastcal.triton_kernels import policy
from fastcal.triton_kernels.fold_statistics import fold_statistics
from fastcal.triton_kernels.plan import Count, MapViews, bits
from fastcal.triton_kernels.walk import View, Walk, class_view, plan_walk, voxel_view

_thresholds: dict[tuple[bytes, torch.dtype, torch.device], Tensor] = {}
"""Bin edges on the device. Copied once: a copy a call would wait, and break graph capture."""


@dataclass(frozen=True, slots=True)
class Launch:
    """Where the voxels of a finishing launch lie, and what its kernel is given."""

    walk: Walk
    block: int
    inputs: tuple[View, ...]
    maps: MapViews
    count: Count | None
    scalars: dict[str, Any]

    @property
    def n_blocks(self) -> int:
        return self.walk.n_outer * -(-self.walk.n_inner // self.block)

    @property
    def index_64(self) -> bool:
        return self.walk.n_inner + self.block >= 2**31


def finish_launch(
    inputs: list[View],
    lane: int,
    shape: tuple[int, ...],
    num_classes: int,
    n_members: int,
    total_weight: float,
    reading: Reading,
    finish: Finish,
    run: Callable[[Launch], None],
) -> None:
    """Plans a launch over ``inputs`` and everything ``finish`` names, runs it, folds the counts.

    Args:
        inputs: Members, or an accumulator's state.
        lane: Voxels of a lane.
        shape: Voxel shape, not empty.
        run: Launches the kernel.
    """
    class_dim = reading.class_dim
    with_classes = {"mean", "label", "confidence"} if reading.multilabel else {"mean"}
    names = list(finish.maps)
    views: list[View | None] = [*inputs]
    for name, tensor in finish.maps.items():
        signed = _signed(tensor)
        views.append(class_view(signed, class_dim) if name in with_classes else voxel_view(signed))
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
        run(Launch(walk, block, member_views, maps, None, scalars))
        return
    n_cells = counting.thresholds.numel() + 1
    layout = counting.layout(num_classes)
    words = _empty_words(counting, layout)
    extras = counting.extras
    count = Count(
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
    run(Launch(walk, block, member_views, maps, count, scalars))
    fold_statistics(words, counting.statistics, layout)


def _empty_words(counting: Counting, layout: StatisticsLayout) -> Tensor:
    rows = counting.statistics.shape[0]
    size = (policy.replicas(rows * layout.words), rows, layout.words)
    return torch.zeros(size, dtype=torch.int64, device=counting.statistics.device)


def _on_device(thresholds: Tensor, device: torch.device) -> Tensor:
    key = (thresholds.numpy().tobytes(), thresholds.dtype, device)
    found = _thresholds.get(key)
    if found is None:
        # One more element, so that no bin at all still has an address.
        padded = torch.cat([thresholds, thresholds.new_zeros(1)])
        found = _thresholds[key] = padded.to(device)
    return found


def _signed(tensor: Tensor) -> Tensor:
    """Unsigned labels as signed ones of the same width: -1 has all bits set."""
    signed = {
        torch.uint8: torch.int8,
        torch.uint16: torch.int16,
        torch.uint32: torch.int32,
        torch.uint64: torch.int64,
    }
    return tensor.view(signed[tensor.dtype]) if tensor.dtype in signed else tensor


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.view(torch.uint8) if tensor.dtype == torch.bool else tensor
