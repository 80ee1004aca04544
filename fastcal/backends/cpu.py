"""The compiled CPU backend: it hands over addresses and the number of threads, nothing else.

`fastcal.backends.Backend` documents the functions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastcal import _cpu
from fastcal.backends import native
from fastcal.core.arrays import accumulation_type
from fastcal.core.bins import thresholds
from fastcal.core.problem import (
    Finish,
    GapBins,
    LossReading,
    Reading,
    StateLayout,
    SumsWanted,
    TemperatureProblem,
)
from fastcal.core.segment_problem import SegmentProblem


def ensemble_statistics(
    members: list[Tensor],
    weights: list[float],
    temperatures: list[float],
    reading: Reading,
    finish: Finish,
) -> None:
    """Compute maps and statistics of the members in one pass."""
    class_dim = reading.class_dim
    num_classes = members[0].shape[class_dim]
    _cpu.ensemble_statistics(
        native.voxel_shape(members[0], class_dim),
        num_classes,
        tuple(native.class_view(member, class_dim) for member in members),
        weights,
        temperatures,
        native.plain_reading(reading),
        native.plain_finish(finish, reading, num_classes),
        torch.get_num_threads(),
    )


def ensemble_accumulate(
    member: Tensor,
    weight: float,
    temperature: float,
    reading: Reading,
    layout: StateLayout,
    state: Tensor,
) -> None:
    """Add one member to ``state``."""
    _cpu.ensemble_accumulate(
        native.voxel_shape(member, reading.class_dim),
        native.class_view(member, reading.class_dim),
        weight,
        temperature,
        native.plain_reading(reading),
        native.plain_layout(layout),
        native.class_view(state, 0),
        torch.get_num_threads(),
    )


def ensemble_finalize(
    state: Tensor,
    n_members: int,
    total_weight: float,
    reading: Reading,
    layout: StateLayout,
    finish: Finish,
) -> None:
    """Compute maps and statistics of ``state``, which stays as it is."""
    _cpu.ensemble_finalize(
        native.voxel_shape(state, 0),
        native.class_view(state, 0),
        native.plain_layout(layout),
        n_members,
        total_weight,
        native.plain_reading(reading),
        native.plain_finish(finish, reading, layout.num_classes),
        torch.get_num_threads(),
    )


def temperature_sums(
    problem: TemperatureProblem,
    inverse_temperatures: list[float],
    per_class: bool,
    counts: Tensor,
    sums: Tensor,
) -> None:
    """Add a volume to ``counts`` and ``sums``."""
    _cpu.temperature_sums(
        native.voxel_shape(problem.values, 0),
        native.plain_temperature(problem),
        inverse_temperatures,
        per_class,
        counts.data_ptr(),
        sums.data_ptr(),
        torch.get_num_threads(),
    )


def class_sums(
    logits: Tensor, target: Tensor, reading: LossReading, wanted: SumsWanted, sums: Tensor
) -> None:
    """Write the sums of `fastcal.core.problem.SUM_ROWS`."""
    _cpu.class_sums(
        native.loss_input(logits, target, reading),
        native.plain_wanted(wanted),
        sums.data_ptr(),
        torch.get_num_threads(),
    )


def class_gradient(
    logits: Tensor,
    target: Tensor,
    reading: LossReading,
    wanted: SumsWanted,
    factors: Tensor,
    gradient: Tensor,
) -> None:
    """Write the gradient by the logits, given the derivative by each sum."""
    _cpu.class_gradient(
        native.loss_input(logits, target, reading),
        native.plain_wanted(wanted),
        factors.data_ptr(),
        native.class_view(gradient, native.LOSS_CLASS_DIM),
        torch.get_num_threads(),
    )


def bin_gaps(
    logits: Tensor, target: Tensor, reading: LossReading, bins: GapBins, sums: Tensor
) -> None:
    """Write the gaps and amounts of each bin, and the voxels of each class."""
    edges = thresholds(bins.count, accumulation_type(logits.dtype))
    _cpu.bin_gaps(
        native.loss_input(logits, target, reading),
        bins.count,
        bins.soft,
        edges.data_ptr(),
        sums.data_ptr(),
        torch.get_num_threads(),
    )


def bin_gradient(
    logits: Tensor,
    target: Tensor,
    reading: LossReading,
    bins: GapBins,
    factors: Tensor,
    gradient: Tensor,
) -> None:
    """Write the gradient by the logits, given the derivative by each sum."""
    edges = thresholds(bins.count, accumulation_type(logits.dtype))
    _cpu.bin_gradient(
        native.loss_input(logits, target, reading),
        bins.count,
        bins.soft,
        edges.data_ptr(),
        factors.data_ptr(),
        native.class_view(gradient, native.LOSS_CLASS_DIM),
        torch.get_num_threads(),
    )


def segment_sums(problem: SegmentProblem, sums: Tensor) -> None:
    """Add the sums of every batch item and class."""
    _cpu.segment_sums(
        native.voxel_shape(problem.mean, native.SEGMENT_CLASS_DIM),
        native.plain_segments(problem),
        sums.data_ptr(),
        torch.get_num_threads(),
    )


def interior(labels: Tensor, limit: int, reach: int, inside: Tensor) -> None:
    """Write whether the squared distance to the next other label is above ``limit``."""
    _cpu.interior(
        labels.data_ptr(),
        native.extents(labels.shape),
        limit,
        reach,
        inside.data_ptr(),
        torch.get_num_threads(),
    )


def patch_maxima(values: Tensor, labels: Tensor, size: int, sums: Tensor, largest: Tensor) -> None:
    """Write the largest sum over a patch around the voxels of each class."""
    run = _cpu.patch_maxima_f64 if values.dtype == torch.float64 else _cpu.patch_maxima_f32
    run(
        values.data_ptr(),
        labels.data_ptr(),
        native.extents(values.shape),
        len(largest),
        size,
        labels.dim() > values.dim(),
        sums.data_ptr(),
        largest.data_ptr(),
        torch.get_num_threads(),
    )


def component_counts(labels: Tensor, smallest: int, counts: Tensor) -> None:
    """Write the numbers of components of at least ``smallest`` voxels."""
    _cpu.count_components(
        labels.data_ptr(), native.extents(labels.shape), len(counts), smallest, counts.data_ptr()
    )


def member_overlaps(labels: list[Tensor], found: Tensor) -> None:
    """Add the voxels that each pair of members gives to each class."""
    _cpu.overlaps(
        [label.data_ptr() for label in labels],
        labels[0].numel(),
        len(found),
        found.data_ptr(),
        torch.get_num_threads(),
    )
