"""Probabilities and the geometry that nnU-Net saves beside them, for tests to write and read."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

SHAPE = (3, 6, 5, 4)
"""Classes, X, Y, Z."""
TURNED = np.array(
    [[-1.4, 0.3, 0.1, 20.5], [-0.3, -1.4, 0.5, 31.25], [0.2, 0.4, 3.9, -12.0], [0, 0, 0, 1.0]]
)


def softmax(seed: int = 0, dtype: str = "float32") -> np.ndarray:
    """Random probabilities."""
    logits = np.random.default_rng(seed).normal(size=SHAPE)
    weights = np.exp(logits)
    return (weights / weights.sum(axis=0)).astype(dtype)


def write_labels(
    folder: Path,
    case: str = "a",
    affine: np.ndarray = TURNED,
    shape: tuple[int, ...] = SHAPE[1:],
) -> None:
    """Write a label map, which tells the geometry."""
    nib.Nifti1Image(np.zeros(shape, np.uint8), affine).to_filename(folder / f"{case}.nii.gz")


def sitk_stuff(affine: np.ndarray) -> dict[str, Any]:
    """The geometry as SimpleITK gives it: LPS, direction by rows."""
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return {
        "spacing": tuple(spacing.tolist()),
        "origin": tuple(lps[:3, 3].tolist()),
        "direction": tuple((lps[:3, :3] / spacing).ravel().tolist()),
    }


def write_pickle(folder: Path, content: object, case: str = "a", protocol: int = 4) -> Path:
    """Write nnU-Net's properties of a case."""
    path = folder / f"{case}.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def version_1(stored: np.ndarray) -> OrderedDict[str, Any]:
    """Properties as version 1 writes them, for a box in an image of (10, 9, 8) voxels."""
    stuff = sitk_stuff(TURNED)
    return OrderedDict(
        original_size_of_raw_data=np.array([8, 9, 10]),
        original_spacing=np.array([3.9, 1.4, 1.4]),
        list_of_data_files=["a_0000.nii.gz"],
        seg_file=None,
        itk_origin=stuff["origin"],
        itk_spacing=stuff["spacing"],
        itk_direction=stuff["direction"],
        crop_bbox=[[1, 1 + stored.shape[1]], [2, 2 + stored.shape[2]], [3, 3 + stored.shape[3]]],
        classes=np.array([-1.0, 0.0, 1.0], dtype=np.float32),
        size_after_cropping=stored.shape[1:],
        use_nonzero_mask_for_norm=OrderedDict([(0, False)]),
    )
