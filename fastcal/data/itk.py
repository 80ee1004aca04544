"""MetaImage and NRRD volumes, read and written by SimpleITK, in nibabel's axes and world.

SimpleITK's arrays are (z, y, x) and its world is LPS: left, posterior and superior are positive.
Here, as everywhere in fastcal, arrays are [X, Y, Z] and the world is NIfTI's RAS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcal.core.arrays import Floats
from fastcal.core.atomic import atomic_path
from fastcal.core.doors import itk_header, one_error
from fastcal.core.errors import DataError
from fastcal.data.affines import is_regular
from fastcal.data.nifti import Geometry, Volume
from fastcal.data.voxel_types import unscaled

ENDINGS = (".mha", ".mhd", ".nrrd")

_READERS = {".mha": "MetaImageIO", ".mhd": "MetaImageIO", ".nrrd": "NrrdImageIO"}
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_INTEGERS = ("uint8", "int16", "int32")
_LOCAL = b"ElementDataFile = LOCAL\n"


def read(path: str | Path) -> Volume:
    """Read an ``.mha``, ``.mhd`` or ``.nrrd`` image.

    A fourth axis of the file and the components of a vector image both become the last axis,
    ``[X, Y, Z, C]``. An image of two axes becomes one slice of 1 mm. Lengths of a header that names
    another unit (``space units`` of NRRD, ``DistanceUnits`` of MetaImage) become millimetres.

    Raises:
        DataError: The file is missing, truncated, corrupt, holds no real numbers, or has no usable
            affine.
        ImportError: SimpleITK is missing.
    """
    path = Path(path)
    header = itk_header(path)
    sitk = _sitk(path)
    with one_error(path, "an image that SimpleITK reads"):
        reader = _reader(sitk, path)
        reader.ReadImageInformation()
        like = _geometry(path, reader, reader.GetNumberOfComponents(), header.millimetres)
        image = reader.Execute()
        data = np.asarray(sitk.GetArrayFromImage(image))
        if data.dtype.kind not in "iuf":
            raise ValueError(f"must hold real numbers, got voxels of type {data.dtype}")
        spatial = image.GetDimension()
        data = data.transpose(*range(spatial - 1, -1, -1), *range(spatial, data.ndim))
        data = data.reshape((*like.shape, *((like.channels,) if like.channels > 1 else ())))
        return Volume(
            like.shape,
            like.affine,
            like.header,
            data,
            channels=like.channels,
            others=like.others,
        )


def geometry(path: str | Path) -> Geometry:
    """Read only the header of an image.

    Raises:
        DataError: See `read`; voxels are not checked.
        ImportError: SimpleITK is missing.
    """
    path = Path(path)
    header = itk_header(path)
    sitk = _sitk(path)
    with one_error(path, "an image that SimpleITK reads"):
        reader = _reader(sitk, path)
        reader.ReadImageInformation()
        return _geometry(path, reader, reader.GetNumberOfComponents(), header.millimetres)


def parts(path: Path) -> tuple[Path, ...]:
    """Return the file of the header and, where it is another, that of the voxels.

    Raises:
        DataError: See `read`.
    """
    return tuple(dict.fromkeys((path, itk_header(path).data)))


def write(path: str | Path, array: NDArray[Any], like: Geometry, *, dtype: str = "float32") -> None:
    """Write an array ``[X, Y, Z]`` or ``[X, Y, Z, C]`` where ``like`` lies, whole or not at all.

    Args:
        path: A name that ends in ``.mha``, ``.mhd`` or ``.nrrd``. The voxels of an ``.mhd`` go to
            a ``.zraw`` file beside it, which is written first.
        array: The voxels; C become the components of a vector image.
        like: The geometry of the file.
        dtype: As in `fastcal.data.nifti.write`, but nothing is scaled: ``"uint8"`` and
            ``"uint16"`` take integers alone.

    Raises:
        ImportError: SimpleITK is missing.
        ValueError: The shape differs from that of ``like``, or values do not fit ``dtype``.
        OSError: The disk reports an error, for example that it is full.
    """
    path = Path(path)
    if tuple(array.shape[:3]) != (*like.shape, 1, 1)[:3] or array.ndim not in (3, 4):
        raise ValueError(
            f"array must have the shape of its image, {tuple(like.shape[:3])}, for {path}, "
            f"got {tuple(array.shape)}"
        )
    sitk = _sitk(path)
    voxels = unscaled(array, dtype, path, _INTEGERS)
    channels = range(3, voxels.ndim)
    stored = np.ascontiguousarray(voxels.transpose(2, 1, 0, *channels))
    image = sitk.GetImageFromArray(stored, isVector=voxels.ndim == 4)
    spacing, origin, direction = of_affine(like.affine)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    if path.suffix == ".mhd":
        _write_detached(sitk, image, path)
        return
    with atomic_path(path) as temporary:
        _store(sitk, image, temporary)


def to_affine(
    spacing: Sequence[float], origin: Sequence[float], direction: Sequence[float]
) -> Floats:
    """Return the RAS affine of an ITK geometry of two to four axes.

    Args:
        spacing: Distance of voxels in mm, by axis (x, y, z).
        origin: Place of the first voxel in LPS mm.
        direction: Direction cosines, row by row. A fourth axis is left out, and a missing third
            one is a slice of 1 mm.

    Example:
        >>> to_affine((1, 2, 3), (5, 6, 7), (1, 0, 0, 0, 1, 0, 0, 0, 1))[0].tolist()
        [-1.0, -0.0, -0.0, -5.0]
    """
    dimensions = len(spacing)
    kept = min(dimensions, 3)
    steps, start, axes = np.ones(3), np.zeros(3), np.eye(3)
    steps[:kept] = spacing[:kept]
    start[:kept] = origin[:kept]
    axes[:kept, :kept] = np.reshape(direction, (dimensions, dimensions))[:kept, :kept]
    lps = np.eye(4)
    lps[:3, :3] = axes * steps
    lps[:3, 3] = start
    return np.asarray(_LPS_TO_RAS @ lps)


def of_affine(affine: Floats) -> tuple[list[float], list[float], list[float]]:
    """Return spacing, origin and direction in ITK's world: the inverse of `to_affine`.

    Args:
        affine: Voxel (x, y, z) to RAS mm.
    """
    lps = _LPS_TO_RAS @ affine
    steps = np.sqrt((lps[:3, :3] ** 2).sum(axis=0))
    if not steps.all():
        raise ValueError(f"affine must give each axis a direction, got {affine[:3, :3].tolist()}")
    return steps.tolist(), lps[:3, 3].tolist(), (lps[:3, :3] / steps).ravel().tolist()


def _geometry(path: Path, found: Any, channels: int, millimetres: float) -> Geometry:
    """The geometry of an image or of a reader that has read its header.

    Lengths become millimetres. SimpleITK, and so nnU-Net, takes them for millimetres as they are,
    which is the other place that the file may be found in.
    """
    extents = tuple(int(extent) for extent in found.GetSize())
    if len(extents) > 4 or (len(extents) == 4 and channels > 1):
        raise ValueError(f"must have at most four axes with its channels, got {extents}")
    shape = (*extents, 1)[: max(3, len(extents))]
    shape = (*shape, channels) if channels > 1 else shape
    affine = to_affine(found.GetSpacing(), found.GetOrigin(), found.GetDirection())
    if not is_regular(affine):
        raise DataError(path, "its header gives no usable affine: it is singular or not finite")
    if millimetres == 1.0:
        return Geometry.from_affine(affine, shape)
    scaled = affine.copy()
    scaled[:3] *= millimetres
    return replace(Geometry.from_affine(scaled, shape), others=(affine,))


def _reader(sitk: Any, path: Path) -> Any:
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_READERS[path.suffix])
    reader.SetFileName(str(path))
    return reader


def _store(sitk: Any, image: Any, path: Path) -> None:
    try:
        sitk.WriteImage(image, str(path), True)
    except RuntimeError as error:  # the disk, most likely: SimpleITK has no other class
        raise OSError(f"{' '.join(str(error).split())[-200:]}") from error


def _write_detached(sitk: Any, image: Any, path: Path) -> None:
    """Write voxels and header as two files, for SimpleITK would name the temporary one in it."""
    with atomic_path(path.with_suffix(".zraw")) as voxels:
        whole = voxels.with_suffix(".mha")
        try:
            _store(sitk, image, whole)
            header, _, data = whole.read_bytes().partition(_LOCAL)
        finally:
            whole.unlink(missing_ok=True)
        voxels.write_bytes(data)
    name = path.with_suffix(".zraw").name
    with atomic_path(path) as temporary:
        temporary.write_bytes(header + f"ElementDataFile = {name}\n".encode())


def _sitk(path: Path) -> Any:
    try:
        import SimpleITK as sitk
    except ImportError as error:
        raise ImportError(f"{path}: needs SimpleITK: pip install 'fastcal[itk]'") from error
    # Readers are silent; what is wrong with a file is in the error.
    module: Any = sitk
    module.ProcessObject.SetGlobalWarningDisplay(False)
    return module
