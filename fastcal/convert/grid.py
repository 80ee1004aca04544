"""Grids in the world: labels brought to that of their image, cosines that every reader takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcal.core.arrays import Floats
from fastcal.data.nifti import Geometry

_ORTHONORMAL = 1e-5
"""Largest deviation of cosines' products that ITK takes for rounding; it refuses more."""


def resample_nearest(labels: NDArray[Any], place: Geometry, grid: Geometry) -> NDArray[Any]:
    """Give each voxel of a grid the label at its centre.

    Args:
        labels: ``[X, Y, Z]``.
        place: Where they lie.
        grid: Where they should lie, of another shape or affine.

    Returns:
        Labels ``[X', Y', Z']`` of the grid; 0 outside of ``labels``.
    """
    step = np.linalg.inv(place.affine) @ grid.affine
    x, y, z = grid.shape[:3]
    found = np.zeros((x, y, z), labels.dtype)
    plane = np.stack(np.meshgrid(np.arange(x), np.arange(y), indexing="ij"))
    bounds = np.array(labels.shape)[:, None, None]
    for depth in range(z):  # a plane at a time, so that memory does not grow with the volume
        centres = np.tensordot(step[:3, :2], plane, 1)
        centres += (step[:3, 2] * depth + step[:3, 3])[:, None, None]
        index = np.floor(centres + 0.5).astype(np.int64)
        inside = ((index >= 0) & (index < bounds)).all(axis=0)
        found[inside, depth] = labels[tuple(index[:, inside])]
    return found


def orthonormal(affine: Floats, shape: tuple[int, ...]) -> Floats:
    """Return the affine with the closest orthonormal cosines, which keeps spacing and centre.

    nibabel reads any cosines, but ITK refuses those that are not orthonormal.

    Args:
        affine: Voxel to RAS mm.
        shape: ``(X, Y, Z)``, for the centre.

    Returns:
        The same affine where its cosines are orthonormal already.
    """
    linear = affine[:3, :3]
    steps = np.sqrt((linear**2).sum(axis=0))
    cosines = linear / steps
    if np.abs(cosines.T @ cosines - np.eye(3)).max() <= _ORTHONORMAL:
        return affine
    left, _, right = np.linalg.svd(cosines)
    mended = affine.copy()
    mended[:3, :3] = (left @ right) * steps
    centre = (np.array(shape[:3]) - 1) / 2
    mended[:3, 3] += (linear - mended[:3, :3]) @ centre
    return mended
