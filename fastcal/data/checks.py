"""Checks of the files of a case; each raises a `DataError` that names the bad file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcal.core.errors import DataError
from fastcal.data import nifti


def complain(folder: Path, problems: Sequence[DataError]) -> None:
    """Raise all problems of the files in a folder as one error, if there are any.

    Raises:
        DataError: Names the one bad file, or the folder and then every bad file in turn.
    """
    if len(problems) == 1:
        raise problems[0]
    if problems:
        listed = "; ".join(str(problem) for problem in problems)
        raise DataError(folder, f"has {len(problems)} problems: {listed}")


def check_place(
    path: Path, volume: nifti.Geometry, first_path: Path, first: nifti.Geometry
) -> None:
    """Check that a file lies where the first file of its case does."""
    if volume.shape != first.shape:
        raise DataError(
            path,
            f"must have the shape of {first_path.name}, {first.shape}, got {volume.shape}",
        )
    if not first.agrees(volume):
        raise DataError(path, f"must have the affine of {first_path.name}, got another one")


def integers(path: Path, data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return labels as integers, which some files store as real numbers.

    Raises:
        DataError: There are fractions, NaN or infinities, or numbers that 32 bits do not hold.
    """
    if data.dtype.kind in "iu":
        return data
    labels = np.rint(data)
    if not (labels == data).all():
        raise DataError(path, f"labels must be integers, got fractions or NaN ({data.dtype})")
    # Powers of two, since a float of 32 bits rounds the largest integer up; float16 has neither.
    beyond = labels[(labels < np.float32(-(2**31))) | (labels >= np.float32(2**31))]
    if beyond.size:
        raise DataError(path, f"labels must be integers of 32 bits, got {beyond[0]:.12g}")
    integers: npt.NDArray[Any] = labels.astype(np.int32)
    return integers


def check_count(path: Path, found: int, expected: int) -> None:
    """Check that a file of all channels has as many as dataset.json."""
    if found != expected:
        raise DataError(path, f"must have {expected} channels, as in dataset.json, got {found}")


def check_finite(path: Path, data: npt.NDArray[Any]) -> None:
    """Check that there are neither NaN nor infinities."""
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise DataError(path, "must hold finite voxels, got NaN or infinities")


def check_values(path: Path, labels: npt.NDArray[Any], allowed: npt.NDArray[Any]) -> None:
    """Check that all labels are among those of dataset.json."""
    unknown = np.setdiff1d(np.unique(labels), allowed)
    if unknown.size:
        raise DataError(
            path,
            f"must hold labels of dataset.json, {allowed.tolist()}, got {unknown.tolist()}",
        )
