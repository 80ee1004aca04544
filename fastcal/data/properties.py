"""Geometry from nnU-Net's ``CASE.pkl``, which is read without executing any of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcal.core.arrays import Floats
from fastcal.core.doors import read_pickle
from fastcal.core.errors import DataError

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Properties:
    """Where an array that nnU-Net saved lies."""

    affine: Floats | None
    """Voxel to RAS mm, for voxels (x, y, z) as in the image file."""
    reoriented_affine: Floats | None
    """Affine of the array in the npz, where nnU-Net's reader turned the image to RAS; else None."""
    crop: tuple[slice, slice, slice] | None
    """The box (z, y, x) of the non-zero image, which is all that version 1 saves; None for the
    whole image."""
    full_shape: tuple[int, int, int] | None
    """Shape (z, y, x) of the image from which version 1 cut the box."""


def read(path: Path) -> Properties:
    """Read the properties that nnU-Net writes beside its probabilities.

    The keys are those of nnU-Net v2's readers (``nnunetv2/imageio``: ``sitk_stuff``,
    ``nibabel_stuff``) and of v1's ``nnunet/preprocessing/cropping.py`` (``itk_*``, ``crop_bbox``).
    SimpleITK's origin and direction are in LPS; the affine returned is in nibabel's RAS.

    Raises:
        DataError: The file is unreadable, is not a pickle of plain data (the message names the
            global that it asks for), or has no usable geometry.
    """
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise DataError(path, f"must hold a dictionary of properties, got {type(content).__name__}")
    try:
        return _interpret(content)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(path, f"has no usable geometry ({error!r})") from error


def _interpret(content: dict[Any, Any]) -> Properties:
    affine = reoriented = None
    if "nibabel_stuff" in content:
        stuff = content["nibabel_stuff"]
        affine = _affine(stuff["original_affine"])
        if "reoriented_affine" in stuff:
            reoriented = _affine(stuff["reoriented_affine"])
    elif "sitk_stuff" in content:
        stuff = content["sitk_stuff"]
        affine = _from_sitk(stuff["spacing"], stuff["origin"], stuff["direction"])
    elif "itk_spacing" in content:
        affine = _from_sitk(content["itk_spacing"], content["itk_origin"], content["itk_direction"])

    crop = full_shape = None
    if content.get("crop_bbox") is not None:
        z, y, x = (slice(int(low), int(high)) for low, high in content["crop_bbox"])
        crop = (z, y, x)
        depth, height, width = (int(n) for n in content["original_size_of_raw_data"])
        full_shape = (depth, height, width)
        if any(not 0 <= s.start < s.stop for s in crop):
            raise ValueError(f"crop_bbox {content['crop_bbox']}")
    return Properties(affine, reoriented, crop, full_shape)


def _affine(value: Any) -> Floats:
    affine = np.array(value, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ValueError(f"an affine of shape {affine.shape}")
    return affine


def _from_sitk(
    spacing: Sequence[float], origin: Sequence[float], direction: Sequence[float]
) -> Floats:
    """Return the RAS affine of an ITK geometry; a 2-D image becomes one slice of 1 mm."""
    dimensions = len(spacing)
    steps, start, axes = np.ones(3), np.zeros(3), np.eye(3)
    steps[:dimensions] = spacing
    start[:dimensions] = origin
    axes[:dimensions, :dimensions] = np.reshape(direction, (dimensions, dimensions))
    lps = np.eye(4)
    lps[:3, :3] = axes * steps
    lps[:3, 3] = start
    return _affine(_LPS_TO_RAS @ lps)
