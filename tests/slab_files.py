"""Members in every form that is read slab by slab."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastcal.data import nifti
from fastcal.data.predictions import write_npz

SHAPE = (13, 17, 29)
LIKE = nifti.Geometry.from_affine(np.diag([1.0, 1.5, 2.0, 1.0]), SHAPE)


def save(
    folder: Path,
    kind: str,
    values: np.ndarray,
    like: nifti.Geometry = LIKE,
    chunks: tuple[int, ...] = (2, 5, 8, 9),
) -> None:
    """Write ``[C, X, Y, Z]`` as ``a`` in one of the forms that are read."""
    folder.mkdir(parents=True)
    stored = np.ascontiguousarray(values.transpose(0, 3, 2, 1))
    if kind == "npz":
        write_npz(folder / "a.npz", values)
    elif kind == "stored npz":
        np.savez(folder / "a.npz", probabilities=stored)
    elif kind in ("npy", "big-endian npy"):
        np.save(folder / "a.npy", stored.astype(">f4") if "big" in kind else stored)
    elif kind == "Fortran npy":
        np.save(folder / "a.npy", np.asfortranarray(stored))
    elif kind == "zarr":
        zarr = pytest.importorskip("zarr")
        store = str(folder / "a.zarr")
        made = zarr.create_array(store=store, shape=stored.shape, chunks=chunks, dtype="f4")
        made[:] = stored
    else:
        dtype = "uint16" if "scaled" in kind else "float32"
        ending = ".nii" if kind == "nii" else ".nii.gz"
        nifti.write(folder / f"a{ending}", np.moveaxis(values, 0, -1), like, dtype=dtype)
