"""Rotation, scaling and elastic deformation of a batch in one resampling, and mirroring."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fastcal.core.arrays import Floats
from fastcal.data.resample import resample
from fastcal.train.augmentation import AugmentationConfig

# nnU-Net's rules: a patch whose longest extent is more than FLAT times its shortest is rotated
# only in its plane, and a slice more oblong than OBLONG by at most 15 degrees instead of 180.
FLAT = 3.0
OBLONG = 1.5


@dataclass(frozen=True, slots=True)
class Warp:
    """Where the warped items take their voxels from, measured from the item's centre."""

    items: list[int]
    matrices: Floats
    """``[K, d, d]``: source offset = matrix @ (offset + displacement), in voxels."""
    displacements: NDArray[np.float32] | None
    """``[K, d, *points]`` in voxels, at points spread evenly over the item; None without elastic
    deformation."""

    def source_extents(self, patch: tuple[int, ...]) -> tuple[int, ...]:
        """Return extents about the same centre that hold every voxel the items are made of."""
        half = np.array(patch, np.float64) / 2
        reach = half
        for number, matrix in enumerate(self.matrices):
            moved = half
            if self.displacements is not None:
                moved = half + np.abs(self.displacements[number]).reshape(len(half), -1).max(1)
            reach = np.maximum(reach, np.abs(matrix) @ moved)
        # An even number of voxels more than the patch, so that both have the same centre.
        more = np.ceil(reach - half).astype(int)
        return tuple(extent + 2 * int(m) for extent, m in zip(patch, more, strict=True))


def draw_warp(
    config: AugmentationConfig, random: np.random.Generator, batch: int, patch: tuple[int, ...]
) -> Warp:
    """Draw the warps of a batch of patches.

    Args:
        config: Which transforms may be applied.
        random: Source of the parameters.
        batch: Items of the batch.
        patch: Extents of a patch.
    """
    dims = len(patch)
    turned = _turned_axes(patch)
    strikes = random.random((batch, 3)) < (config.rotation, config.scaling, config.elastic)
    angles = random.uniform(-1.0, 1.0, (batch, 3)) * _largest_angle(config, patch)
    zooms = random.uniform(*config.scaling_range, batch)
    items = np.flatnonzero(strikes.any(axis=1)).tolist()
    rotates, scales, _ = strikes[items].T
    matrices = _rotations(dims, turned, angles[items] * rotates[:, None])
    matrices[:, :, turned] /= np.where(scales, zooms[items], 1.0)[:, None, None]
    if not strikes[items, 2].any():
        return Warp(items, matrices, None)
    points = [max(2, math.ceil(extent / config.elastic_spacing)) for extent in patch]
    spacings = np.array(patch) / np.array(points)
    deviations = random.uniform(*config.elastic_deformation, len(items)) * strikes[items, 2]
    fields = random.standard_normal((len(items), dims, *points))
    fields *= deviations.reshape(-1, *[1] * (dims + 1)) * spacings.reshape(-1, *[1] * dims)
    fields[:, [axis for axis in range(dims) if axis not in turned]] = 0.0
    return Warp(items, matrices, fields.astype(np.float32))


