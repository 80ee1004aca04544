# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
"""The order in which a launch visits voxels, and the addresses that follow from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from fastcal.triton_kernels import policy


class PointerView(NamedTuple):
    """A tensor as kernels see it, with strides in elements."""

    pointer: Any
    class_stride: Any
    """Between classes, or between planes of a state; 0 where there are none."""
    strides: Any
    """Stride of the outer axis, then those of the inner axes."""


class Lanes(NamedTuple):
    """The voxels of a block, one per lane, in a kernel."""

    i_outer: Any
    """Index along the outer axis, int64."""
    o_voxels: Any
    """Index of each lane among the voxels of the inner axes."""
    m_voxels: Any
    """Which lanes have a voxel."""
    extents: Any
    """Extents of the inner axes."""


class Walk(NamedTuple):
    """How voxels are dealt to programs."""

    n_outer: int
    """Extent of the outer axis. A program stays within one item of it."""
    extents: tuple[int, ...]
    """Extents of the inner axes."""

    @property
    def n_inner(self) -> int:
        """Number of voxels in an item of the outer axis."""
        return math.prod(self.extents)


def class_view(tensor: Tensor, class_dim: int) -> PointerView:
    """View a tensor with a class axis, not yet laid along a walk."""
    strides = tensor.stride()
    return PointerView(tensor, strides[class_dim], strides[:class_dim] + strides[class_dim + 1 :])


def voxel_view(tensor: Tensor) -> PointerView:
    """View a tensor of the voxel shape, not yet laid along a walk."""
    return PointerView(tensor, 0, tensor.stride())


def voxel_shape(tensor: Tensor, class_dim: int) -> tuple[int, ...]:
    """Give the shape of a tensor without its class axis."""
    return (*tensor.shape[:class_dim], *tensor.shape[class_dim + 1 :])


def plan_walk(
    shape: Sequence[int], views: Sequence[PointerView | None], *, pinned: bool
) -> tuple[Walk, list[PointerView | None]]:
    """Sort the voxel axes by the strides of the first view, and merge axes where all views allow.

    Args:
        shape: The voxel shape.
        views: Every tensor of the launch. None stays None.
        pinned: The first axis becomes the outer axis, whatever its extent, because each of its
            items has a row of statistics.
    """
    present = [view for view in views if view is not None]
    first = int(pinned)
    order = list(range(first)) + sorted(
        range(first, len(shape)), key=lambda axis: -present[0].strides[axis]
    )
    extents: list[int] = []
    strides: list[list[int]] = [[] for _ in present]
    for place, axis in enumerate(order):
        extent = shape[axis]
        if extent == 1 and place >= first:
            continue
        steps = [view.strides[axis] for view in present]
        if len(extents) > first and all(
            walked[-1] == step * extent for walked, step in zip(strides, steps, strict=True)
        ):
            extents[-1] *= extent
            for walked, step in zip(strides, steps, strict=True):
                walked[-1] = step
        else:
            extents.append(extent)
            for walked, step in zip(strides, steps, strict=True):
                walked.append(step)

    peel = pinned or (len(extents) > 1 and math.prod(extents[1:]) >= policy.MIN_INNER)
    if not peel:
        extents.insert(0, 1)
        for walked in strides:
            walked.insert(0, 0)
    if len(extents) == 1:
        extents.append(1)
        for walked in strides:
            walked.append(0)
    laid = iter(
        PointerView(view.pointer, view.class_stride, tuple(walked))
        for view, walked in zip(present, strides, strict=True)
    )
    walk = Walk(extents[0], tuple(extents[1:]))
    return walk, [None if view is None else next(laid) for view in views]


@triton.jit
def block_lanes(i_block, extents, n_inner, INDEX_64: tl.constexpr, BLOCK: tl.constexpr):
    """Find the voxels of a block.

    Args:
        i_block: Index among the blocks of all outer items.
        extents: Extents of the inner axes.
        n_inner: Number of voxels in an outer item.
        INDEX_64: The inner indices do not fit 32 bits.
        BLOCK: Number of lanes.
    """
    blocks = tl.cdiv(n_inner, BLOCK)
    i_outer = i_block // blocks
    i_inner = i_block % blocks
    if INDEX_64:
        i_inner = tl.cast(i_inner, tl.int64)
    o_voxels = i_inner * BLOCK + tl.arange(0, BLOCK)
    return Lanes(tl.cast(i_outer, tl.int64), o_voxels, o_voxels < n_inner, extents)


@triton.jit
def voxel_offsets(lanes, strides):
    """Compute the element offsets of voxels in a view, 64 bits wide.

    Args:
        lanes: The voxels.
        strides: Stride of the outer axis, then those of the inner axes.
    """
    offsets = lanes.i_outer * tl.cast(strides[0], tl.int64)
    rest = lanes.o_voxels
    extents = lanes.extents
    for axis in tl.static_range(len(extents) - 1, 0, -1):
        offsets += (rest % extents[axis]).to(tl.int64) * tl.cast(strides[axis + 1], tl.int64)
        rest = rest // extents[axis]
    return offsets + rest.to(tl.int64) * tl.cast(strides[1], tl.int64)


@triton.jit
def class_pointers(view, o_view, k):
    """Compute the addresses of class (or plane) ``k`` of the voxels at ``o_view``."""
    return view.pointer + o_view + tl.cast(k, tl.int64) * tl.cast(view.class_stride, tl.int64)
