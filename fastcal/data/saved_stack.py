"""What one member predicts for a case, read slab by slab."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcal.data.stored import Cut, Stored


@dataclass(frozen=True)
class View:
    """How ``[C, S0, S1, S2]`` of a file becomes ``[C, X, Y, Z]``: a transposition and flips."""

    order: tuple[int, ...]
    """For every axis of the view, the axis of the file."""
    flipped: tuple[bool, ...]
    """For every axis of the view, whether it runs backwards."""

    @classmethod
    def of(cls, array: NDArray[Any]) -> View:
        """Read off what was done to an array that `unread` has made."""
        order = tuple(_STEPS.index(abs(step)) for step in array.strides)
        return cls(order, tuple(step < 0 for step in array.strides))

    @property
    def axis(self) -> int:
        """The axis of space, 0 to 2, that slabs follow one another along."""
        return self.order.index(1) - 1

    @property
    def backwards(self) -> bool:
        """Whether the first slab of the file is the last of the view."""
        return self.flipped[self.order.index(1)]

    @property
    def in_order(self) -> bool:
        """Whether slabs follow one another along Z, from its beginning, as in NIfTI files."""
        return self.axis == 2 and not self.backwards

    def __call__(self, slab: NDArray[Any]) -> NDArray[Any]:
        """Apply it to a slab."""
        turned = slab.transpose(self.order)
        return turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)]


_STEPS = (1 << 40, 1 << 41, 1 << 42, 1 << 43)
"""Strides that nothing else has."""


def unread(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array that says how it is turned, and must not be read: it has no memory."""
    made: NDArray[Any] = np.lib.stride_tricks.as_strided(np.empty(1, dtype), shape, _STEPS)
    return made


@dataclass(frozen=True)
class Box:
    """Where the box of nnU-Net's version 1 lies in its image, which is background around it."""

    place: tuple[slice, slice, slice]
    shape: tuple[int, int, int]
    background: bool
    """Whether the first class is the background, whose probability is 1 outside."""

    def put_back(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Put the box ``[C, ...]`` back into its image, as version 1 exports it."""
        if stored.shape[1:] == self.shape:
            return stored
        full = np.zeros((stored.shape[0], *self.shape), stored.dtype)
        if self.background:
            full[0] = 1
        full[(slice(None), *self.place)] = stored
        return full


@dataclass(frozen=True)
class Slabs:
    """Numbers of a file with the way to ``[C, X, Y, Z]``."""

    stored: Stored
    view: View
    box: Box | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C, X, Y, Z)``."""
        extents = (self.stored.shape[0], *self._space)
        return tuple(extents[axis] for axis in self.view.order)

    @property
    def extent(self) -> int:
        """Places along the axis that slabs follow one another along."""
        return self._space[0]

    @property
    def _space(self) -> tuple[int, ...]:
        return self.stored.shape[1:] if self.box is None else self.box.shape

    def read(self, cuts: Sequence[Cut]) -> Iterator[NDArray[Any]]:
        """Give the slabs, turned as the view is.

        Args:
            cuts: Parts of the file's first axis of space that follow one another and cover it.
        """
        box = self.box
        if box is None:
            for slab in self.stored.slabs(cuts):
                yield self.view(slab)
                del slab
            return
        first, last = box.place[0].start, box.place[0].stop
        inner = [(max(a, first) - first, min(b, last) - first) for a, b in cuts]
        slabs = self.stored.slabs([(a, b) for a, b in inner if a < b])
        for (start, stop), (low, high) in zip(cuts, inner, strict=True):
            full = np.zeros((self.stored.shape[0], stop - start, *box.shape[1:]), self.stored.dtype)
            if box.background:
                full[0] = 1
            if low < high:
                rows = slice(low + first - start, high + first - start)
                full[(slice(None), rows, *box.place[1:])] = next(slabs)
            yield self.view(full)
            del full
