"""Volumes in files without a name, for maps that are larger than the memory they may take."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcal.core.doors import temporary_beside

Place = tuple[slice, slice, slice]


class ScratchVolume:
    """Voxels ``[X, Y, Z]`` or ``[X, Y, Z, C]`` on disk, written part by part and read by planes.

    The file has no name while it is in use, so that nothing is left of it, however the process
    ends. It is read and written, and never mapped: what the system keeps of it in its cache is not
    memory of this process.

    Args:
        folder: Where the file lies.
        shape: Extents of the volume.
        dtype: Type of its voxels.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        self._plane = shape[0] * shape[1] * dtype.itemsize
        path = temporary_beside(folder / "scratch")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        self._descriptor = os.open(path, flags, 0o600)
        # The space on disk is given back when nobody needs the volume any more.
        weakref.finalize(self, os.close, self._descriptor)
        path.unlink()

    def put(self, place: Place, values: NDArray[Any]) -> None:
        """Write a part of the volume.

        Args:
            place: Where, along X, Y and Z.
            values: ``[x, y, z]`` or ``[x, y, z, C]``.

        Raises:
            OSError: The disk is full.
        """
        x, y, z = (part.indices(size) for part, size in zip(place, self.shape, strict=False))
        whole = (x[0], x[1], y[0], y[1]) == (0, self.shape[0], 0, self.shape[1])
        for channel in self._channels():
            for number, depth in enumerate(range(z[0], z[1])):
                within: Any = (slice(None), slice(None), number, *channel)
                part = values[within]
                if whole:
                    plane = part
                else:
                    plane = self._read(depth, channel, 0, self.shape[1])
                    plane[x[0] : x[1], y[0] : y[1]] = part
                stored = np.ascontiguousarray(plane.T, self.dtype)
                self._write(stored, self._offset(depth, channel))

    def planes(self) -> Iterator[NDArray[Any]]:
        """Give the planes ``[X, Y]``, along Z, then along C."""
        for channel in self._channels():
            for depth in range(self.shape[2]):
                yield self._read(depth, channel, 0, self.shape[1])

    def part(self, y: slice, z: slice) -> NDArray[Any]:
        """Read the rows ``y`` of the planes ``z``, ``[X, y, z]`` or ``[X, y, z, C]``."""
        extents = (self.shape[0], y.stop - y.start, z.stop - z.start, *self.shape[3:])
        made = np.empty(extents, self.dtype, order="F")
        for channel in self._channels():
            for number, depth in enumerate(range(z.start, z.stop)):
                within: Any = (slice(None), slice(None), number, *channel)
                made[within] = self._read(depth, channel, y.start, y.stop)
        return made

    def _channels(self) -> Iterator[tuple[int, ...]]:
        return np.ndindex(*self.shape[3:])

    def _offset(self, depth: int, channel: tuple[int, ...]) -> int:
        number = channel[0] if channel else 0
        return (number * self.shape[2] + depth) * self._plane

    def _read(self, depth: int, channel: tuple[int, ...], first: int, last: int) -> NDArray[Any]:
        row = self.shape[0] * self.dtype.itemsize
        raw = bytearray((last - first) * row)
        # What was never written lies behind the end of the file, and is zero.
        os.preadv(self._descriptor, [raw], self._offset(depth, channel) + first * row)
        return np.frombuffer(raw, self.dtype).reshape(last - first, self.shape[0]).T

    def _write(self, values: NDArray[Any], offset: int) -> None:
        left = values.data.cast("B")
        while left:
            count = os.pwrite(self._descriptor, left, offset)
            left, offset = left[count:], offset + count
