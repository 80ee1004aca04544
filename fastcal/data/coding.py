"""How voxels are stored as integers or reals, chosen and applied one plane at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

DTYPES = ("float32", "float64", "uint8", "uint16", "int")

_SCALED = {"uint8": 255, "uint16": 65535}


class Planes(Protocol):
    """Voxels ``[X, Y, Z]`` or ``[X, Y, Z, C]`` that need not be in memory all at once."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Their extents."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Their type."""

    def planes(self) -> Iterator[NDArray[Any]]:
        """Give the planes ``[X, Y]``, along Z, then along C. It may be called again."""


@dataclass(frozen=True, slots=True)
class Coding:
    """How voxels are stored: as ``(value - low) / slope``."""

    dtype: np.dtype[Any]
    slope: float = 1.0
    low: float = 0.0
    steps: int | None = None
    """The largest code of a real number that is stored as an integer; None stores it as it is."""

    def coded(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Return what is stored of some voxels."""
        if self.steps is None:
            return plane.astype(self.dtype, copy=False)
        codes = np.rint((plane - self.low) / self.slope)
        return np.clip(codes, 0, self.steps).astype(self.dtype)


def coding_of(array: NDArray[Any] | Planes, dtype: str, path: Path) -> Coding:
    """Choose how voxels are stored, which may depend on all of them.

    Args:
        array: The voxels.
        dtype: One of `DTYPES`; see `fastcal.data.nifti.write`.
        path: The file to write, which an error names.

    Raises:
        ValueError: Values do not fit ``dtype``, or NaN is to be written as an integer.
    """
    if dtype in ("float32", "float64"):
        return Coding(np.dtype(dtype))
    integers = array.dtype.kind in "iub"
    if dtype == "int" and not integers:
        raise ValueError(f"array must hold integers for dtype 'int' of {path}, got {array.dtype}")
    lows: list[Any] = [0]
    highs: list[Any] = [0]
    for plane in planes_of(array):
        if not plane.size:
            continue
        if not integers and not np.isfinite(plane).all():
            raise ValueError(
                f"array must be finite for dtype {dtype!r} of {path}, got NaN or infinity: use "
                "float32"
            )
        lows.append(plane.min())
        highs.append(plane.max())
    if integers:
        low, high = int(min(lows)), int(max(highs))
        stored = _label_dtype(low, high) if dtype == "int" else np.dtype(dtype)
        limits = np.iinfo(stored)
        if not limits.min <= low <= high <= limits.max:
            raise ValueError(f"array must fit {stored} for {path}, got values in [{low}, {high}]")
        return Coding(stored)
    steps = _SCALED[dtype]
    least = float(min(lows))
    slope = float(np.float32((float(max(highs)) - least) / steps)) or 1.0
    return Coding(np.dtype(dtype), slope, float(np.float32(least)), steps)


def planes_of(array: NDArray[Any] | Planes) -> Iterator[NDArray[Any]]:
    """Give the planes ``[X, Y]`` of voxels in the order of a NIfTI file."""
    if not isinstance(array, np.ndarray):
        yield from array.planes()
        return
    for place in np.ndindex(*array.shape[:1:-1]):
        yield array[(slice(None), slice(None), *place[::-1])]


def _label_dtype(low: int, high: int) -> np.dtype[Any]:
    candidates = (np.dtype(np.uint8), np.dtype(np.int16), np.dtype(np.int32))
    for candidate in candidates:
        if np.iinfo(candidate).min <= low and high <= np.iinfo(candidate).max:
            return candidate
    return candidates[-1]