def warp(
    images: Tensor, labels: Tensor, drawn: Warp, patch: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Cut the patch about the centre of each item, and warp the items that were drawn.

    Images are sampled linearly and labels by nearest neighbour. Outside of an item both are 0.

    Args:
        images: ``[B, Ch, *Q]``.
        labels: ``[B, *Q]``.
        drawn: The warps.
        patch: Extents ``P`` of a patch.

    Returns:
        Images ``[B, Ch, *P]`` and labels ``[B, *P]``, which share no memory with the arguments.
    """
    centre: tuple[Any, ...] = tuple(
        slice((extent - wanted) // 2, (extent - wanted) // 2 + wanted)
        for extent, wanted in zip(labels.shape[1:], patch, strict=True)
    )
    centre = (..., *centre)
    cut_images, cut_labels = (
        part[centre].clone(memory_format=torch.contiguous_format) for part in (images, labels)
    )
    if not drawn.items:
        return cut_images, cut_labels
    index = torch.tensor(drawn.items).to(images.device, non_blocking=True)
    grid = _grid(drawn, patch, tuple(labels.shape[1:]), images.device)
    sources = images[index], labels[index].unsqueeze(1).float()
    moved = functional.grid_sample(sources[0], grid, align_corners=False)
    moved_labels = functional.grid_sample(sources[1], grid, mode="nearest", align_corners=False)
    cut_images.index_copy_(0, index, moved)
    cut_labels.index_copy_(0, index, moved_labels[:, 0].to(labels.dtype))
    return cut_images, cut_labels


def mirror(images: Tensor, labels: Tensor, mirrored: NDArray[np.bool_]) -> None:
    """Flip in place the axes of each item for which ``mirrored`` ``[B, d]`` is True."""
    for axis in range(mirrored.shape[1]):
        items = torch.from_numpy(np.flatnonzero(mirrored[:, axis]))
        if len(items):
            index = items.to(images.device, non_blocking=True)
            labels.index_copy_(0, index, labels[index].flip(1 + axis))
            images.index_copy_(0, index, images[index].flip(2 + axis))


def _grid(
    drawn: Warp, patch: tuple[int, ...], source: tuple[int, ...], device: torch.device
) -> Tensor:
    """Return coordinates ``[K, *P, d]`` as `grid_sample` expects them, the last axis first."""
    offsets = torch.stack(
        torch.meshgrid(
            *(torch.arange(n, device=device) - (n - 1) / 2 for n in patch), indexing="ij"
        )
    )[None]
    if drawn.displacements is not None:
        field = torch.from_numpy(drawn.displacements).to(device, non_blocking=True)
        offsets = offsets + resample(field, patch, interpolation="cubic")
    # From voxels to the units of grid_sample, in which the source is 2 wide.
    scaled = drawn.matrices * (2.0 / np.array(source))[:, None]
    matrices = torch.from_numpy(scaled).float().to(device, non_blocking=True)
    offsets = offsets.expand(len(matrices), *offsets.shape[1:])
    return torch.einsum("kij,kj...->k...i", matrices, offsets).flip(-1)


def _turned_axes(patch: tuple[int, ...]) -> list[int]:
    """Return the axes that rotate: all of them, or those of the plane where a volume is flat."""
    if len(patch) == 3 and max(patch) > FLAT * min(patch):
        return [axis for axis in range(3) if axis != patch.index(min(patch))]
    return list(range(len(patch)))


def _largest_angle(config: AugmentationConfig, patch: tuple[int, ...]) -> float:
    """Return the largest angle in radians, by nnU-Net's rule where the settings give none."""
    degrees = config.rotation_degrees
    if degrees is None:
        plane = [patch[axis] for axis in _turned_axes(patch)]
        if len(plane) == 3:
            degrees = 30.0
        else:
            degrees = 15.0 if max(plane) > OBLONG * min(plane) and len(patch) == 2 else 180.0
    return math.radians(degrees)


def _rotations(dims: int, turned: list[int], angles: Floats) -> Floats:
    """Return matrices ``[K, d, d]`` of a rotation in each plane of the turned axes in turn."""
    matrices = np.tile(np.eye(dims), (len(angles), 1, 1))
    planes = [(i, j) for i in turned for j in turned if i < j]
    for (first, second), angle in zip(planes, angles.T, strict=False):
        turns = np.tile(np.eye(dims), (len(angles), 1, 1))
        turns[:, first, first] = turns[:, second, second] = np.cos(angle)
        turns[:, second, first] = np.sin(angle)
        turns[:, first, second] = -turns[:, second, first]
        matrices = matrices @ turns
    return matrices
