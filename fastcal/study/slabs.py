"""Slabs of slices, so that the sums of many ensembles fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastcal.data.nifti import Geometry

if TYPE_CHECKING:
    from torch import Tensor

    from fastcal.data.preprocess import Preprocessing

MOST_BYTES = 1 << 30
"""Memory that the sums of all ensembles of a case may take."""


@dataclass(frozen=True, slots=True)
class Slab:
    """Consecutive slices of a volume, or all of it."""

    items: Tensor
    """What networks see, ``[N, Ch, *P]``."""
    like: Geometry
    """The geometry of these slices."""
    place: tuple[slice, slice, slice]
    """Where they lie in the volume ``[X, Y, Z]``."""


def slabs(
    items: Tensor, like: Geometry, preprocessing: Preprocessing, bytes_per_voxel: int
) -> Iterator[Slab]:
    """Cut a volume across its slices into parts of at most `MOST_BYTES`, a slice at least.

    Slices are independent of each other for networks in two dimensions. Volumes for networks in
    three dimensions, and those whose axes are turned, stay whole.

    Args:
        items: The whole volume as networks see it.
        like: The geometry of the volume.
        preprocessing: How the items were made.
        bytes_per_voxel: What all sums take for a voxel of the volume.
    """
    shape = like.shape[:3]
    if preprocessing.dims == 3 or preprocessing.reorients:
        yield Slab(items, like, (slice(None), slice(None), slice(None)))
        return
    axis = preprocessing.slice_axis
    slices = shape[axis]
    of_slice = bytes_per_voxel * int(np.prod(shape)) // slices
    thickness = max(1, min(slices, MOST_BYTES // max(1, of_slice)))
    for start in range(0, slices, thickness):
        part = slice(start, min(start + thickness, slices))
        place = [slice(None)] * 3
        place[axis] = part
        affine = like.affine.copy()
        affine[:3, 3] += start * affine[:3, axis]
        extents = list(shape)
        extents[axis] = part.stop - start
        cut = Geometry(tuple(extents), affine, like.header)
        yield Slab(items[part], cut, (place[0], place[1], place[2]))
