"""What must hold of the files of a case; a `DataError` names the one that breaks it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcal.core.errors import DataError
from fastcal.data import nifti


def complain(folder: Path, problems: Sequence[DataError]) -> None:
    """Raise what is wrong with a folder's files as one error, if anything is.

    Raises:
        DataError: names the one bad file, or the folder and then every bad file in turn.
    """
    if len(problems) == 1:
        raise problems[0]
    if problems:
        listed = "; ".join(str(problem) for problem in problems)
        raise DataError(folder, f"{len(problems)} problems: {listed}")


def check_place(
    path: Path, volume: nifti.Geometry, first_path: Path, first: nifti.Geometry
) -> None:
    """A file lies where the first one of its case does."""
    if volume.shape != first.shape:
        raise DataError(path, f"shape {volume.shape}, but {first_path.name} has {first.shape}")
    if not nifti.same_place(first.affine, volume.affine, first.shape):
        raise DataError(path, f"its affine differs from that of {first_path.name}")


def integers(path: Path, data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Labels as integers, which some files store as real numbers."""
    if data.dtype.kind in "iu":
        return data
    labels = np.rint(data)
    if not (labels == data).all():
        raise DataError(path, "label values that are no integers")
    integers: npt.NDArray[Any] = labels.astype(np.int32)
    return integers


def check_count(path: Path, found: int, expected: int) -> None:
    """A file of all channels has those of dataset.json."""
    if found != expected:
        raise DataError(path, f"{found} channels, but dataset.json has {expected}")


def check_finite(path: Path, data: npt.NDArray[Any]) -> None:
    """No NaN and no infinity."""
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise DataError(path, "NaN or infinite voxels")


def check_values(path: Path, labels: npt.NDArray[Any], allowed: npt.NDArray[Any]) -> None:
    """Labels are those of dataset.json."""
    unknown = np.setdiff1d(np.unique(labels), allowed)
    if unknown.size:
        raise DataError(
            path, f"labels {unknown.tolist()} are not in dataset.json, which has {allowed.tolist()}"
        )
