"""Geometry from nnU-Net's ``CASE.pkl``, which is read without executing any of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcal.core.arrays import Floats
from fastcal.core.doors import read_pickle
from fastcal.core.errors import DataError
from fastcal.data.affines import same_place
from fastcal.data.orientation import Turn, regular_affine

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


_AXES_OF_ITK = "RAS"
"""The orientation that nnU-Net's SimpleITKIOWithReorient turns images to."""


@dataclass(frozen=True, eq=False)
class Properties:
    """Where an array that nnU-Net saved lies."""

    stored_affine: Floats | None
    """Voxel to RAS mm of the array as it is stored, for voxels (x, y, z)."""
    turn: Turn | None
    """How the array becomes that of the image file, where nnU-Net's reader had turned the image."""
    original_affine: Floats | None
    """Affine of the image file, where the file says it beside that of the turned array."""
    crop: tuple[slice, slice, slice] | None
    """The box (z, y, x) of the non-zero image, which is all that version 1 saves; None for the
    whole image."""
    full_shape: tuple[int, int, int] | None
    """Shape (z, y, x) of the image from which version 1 cut the box."""
    extents: tuple[int, ...] | None
    """Extents of the image in version 2, in any order: nnU-Net transposes before it notes them."""
    spacing: tuple[float, float, float] | None
    """Voxel size of the array along (x, y, z): all there is where no reader knows an affine."""

    def check_extents(self, path: Path, stored: tuple[int, ...]) -> None:
        """Compare the extents of an array, as it is stored, with those that were noted.

        Raises:
            DataError: They differ.
        """
        if self.extents is not None and sorted(stored) != sorted(self.extents):
            raise DataError(
                path,
                f"shape_before_cropping must hold the extents of the array, {stored}, got "
                f"{self.extents}",
            )

    def image(self, path: Path, data: NDArray[Any]) -> tuple[NDArray[Any], Floats | None]:
        """Bring an array to the axes of the image file.

        Args:
            path: The file of the properties, which an error names.
            data: ``[C, X, Y, Z]``, the axes as stored.

        Returns:
            ``[C, X, Y, Z]`` of the image file, and its affine, or None if nothing tells.

        Raises:
            DataError: The properties are those of another array, or contradict themselves.
        """
        shape = data.shape[1:]
        self.check_extents(path, shape[::-1])
        affine = self.stored_affine
        if self.turn is None:
            return data, affine
        if affine is not None:
            affine = self.turn.affine(affine, shape)
        data = self.turn.array(data)
        original = self.original_affine
        if original is not None and affine is not None:
            if not same_place(original, affine, data.shape[1:]):
                raise DataError(path, "its original_affine and reoriented_affine contradict")
            affine = original
        return data, affine


def read(path: Path) -> Properties:
    """Read the properties that nnU-Net writes beside its probabilities.

    The keys are those of nnU-Net v2's readers (``nnunetv2/imageio``: ``sitk_stuff``,
    ``nibabel_stuff``, ``spacing``), of its preprocessing (``shape_before_cropping``), and of v1's
    ``nnunet/preprocessing/cropping.py`` (``itk_*``, ``crop_bbox``). Readers that reorient leave
    ``reoriented_affine`` or ``original_orientation``. SimpleITK's origin and direction are in LPS;
    the affine returned is in nibabel's RAS.

    Raises:
        DataError: The file is unreadable, is not a pickle of plain data (the message names the
            global that it asks for), or has no usable geometry.
    """
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise DataError(path, f"must hold a dictionary of properties, got {type(content).__name__}")
    if not content:
        raise DataError(path, "must hold properties, got an empty dictionary")
    try:
        return _interpret(content)
    except Exception as error:  # whatever content of another kind leads to
        raise DataError(path, f"has no usable geometry ({error!r})") from error


def _interpret(content: dict[Any, Any]) -> Properties:
    affine = original = turn = None
    if "nibabel_stuff" in content:
        stuff = content["nibabel_stuff"]
        affine = regular_affine(stuff["original_affine"])
        if "reoriented_affine" in stuff:
            original, affine = affine, regular_affine(stuff["reoriented_affine"])
            turn = Turn.to_axes_of(np.eye(4), original)
    elif "sitk_stuff" in content:
        stuff = content["sitk_stuff"]
        affine = _from_sitk(stuff["spacing"], stuff["origin"], stuff["direction"])
        if "original_orientation" in stuff:
            turn = Turn.between(_AXES_OF_ITK, str(stuff["original_orientation"]))
    elif "itk_spacing" in content:
        affine = _from_sitk(content["itk_spacing"], content["itk_origin"], content["itk_direction"])

    crop = full_shape = extents = spacing = None
    if content.get("crop_bbox") is not None:
        z, y, x = (slice(int(low), int(high)) for low, high in content["crop_bbox"])
        crop = (z, y, x)
        depth, height, width = (int(n) for n in content["original_size_of_raw_data"])
        full_shape = (depth, height, width)
        if any(not 0 <= s.start < s.stop <= n for s, n in zip(crop, full_shape, strict=True)):
            raise ValueError(f"crop_bbox {content['crop_bbox']} in an image of {full_shape}")
    if content.get("shape_before_cropping") is not None:
        extents = tuple(int(extent) for extent in content["shape_before_cropping"])
    if content.get("spacing") is not None:
        z_size, y_size, x_size = (abs(float(step)) for step in content["spacing"])
        spacing = (x_size, y_size, z_size)
        if not all(0 < step < math.inf for step in spacing):
            raise ValueError(f"spacing {content['spacing']}")
    return Properties(affine, turn, original, crop, full_shape, extents, spacing)


def _from_sitk(
    spacing: Sequence[float], origin: Sequence[float], direction: Sequence[float]
) -> Floats:
    """Return the RAS affine of an ITK geometry; a 2-D image becomes one slice of 1 mm."""
    dimensions = len(spacing)
    steps, start, axes = np.ones(3), np.zeros(3), np.eye(3)
    n = min(dimensions, 3)
    # A fourth axis of ITK is that of the channels.
    axes[:n, :n] = np.reshape(direction, (dimensions, dimensions))[:n, :n]
    steps[:n], start[:n] = spacing[:n], origin[:n]
    lps = np.eye(4)
    with np.errstate(all="ignore"):
        lps[:3, :3] = axes * steps
        lps[:3, 3] = start
        return regular_affine(_LPS_TO_RAS @ lps)
