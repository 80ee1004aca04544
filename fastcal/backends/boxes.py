"""Boxes of bounded size that tile a voxel shape. A reference pass works on one at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator

Box = tuple[slice, ...]
"""One slice per voxel axis."""


def boxes(shape: tuple[int, ...], limit: int) -> Iterator[Box]:
    """Yield boxes of at most ``limit`` voxels (at least one) that tile a voxel shape, in order."""
    if 0 in shape:
        return
    if not shape:
        yield ()
        return
    inner = math.prod(shape[1:])
    step = max(1, limit // inner)
    for start in range(0, shape[0], step):
        outer = slice(start, min(start + step, shape[0]))
        if inner <= limit:
            yield (outer, *(slice(0, extent) for extent in shape[1:]))
        else:
            for box in boxes(shape[1:], limit):
                yield (outer, *box)
