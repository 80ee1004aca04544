"""Parts of a volume whose calibration is counted apart, in the same pass as the whole volume.

One byte per voxel says in which of up to eight regions the voxel lies, with one bit per region. No
part of the members is copied, and the voxels of a block are counted again while they are in the
cache. The functions below make masks from a reference or a predicted segmentation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcal.core.arguments import real_number, whole_number
from fastcal.core.arrays import Array, to_tensor
from fastcal.core.region_bits import Regions

__all__ = ["Regions", "boundary_band", "dilated_box", "foreground", "whole_volume"]

Mask = NDArray[np.bool_]


def whole_volume(like: Array) -> Mask:
    """Make the mask of every voxel of an array ``[*S]``.

    Example:
        >>> whole_volume(np.zeros(3))
        array([ True,  True,  True])
    """
    return np.ones(tuple(like.shape), np.bool_)


def foreground(segmentation: Array) -> Mask:
    """Make the mask of every class but 0, of a reference or of a predicted segmentation.

    Args:
        segmentation: Integer labels, ``[*S]``.

    Returns:
        bool, ``[*S]``.

    Raises:
        TypeError: ``segmentation`` does not hold integers.

    Example:
        >>> foreground(np.array([0, 2, 1]))
        array([False,  True,  True])
    """
    inside: Mask = _labels(segmentation) != 0
    return inside


def dilated_box(
    segmentation: Array,
    margin_mm: float = 8.0,
    margin_slices: int = 2,
    *,
    affine: Array | None = None,
    spacing: Sequence[float] | None = None,
    slice_axis: int | None = None,
) -> Mask:
    """Make the bounding box of the foreground, grown by a distance in-plane and by slices across.

    The defaults are those of Mehrtash et al. (IEEE TMI 2020): 8 mm in-plane and 2 slices
    out-of-plane. A margin in mm covers every voxel whose centre lies within it. The mask is empty
    where there is no foreground.

    Args:
        segmentation: Integer labels, ``[*S]``.
        margin_mm: In-plane margin in mm, not negative.
        margin_slices: Number of slices on either side, not negative.
        affine: ``[4, 4]``, from voxel indices to mm, with the axes of the array in its columns;
            those of axes that the array lacks are not looked at.
        spacing: Distance between voxels in mm, one number per axis, where there is no affine.
        slice_axis: The axis across the slices. None takes an axis of extent 1, which a single
            slice has, and otherwise that of the coarsest spacing. Where that is at most 5 % coarser
            than the finest, it takes the axis that runs from head to foot by the affine, or the
            last axis without an affine. An array of two axes is a slice.

    Returns:
        bool, ``[*S]``.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument does not fit.

    Example:
        >>> labels = np.zeros((9, 9, 5), np.uint8)
        >>> labels[4, 4, 2] = 1
        >>> box = dilated_box(labels, 3.0, 1, spacing=(1.5, 1.5, 4.0))
        >>> int(box.any((1, 2)).sum()), int(box.any((0, 1)).sum())
        (5, 3)
    """
    labels = _labels(segmentation)
    steps = _spacing(labels.ndim, affine, spacing)
    margin = _not_negative(margin_mm, "margin_mm")
    slices = whole_number(margin_slices, "margin_slices")
    if not 0 <= slices <= _FARTHEST:
        raise ValueError(f"margin_slices must be from 0 to {_FARTHEST:.0f}, got {slices}")
    across = _slice_axis(labels.shape, steps, affine, slice_axis)
    inside = labels != 0
    box = np.zeros(labels.shape, np.bool_)
    if not inside.any():
        return box
    parts = []
    for axis, (extent, step) in enumerate(zip(labels.shape, steps, strict=True)):
        filled = np.flatnonzero(inside.any(tuple(a for a in range(labels.ndim) if a != axis)))
        # A little slack, because 8 mm are four voxels of 2 mm even if the header says 2.0000001.
        grow = slices if axis == across else math.floor(margin / step + 1e-4)
        parts.append(slice(max(0, filled[0] - grow), min(extent, filled[-1] + grow + 1)))
    box[tuple(parts)] = True
    return box


def boundary_band(
    segmentation: Array,
    distance_mm: float,
    *,
    affine: Array | None = None,
    spacing: Sequence[float] | None = None,
) -> Mask:
    """Make the mask of voxels within a distance of a boundary between classes, on both sides.

    The distance of a voxel is that from its centre to the nearest centre of a voxel of another
    class. The mask is empty where there is only one class.

    Args:
        segmentation: Integer labels, ``[*S]``.
        distance_mm: Distance in mm, not negative.
        affine: ``[4, 4]``, from voxel indices to mm; see `dilated_box`.
        spacing: Distance between voxels in mm, one number per axis, where there is no affine.

    Returns:
        bool, ``[*S]``.

    Raises:
        ImportError: SciPy is not installed (the ``report`` extra has it).
        TypeError: An argument has the wrong type.
        ValueError: An argument does not fit.

    Example:
        >>> boundary_band(np.array([0, 0, 0, 1, 1, 1]), 2.0, spacing=[1.0])
        array([False,  True,  True,  True,  True, False])
    """
    from scipy import ndimage

    labels = _labels(segmentation)
    steps = _spacing(labels.ndim, affine, spacing)
    distance = _not_negative(distance_mm, "distance_mm")
    band = np.zeros(labels.shape, np.bool_)
    classes = np.unique(labels)
    if len(classes) < 2:
        return band
    for k in classes:
        inside = labels == k
        # Nothing outside the box of a class and its margin can be nearer than the distance.
        part = _around(inside, distance, steps)
        if inside[part].all():
            continue
        nearest = ndimage.distance_transform_edt(inside[part], sampling=steps)
        band[part] |= inside[part] & (nearest <= distance * (1 + 1e-6))
    return band


def _around(inside: Mask, distance: float, steps: Sequence[float]) -> tuple[slice, ...]:
    parts = []
    for axis, step in enumerate(steps):
        filled = np.flatnonzero(inside.any(tuple(a for a in range(inside.ndim) if a != axis)))
        grow = math.ceil(distance / step) + 1
        parts.append(slice(max(0, int(filled[0]) - grow), int(filled[-1]) + grow + 1))
    return tuple(parts)


def _labels(segmentation: Array) -> NDArray[Any]:
    labels = to_tensor(segmentation, "segmentation").cpu().numpy()
    if labels.dtype.kind not in "biu":
        raise TypeError(f"segmentation must hold integers, got {labels.dtype}")
    return labels


def _spacing(
    n_axes: int, affine: Array | None, spacing: Sequence[float] | None
) -> tuple[float, ...]:
    if (affine is None) == (spacing is None):
        found = "neither" if affine is None else "both"
        raise ValueError(f"affine or spacing must be given, but not both, got {found}")
    if affine is not None:
        matrix = np.asarray(affine, np.float64)
        if matrix.shape != (4, 4):
            raise ValueError(f"affine must have shape (4, 4), got {matrix.shape}")
        steps = tuple(np.linalg.norm(matrix[:3, : min(n_axes, 3)], axis=0).tolist())
    else:
        assert spacing is not None
        steps = tuple(real_number(step, "spacing") for step in spacing)
    if len(steps) != n_axes:
        raise ValueError(f"spacing must hold one number per axis: {n_axes}, got {len(steps)}")
    if not all(0 < step < math.inf for step in steps):
        raise ValueError(f"spacing must be positive, got {steps}")
    return steps


def _slice_axis(
    shape: tuple[int, ...],
    steps: tuple[float, ...],
    affine: Array | None,
    slice_axis: int | None,
) -> int:
    n_axes = len(shape)
    if slice_axis is not None:
        axis = whole_number(slice_axis, "slice_axis")
        if not -n_axes <= axis < n_axes:
            raise ValueError(f"slice_axis must be in [{-n_axes}, {n_axes}), got {axis}")
        return axis % n_axes
    if n_axes < 3:
        return -1
    # Within a single slice, the axis across it is that of extent 1, whatever the spacings are.
    axes = [axis for axis in range(n_axes) if shape[axis] == 1] or list(range(n_axes))
    coarsest = max(axes, key=lambda axis: steps[axis])
    if len(axes) < n_axes:
        return coarsest
    if steps[coarsest] > 1.05 * min(steps):
        return coarsest
    if affine is None:
        return n_axes - 1
    return int(np.abs(np.asarray(affine, np.float64)[2, :3]).argmax())


_FARTHEST = 1e6
"""Of a margin: a kilometre, or as many slices."""


def _not_negative(value: float, name: str) -> float:
    number = real_number(value, name)
    if not 0 <= number <= _FARTHEST:
        raise ValueError(
            f"{name} must be a distance in mm, not negative and at most {_FARTHEST:.0f}, got "
            f"{number:g}"
        )
    return number
