"""Voxels as formats store them that, unlike NIfTI, have no slope and intercept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def unscaled(
    array: NDArray[Any], dtype: str, path: Path, integers: Sequence[str], *, reals: bool = True
) -> NDArray[Any]:
    """Return voxels in the type that a file without scale factors stores.

    Args:
        array: The voxels.
        dtype: What `fastcal.data.nifti.write` takes.
        path: The file, for the message.
        integers: Types of integers that the format has, the smallest first.
        reals: Whether the format holds real numbers.

    Raises:
        ValueError: The format cannot hold the voxels as ``dtype`` without scaling them.
    """
    if dtype in ("float32", "float64") and reals:
        return array.astype(dtype, copy=False)
    if array.dtype.kind not in "iub":
        raise ValueError(
            f"array must hold integers for dtype {dtype!r} of {path}, whose format has no scale "
            f"factor, got {array.dtype}"
        )
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    candidates = integers if dtype in ("int", "float32", "float64") else (dtype,)
    for name in candidates:
        limits = np.iinfo(name)
        if limits.min <= low and high <= limits.max:
            return array.astype(name, copy=False)
    raise ValueError(f"array must fit {candidates[-1]} for {path}, got values in [{low}, {high}]")
