"""The one gate of images: a row per format, chosen by the ending of a file's name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastcal.core.errors import DataError
from fastcal.data import itk, nifti, pictures
from fastcal.data.coding import Planes
from fastcal.data.nifti import Geometry, Volume

DEFAULT = ".nii.gz"


class _Read(Protocol):
    def __call__(self, path: str | Path) -> Volume: ...


class _ReadGeometry(Protocol):
    def __call__(self, path: str | Path) -> Geometry: ...


class _Write(Protocol):
    def __call__(
        self, path: str | Path, array: NDArray[Any], like: Geometry, *, dtype: str
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Format:
    """A file format: how it is read and written, and what it can hold."""

    endings: tuple[str, ...]
    read: _Read
    geometry: _ReadGeometry
    write: _Write
    reals: bool
    """Whether it holds real numbers and a class axis: otherwise maps go to NIfTI files."""
    scaled: bool
    """Whether it keeps real numbers as integers with a slope."""
    located: bool
    """Whether it says where its voxels lie in the world."""


FORMATS = (
    Format(nifti.ENDINGS, nifti.read, nifti.geometry, nifti.write, True, True, True),
    Format(itk.ENDINGS, itk.read, itk.geometry, itk.write, True, False, True),
    Format(
        pictures.PICTURE_ENDINGS,
        pictures.read_picture,
        pictures.picture_geometry,
        pictures.write_picture,
        *(False, False, False),
    ),
    Format(
        pictures.TIFF_ENDINGS,
        pictures.read_tiff,
        pictures.tiff_geometry,
        pictures.write_tiff,
        *(False, False, False),
    ),
)
ENDINGS = tuple(ending for one in FORMATS for ending in one.endings)
LOCATED = tuple(ending for one in FORMATS if one.located for ending in one.endings)
"""Endings of the formats that say where they lie."""


def ending_of(name: str) -> str | None:
    """Return the ending of a file's name that a format has, or None.

    Example:
        >>> ending_of("heart_000_0000.nii.gz"), ending_of("slide.png"), ending_of("a.txt")
        ('.nii.gz', '.png', None)
    """
    return next((ending for ending in ENDINGS if name.endswith(ending)), None)


def format_of(path: str | Path) -> Format:
    """Return the format of a file, by its name alone.

    Raises:
        DataError: No format has this ending.
    """
    ending = ending_of(Path(path).name)
    if ending is None:
        raise DataError(path, f"must have a name that ends in one of {', '.join(ENDINGS)}")
    return next(one for one in FORMATS if ending in one.endings)


def map_ending(ending: str, dtype: str) -> str:
    """Return the ending of uncertainty maps in a folder whose label maps have ``ending``.

    It is the same wherever the format holds real numbers as ``dtype``, and ``.nii.gz`` otherwise:
    pictures hold integers, and only NIfTI has a slope.

    Args:
        ending: Ending of the label maps.
        dtype: Voxel type of the maps, as `fastcal.data.nifti.write` takes it.

    Example:
        >>> map_ending(".nrrd", "float32"), map_ending(".nrrd", "uint8"), map_ending(".png", "int")
        ('.nrrd', '.nii.gz', '.nii.gz')
    """
    one = format_of(f"map{ending}")
    holds = one.reals and (one.scaled or dtype == "float32")
    return ending if holds else DEFAULT


def parts(path: str | Path) -> tuple[Path, ...]:
    """Return every file that an image consists of, its own first.

    The voxels of an ``.mhd`` lie in a file beside it, and so may the spacing of a TIFF stack.

    Raises:
        DataError: The header that names the other file cannot be read.
    """
    path = Path(path)
    ending = ending_of(path.name)
    if ending in itk.ENDINGS:
        return itk.parts(path)
    return pictures.parts(path) if ending in pictures.TIFF_ENDINGS else (path,)


def read(path: str | Path) -> Volume:
    """Read an image of any format.

    Returns:
        Voxels ``[X, Y, Z]`` or ``[X, Y, Z, C]``, and where they lie in RAS mm.

    Raises:
        DataError: The file is missing, damaged, or of no known format.
        ImportError: The package of its format is missing; the message names the extra.
    """
    return format_of(path).read(path)


def geometry(path: str | Path) -> Geometry:
    """Read only the header of an image of any format.

    Raises:
        DataError: See `read`; voxels are not checked.
        ImportError: The package of its format is missing; the message names the extra.
    """
    return format_of(path).geometry(path)


def write(
    path: str | Path, array: NDArray[Any] | Planes, like: Geometry, *, dtype: str = "float32"
) -> None:
    """Write an image in the format of its name; see `fastcal.data.nifti.write`.

    Raises:
        DataError: No format has this ending.
        ImportError: The package of the format is missing.
        ValueError: The shape differs from that of ``like``, or values do not fit the format.
        OSError: The disk reports an error, for example that it is full.
    """
    one = format_of(path)
    if isinstance(array, np.ndarray):
        one.write(path, array, like, dtype=dtype)
    else:  # the other formats are written as a whole
        nifti.write(path, array, like, dtype=dtype)
