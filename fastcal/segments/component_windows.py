"""Connected components of segments that are seen a few planes at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class ComponentCounter:
    """Counts the components of one segment from windows along the last axis, in order.

    Voxels that share a face, an edge or a corner are connected, within a window and across two.

    Example:
        >>> counter = ComponentCounter()
        >>> for plane in ([[1, 0, 1]], [[0, 1, 0]], [[0, 0, 0]], [[1, 1, 1]]):
        ...     counter.add(np.array(plane, bool)[..., None])
        >>> counter.count(1), counter.count(4)
        (2, 0)
    """

    _sizes: list[int] = field(default_factory=list)
    _parents: list[int] = field(default_factory=list)
    _last: NDArray[Any] | None = None
    """Places and components ``[3, n]`` of the plane before."""

    def add(self, window: NDArray[np.bool_]) -> None:
        """Add the next window ``[X, Y, n]``.

        Raises:
            ImportError: SciPy is not installed.
        """
        try:
            from scipy import ndimage
        except ImportError as error:
            raise ImportError("components need SciPy: pip install 'fastcal[report]'") from error
        boxes = ndimage.find_objects(window.view(np.uint8), 1)
        if not boxes or boxes[0] is None:
            self._last = None
            return
        x, y, z = boxes[0]
        parts, count = ndimage.label(window[x, y, z], np.ones((3, 3, 3), np.bool_))
        base = len(self._sizes)
        self._sizes += np.bincount(parts.ravel(), minlength=count + 1)[1:].tolist()
        self._parents += range(base, base + count)
        if z.start == 0 and self._last is not None:
            self._join(parts[:, :, 0], base - 1, (x.start, y.start))
        self._last = None
        if z.stop == window.shape[2]:
            where = np.nonzero(parts[:, :, -1])
            numbers = parts[:, :, -1][where].astype(np.int64) + (base - 1)
            self._last = np.stack([where[0] + x.start, where[1] + y.start, numbers])

    def count(self, smallest: int) -> int:
        """Return how many components have at least ``smallest`` voxels."""
        total: dict[int, int] = {}
        for number, size in enumerate(self._sizes):
            root = self._root(number)
            total[root] = total.get(root, 0) + size
        return sum(size >= smallest for size in total.values())

    def _join(self, plane: NDArray[Any], base: int, corner: tuple[int, int]) -> None:
        """Join the components of a plane with those of the plane before it."""
        assert self._last is not None
        padded = np.pad(plane, 1)
        before = self._last[2]
        for dx in (-1, 0, 1):
            for dy in (-1, 0, 1):
                x, y = self._last[0] - corner[0] + 1 + dx, self._last[1] - corner[1] + 1 + dy
                there = (x >= 0) & (x < padded.shape[0]) & (y >= 0) & (y < padded.shape[1])
                met = padded[x[there], y[there]]
                pairs = np.stack([before[there], met.astype(np.int64) + base])[:, met > 0]
                for one, other in np.unique(pairs, axis=1).T.tolist():
                    self._parents[self._root(other)] = self._root(one)

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number
