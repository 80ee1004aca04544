"""Arrays turned so that their axes run another way, with the affines that go with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcal.core.arrays import Floats
from fastcal.data.affines import is_regular


@dataclass(frozen=True, eq=False)
class Turn:
    """How the axes of a volume are reordered and flipped."""

    orientation: Floats
    """``[3, 2]``, as nibabel has it: for each axis, which one it becomes, and -1 for a flip."""

    @classmethod
    def between(cls, start: str, end: str) -> Turn:
        """From one orientation to another, in nibabel's letters, such as ``"RAS"``.

        Raises:
            ValueError: They are not three letters, one of each of LR, PA and IS.
        """
        from nibabel.orientations import axcodes2ornt, ornt_transform

        for letters in (start, end):
            pairs = sorted("LPI"["LPIRAS".index(x) % 3] if x in "LPIRAS" else "?" for x in letters)
            if pairs != ["I", "L", "P"]:
                raise ValueError(f"the orientation must be like RAS or LPS, got {letters!r}")
        codes: Any = axcodes2ornt
        transform: Any = ornt_transform
        return cls(transform(codes(start), codes(end)))

    @classmethod
    def to_axes_of(cls, start: Floats, end: Floats) -> Turn:
        """From the axes of one regular affine to those of another, as near as turns can come."""
        from nibabel.orientations import io_orientation, ornt_transform

        axes: Any = io_orientation
        transform: Any = ornt_transform
        return cls(transform(axes(start), axes(end)))

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The extents of a volume when it is turned."""
        return tuple(shape[axis] for axis in self._order)

    def affine(self, affine: Floats, shape: tuple[int, ...]) -> Floats:
        """The affine of a volume when it is turned.

        Args:
            affine: Of the volume.
            shape: Of the volume, ``(X, Y, Z)``.
        """
        from nibabel.orientations import inv_ornt_aff

        back: Any = inv_ornt_aff
        turned: Floats = affine @ back(self.orientation, shape)
        return turned

    def array(self, data: NDArray[Any]) -> NDArray[Any]:
        """Turn ``[C, X, Y, Z]``: a view, in which an axis that is flipped has a negative stride."""
        flips = [slice(None, None, int(flip)) for flip in self.orientation[:, 1]]
        return data[(slice(None), *flips)].transpose(0, *(axis + 1 for axis in self._order))

    @property
    def _order(self) -> tuple[int, ...]:
        return tuple(int(axis) for axis in np.argsort(self.orientation[:, 0]))


def regular_affine(value: Any) -> Floats:
    """An affine out of a file.

    Raises:
        ValueError: It is not ``[4, 4]``, not finite, or leaves an axis without a direction.
    """
    affine = np.array(value, dtype=np.float64)
    if affine.shape != (4, 4):
        raise ValueError(f"an affine of shape {affine.shape}")
    if not is_regular(affine):
        raise ValueError("an affine that is singular or not finite")
    return affine
