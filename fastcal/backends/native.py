"""Tensors and structs as the plain tuples that the compiled modules take.

``csrc/python/views.h`` reads them in the same order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastcal.core.problem import (
    MAP_TABLE,
    MAPS,
    Counting,
    Finish,
    LossReading,
    Reading,
    StateLayout,
    SumsWanted,
    TemperatureProblem,
)
from fastcal.core.segment_problem import SegmentProblem

DTYPES = {
    torch.float32: 0,
    torch.float16: 1,
    torch.bfloat16: 2,
    torch.float64: 3,
    torch.uint8: 4,
    torch.int8: 5,
    torch.int16: 6,
    torch.int32: 7,
    torch.int64: 8,
    torch.uint16: 9,
    torch.uint32: 10,
    torch.uint64: 11,
    torch.bool: 12,
}
_ACTIVATIONS = {"softmax": 0, "sigmoid": 1}
_MAP_NUMBERS = {name: number for number, name in enumerate(MAPS)}

AddressView = tuple[int, int, int, tuple[int, ...]]
"""(address, dtype, class stride, strides of the voxel axes), strides in elements."""

PlainReading = tuple[bool, int, bool, bool]
"""(from_logits, activation, multilabel, logit space)."""

PlainLayout = tuple[int, bool, bool, bool]
"""(classes, entropy, square, votes)."""


def extents(shape: torch.Size) -> tuple[int, int, int]:
    """Give the extents of a volume, an image or a line as those of a volume."""
    planes, lines, length = (*(1,) * (3 - len(shape)), *shape)
    return planes, lines, length


def class_view(tensor: Tensor, class_dim: int) -> AddressView:
    """Describe a tensor with a class axis."""
    strides = tensor.stride()
    return (
        tensor.data_ptr(),
        DTYPES[tensor.dtype],
        strides[class_dim],
        strides[:class_dim] + strides[class_dim + 1 :],
    )


def voxel_view(tensor: Tensor) -> AddressView:
    """Describe a tensor of the voxel shape."""
    return (tensor.data_ptr(), DTYPES[tensor.dtype], 0, tensor.stride())


def voxel_shape(tensor: Tensor, class_dim: int) -> tuple[int, ...]:
    """Give the shape of a tensor without its class axis."""
    shape = tuple(tensor.shape)
    return shape[:class_dim] + shape[class_dim + 1 :]


def plain_reading(reading: Reading) -> PlainReading:
    """Give what kernels need to know of a reading."""
    return (
        reading.from_logits,
        _ACTIVATIONS[reading.activation],
        reading.multilabel,
        reading.space == "logit",
    )


def plain_layout(layout: StateLayout) -> PlainLayout:
    """Give the fields of a layout."""
    return (layout.num_classes, layout.entropy, layout.square, layout.votes)


def plain_finish(finish: Finish, reading: Reading, num_classes: int) -> tuple[object, ...]:
    """Give ((map number, view) pairs, normalise, counting or None)."""
    maps = tuple(
        (
            _MAP_NUMBERS[name],
            class_view(tensor, reading.class_dim)
            if MAP_TABLE[name].has_class_axis(reading.multilabel)
            else voxel_view(tensor),
        )
        for name, tensor in finish.maps.items()
    )
    counting = None
    if finish.counting is not None:
        counting = _plain_counting(finish.counting, reading, num_classes)
    return (maps, finish.normalise, counting)


def _plain_counting(counting: Counting, reading: Reading, num_classes: int) -> tuple[object, ...]:
    target, extras = counting.target, counting.extras
    regions = counting.regions
    return (
        class_view(target, reading.class_dim) if reading.multilabel else voxel_view(target),
        None if counting.mask is None else voxel_view(counting.mask),
        counting.ignore_index,
        counting.thresholds.data_ptr(),
        counting.thresholds.numel() + 1,
        counting.left_closed,
        counting.calibration != "classwise",
        counting.calibration != "top-label",
        counting.eps,
        counting.statistics.data_ptr(),
        counting.statistics.shape[0] // counting.rows,
        None if regions is None else voxel_view(regions),
        counting.n_regions,
        extras.moments,
        extras.fine_bins,
        extras.entropy_bins,
        extras.entropy_scale(num_classes, reading.multilabel),
    )


LOSS_CLASS_DIM = 2
"""The class axis of logits ``[G, B, C, *S]``."""

LossInput = tuple[tuple[int, ...], int, AddressView, AddressView, int, int | None]
"""(voxel shape, classes, logits, target, head, ignore index or None)."""


def loss_input(logits: Tensor, target: Tensor, reading: LossReading) -> LossInput:
    """Describe what a loss reads."""
    return (
        voxel_shape(logits, LOSS_CLASS_DIM),
        logits.shape[LOSS_CLASS_DIM],
        class_view(logits, LOSS_CLASS_DIM),
        voxel_view(target),
        _ACTIVATIONS[reading.head],
        reading.ignore_index,
    )


def plain_wanted(wanted: SumsWanted) -> tuple[bool, bool, bool]:
    """Give the fields of a choice of sums."""
    return (wanted.overlaps, wanted.likelihood, wanted.rest)


PlainTemperature = tuple[
    int,
    AddressView,
    AddressView,
    AddressView | None,
    int | None,
    bool,
    bool,
    bool,
    float,
    float,
]
"""Fields of a `TemperatureProblem` as the compiled modules take them."""


def plain_temperature(problem: TemperatureProblem) -> PlainTemperature:
    """Give the classes and the fields of a problem, with None for what is absent."""
    target = problem.target
    return (
        problem.values.shape[0],
        class_view(problem.values, 0),
        class_view(target, 0) if problem.multilabel else voxel_view(target),
        _voxel_view_or_none(problem.mask),
        problem.ignore_index,
        problem.from_logits,
        problem.bernoulli,
        problem.multilabel,
        problem.tiny,
        problem.rest,
    )


SEGMENT_CLASS_DIM = 1
"""The class axis of what a pass over segments reads, ``[B, C, *S]``."""


def plain_segments(problem: SegmentProblem) -> tuple[object, ...]:
    """Give the classes and the fields of a problem, with None for what is absent."""
    of_labels = _class_view_or_none if problem.multilabel else _voxel_view_or_none
    return (
        problem.mean.shape[SEGMENT_CLASS_DIM],
        class_view(problem.mean, SEGMENT_CLASS_DIM),
        of_labels(problem.label),
        _voxel_view_or_none(problem.entropy),
        _voxel_view_or_none(problem.mutual_information),
        _class_view_or_none(problem.votes),
        of_labels(problem.interior),
        problem.ignore_index,
        problem.multilabel,
        problem.binary,
        problem.clip,
    )


def _class_view_or_none(tensor: Tensor | None) -> AddressView | None:
    return None if tensor is None else class_view(tensor, SEGMENT_CLASS_DIM)


def _voxel_view_or_none(tensor: Tensor | None) -> AddressView | None:
    return None if tensor is None else voxel_view(tensor)
