# Kernels are typed by Triton when they are compiled.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
"""What the passes of the losses share: an activated tile ``[classes, voxels]`` of one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcal.core.problem import LossReading
from fastcal.triton_kernels import policy
from fastcal.triton_kernels.walk import PointerView, block_lanes, plan_walk, voxel_offsets

CLASS_DIM = 2
TILE_ELEMENTS = 2048
MIN_VOXELS = 16
MAX_VOXELS = 1024


@dataclass(frozen=True, slots=True)
class LossPlan:
    """Compile-time switches; see `fastcal.core.problem` for their meaning."""

    real: Any
    """The accumulation type."""
    softmax: bool
    ignore: bool
    index_64: bool
    classes: int
    rows: int
    """Rows of a tile, a power of two: the classes, and rows of padding."""
    voxels: int
    """Voxels of a tile."""
    first_label: int
    """Label of class 0, which is 1 where it is the only class."""
    labels: int
    """Number of labels."""


class Images(NamedTuple):
    """A tensor of images: the view of an image, and the strides between groups and images."""

    view: Any
    group_stride: Any
    image_stride: Any


@dataclass(frozen=True, slots=True)
class LossLaunch:
    """The shape of a launch, in which each program goes over blocks of one image."""

    plan: LossPlan
    images: list[Images]
    extents: tuple[int, ...]
    n_inner: int
    n_blocks: int
    n_images: int
    """Images of a group."""
    grid: tuple[int, int]
    ignore_index: int

    @property
    def warps(self) -> int:
        """Warps of a program."""
        large = self.plan.rows * self.plan.voxels > 2 * TILE_ELEMENTS
        return 2 * policy.NUM_WARPS if large else policy.NUM_WARPS

    @property
    def walk(self) -> tuple[Any, ...]:
        """The arguments of a kernel after the tensors."""
        return (self.extents, self.n_inner, self.n_blocks, self.n_images, self.ignore_index)


def loss_launch(
    logits: Tensor, target: Tensor, reading: LossReading, others: Sequence[Tensor] = ()
) -> LossLaunch:
    """Plan a launch over logits ``[G, B, C, *S]``, their targets, and tensors like the logits."""
    classes = logits.shape[CLASS_DIM]
    shape = logits.shape[CLASS_DIM + 1 :]
    tensors = (logits, *others)
    views: list[PointerView | None] = [
        PointerView(it, it.stride(CLASS_DIM), it.stride()[CLASS_DIM + 1 :]) for it in tensors
    ]
    views.insert(1, PointerView(target, 0, target.stride()[CLASS_DIM:]))
    walk, laid = plan_walk(shape, views, pinned=False)
    rows = triton.next_power_of_2(classes)
    voxels = max(MIN_VOXELS, min(MAX_VOXELS, TILE_ELEMENTS // rows))
    n_blocks = walk.n_outer * triton.cdiv(walk.n_inner, voxels)
    n_items = logits.shape[0] * logits.shape[1]
    programs = min(n_blocks, max(1, policy.resident_programs(logits.device) // max(n_items, 1)))
    wide = logits.dtype == torch.float64
    plan = LossPlan(
        real=tl.float64 if wide else tl.float32,
        softmax=reading.head == "softmax",
        ignore=reading.ignore_index is not None,
        index_64=walk.n_inner > 2**31 - 2 * voxels,
        classes=classes,
        rows=rows,
        voxels=voxels,
        first_label=int(classes == 1),
        labels=max(classes, 2),
    )
    placed = (logits, target, *others)
    images = [
        Images(view, it.stride(0), it.stride(1)) for view, it in zip(laid, placed, strict=True)
    ]
    return LossLaunch(
        plan,
        images,
        walk.extents,
        walk.n_inner,
        n_blocks,
        logits.shape[1],
        (programs, n_items),
        reading.ignore_index or 0,
    )


@triton.jit
def voxel_addresses(images, lanes, n_images):
    """Compute the addresses of voxels, of class 0, of the image that this program works on."""
    i_item = tl.cast(tl.program_id(1), tl.int64)
    start = (i_item // n_images) * tl.cast(images.group_stride, tl.int64)
    start += (i_item % n_images) * tl.cast(images.image_stride, tl.int64)
    return images.view.pointer + (start + voxel_offsets(lanes, images.view.strides))


@triton.jit
def class_offsets(images, P: tl.constexpr):
    """Compute the element offsets ``[rows, 1]`` of the classes."""
    o_classes = tl.arange(0, P.rows).to(tl.int64)
    return (o_classes * tl.cast(images.view.class_stride, tl.int64))[:, None]


@triton.jit
def load_tile(logits, target, i_block, extents, n_inner, n_images, ignore_index, P: tl.constexpr):
    """Load logits ``[rows, voxels]``, where y is 1, which voxels count, and how many are bad.

    Rows beyond the classes hold -inf for a softmax, else 0. Voxels beyond the image hold 0.
    """
    lanes = block_lanes(i_block, extents, n_inner, P.index_64, P.voxels)
    m_voxels = lanes.m_voxels
    o_classes = tl.arange(0, P.rows)
    m_classes = (o_classes < P.classes)[:, None]
    addresses = voxel_addresses(logits, lanes, n_images)
    z = tl.load(
        addresses[None, :] + class_offsets(logits, P),
        mask=m_classes & m_voxels[None, :],
        other=0.0,
    ).to(P.real)
    if P.softmax:
        z = tl.where(m_classes, z, float("-inf"))
    addresses = voxel_addresses(target, lanes, n_images)
    labels = tl.load(addresses, mask=m_voxels, other=0).to(tl.int64)
    kept = m_voxels
    if P.ignore:
        kept = kept & (labels != ignore_index)
    known = kept & (labels >= 0) & (labels < P.labels)
    n_wrong = tl.sum(kept.to(tl.int32) - known.to(tl.int32), 0)
    # As integers, because spreading booleans over the classes takes local memory.
    labels = tl.where(known, labels, -1).to(tl.int32)[None, :]
    hot = labels == (o_classes + P.first_label)[:, None]
    return z, hot, labels >= 0, n_wrong


@triton.jit
def store_tile(images, values, i_block, extents, n_inner, n_images, P: tl.constexpr):
    """Write ``[rows, voxels]`` in the type of the tensor."""
    lanes = block_lanes(i_block, extents, n_inner, P.index_64, P.voxels)
    m_classes = (tl.arange(0, P.rows) < P.classes)[:, None]
    addresses = voxel_addresses(images, lanes, n_images)
    tl.store(
        addresses[None, :] + class_offsets(images, P),
        values.to(images.view.pointer.dtype.element_ty),
        mask=m_classes & lanes.m_voxels[None, :],
    )


@triton.jit
def softmax(z):
    """Compute p and -ln p."""
    d = z - tl.max(z, 0)[None, :]
    e = tl.exp(d)
    total = tl.sum(e, 0)[None, :]
    return e / total, tl.log(total) - d


@triton.jit
def sigmoid_parts(z):
    """Compute p, 1 - p, -ln p and -ln (1 - p), none of which loses digits."""
    e = tl.exp(-tl.abs(z))
    tail = tl.log(1 + e)
    larger = 1 / (1 + e)
    smaller = e / (1 + e)
    p = tl.where(z < 0, smaller, larger)
    q = tl.where(z < 0, larger, smaller)
    return p, q, tl.where(z < 0, -z, 0.0) + tail, tl.where(z > 0, z, 0.0) + tail


@triton.jit
def probabilities(z, P: tl.constexpr):
    """Activate the logits of a tile."""
    if P.softmax:
        p, _ = softmax(z)
    else:
        p, _, _, _ = sigmoid_parts(z)
    return p


@triton.jit
def to_logits(slope, p, P: tl.constexpr):
    """Compute the derivative by the logits from that by the probabilities."""
    if P.softmax:
        return p * (slope - tl.sum(p * slope, 0)[None, :])
    else:
        return p * (1 - p) * slope
