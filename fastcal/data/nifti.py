"""NIfTI volumes: voxels in nibabel's (X, Y, Z) order, and geometry that is kept bit for bit."""

from __future__ import annotations

import gzip
import io
import logging
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastcal.core.arrays import Floats
from fastcal.core.atomic import atomic_path
from fastcal.core.doors import NiftiFile, gzip_writer, open_nifti
from fastcal.core.errors import DataError
from fastcal.data.affines import mend, place, same_place, same_sizes, voxel_sizes
from fastcal.data.coding import DTYPES, Coding, Planes, coding_of, planes_of
from fastcal.data.stored import Inflated, Mapped, Scaled, Stored, Swapped

ENDINGS = (".nii.gz", ".nii")

G = TypeVar("G", bound="Geometry")

_SILENT = logging.Logger("fastcal.nifti", logging.CRITICAL + 1)
"""Takes what nibabel says about headers that it repairs."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where an array lies: its shape, its affine (voxel index to RAS mm) and its NIfTI header."""

    shape: tuple[int, ...]
    """``(X, Y, Z)``; axes that the file lacks have extent 1."""
    affine: Floats
    """Regular; `fastcal.data.affines` has the rule by which the header gives it."""
    header: Any
    channels: int = field(default=1, kw_only=True)
    """Extent of the axis behind those of space."""
    others: tuple[Floats, ...] = field(default=(), kw_only=True)
    """Affines that other readers may take from the same header."""
    stated: bool = field(default=True, kw_only=True)
    """Whether the file says where it lies, and not only how large its voxels are."""
    mended: bool = field(default=False, kw_only=True)
    """Whether the header of the file contradicts itself, which `header` does not."""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along x, y, z in mm."""
        x, y, z = voxel_sizes(self.affine)
        return float(x), float(y), float(z)

    def agrees(self, other: Geometry) -> bool:
        """Whether two files lie on one grid.

        A header with two forms puts its voxels in two places, of which readers choose one or the
        other; files agree if one of the places is the same. A file that does not state its place
        agrees with any other that has voxels of its size.
        """
        if self.shape[:3] != other.shape[:3]:
            return False
        if not (self.stated and other.stated):
            return same_sizes(self.affine, other.affine, self.shape)
        return any(
            same_place(one, another, self.shape)
            for one in (self.affine, *self.others)
            for another in (other.affine, *other.others)
        )

    @classmethod
    def from_affine(
        cls, affine: ArrayLike, shape: tuple[int, ...], *, stated: bool = True
    ) -> Geometry:
        """Make a geometry, in mm and scanner coordinates, for an array without a NIfTI file.

        Args:
            affine: Voxel index to RAS mm.
            shape: ``(X, Y, Z)``, or ``(X, Y, Z, C)``.
            stated: Whether the file says where it lies.
        """
        import nibabel as nib

        matrix = np.asarray(affine, dtype=np.float64)
        # Extents of version 1 have 16 bits.
        kind = nib.Nifti1Header if max(shape, default=0) < 1 << 15 else nib.Nifti2Header
        header: Any = kind()  # type: ignore[no-untyped-call]
        header.set_data_shape(shape)
        header.set_xyzt_units("mm")
        header.set_qform(matrix, code="scanner")
        header.set_sform(matrix, code="scanner")
        channels = shape[3] if len(shape) > 3 else 1
        return cls(tuple(shape[:3]), matrix, header, channels=channels, stated=stated)


@dataclass(frozen=True, eq=False)
class Volume(Geometry):
    """A NIfTI image in memory. An uncompressed file is mapped, not read."""

    data: NDArray[Any]
    """(X, Y, Z) or (X, Y, Z, C), of the type on disk; float32 where the file scales its voxels."""

    @property
    def grid(self) -> Geometry:
        """The geometry alone, which keeps no voxels in memory."""
        return Geometry(
            self.shape,
            self.affine,
            self.header,
            channels=self.channels,
            others=self.others,
            stated=self.stated,
            mended=self.mended,
        )


def read(path: str | Path) -> Volume:
    """Read a ``.nii`` or ``.nii.gz`` image.

    The voxels have three axes, or four if there are several channels: (X, Y) becomes (X, Y, 1),
    and axes of extent 1 behind the third, as in (X, Y, Z, 1), go. So does the fourth of
    (X, Y, Z, 1, C), which is how ITK stores vectors. The whole gzip stream is read, so that its
    checksum covers every voxel returned.

    Raises:
        DataError: The file is missing, truncated, corrupt, or not a NIfTI image of real numbers, or
            it has no usable affine.

    Warns:
        DataWarning: The header contradicts itself; see `fastcal.data.affines`.

    Example:
        >>> volume = read("imagesTr/heart_000_0000.nii.gz")  # doctest: +SKIP
        >>> volume.shape, volume.spacing  # doctest: +SKIP
        ((176, 176, 8), (1.6, 1.6, 8.0))
    """
    path = _checked(path)
    with open_nifti(path) as file:
        shape = _shape(path, file.header.shape)
        header = _header(file)
        data = _voxels(path, file, header).reshape(shape, order="F")
    return _laid_out(Volume, path, header, shape, file.header.shape, data)


def stored(path: str | Path) -> tuple[Stored, Geometry]:
    """Open the voxels ``[C, Z, Y, X]`` of an image, which are read slab by slab, and its geometry.

    Raises:
        DataError: See `read`; voxels are not checked yet.

    Warns:
        DataWarning: See `read`.
    """
    path = _checked(path)
    with open_nifti(path, whole=False, in_memory=False) as file:
        shape = _shape(path, file.header.shape)
        header = _header(file)
        offset, length = file.header.offset, path.stat().st_size
    dtype, slope, intercept = _kind(path, header)
    extents = (*shape, 1)[3::-1]
    found: Stored
    if path.name.endswith(".gz"):
        found = Inflated(path, extents, dtype, 0, length, offset)
    else:
        found = Mapped(path, extents, dtype, offset)
    laid_out = _laid_out(Geometry, path, header, shape, file.header.shape)
    if (slope, intercept) != (1.0, 0.0):
        return Scaled(found, slope, intercept), laid_out
    return Swapped.native(found), laid_out


def geometry(path: str | Path) -> Geometry:
    """Read only the header of a NIfTI image.

    Raises:
        DataError: See `read`; voxels are not checked.

    Warns:
        DataWarning: See `read`.
    """
    path = _checked(path)
    with open_nifti(path, whole=False) as file:
        shape = _shape(path, file.header.shape)
        header = _header(file)
    return _laid_out(Geometry, path, header, shape, file.header.shape)


def shape_and_affine(path: str | Path) -> tuple[tuple[int, ...], Floats]:
    """Read shape ``(X, Y, Z)`` and affine of a NIfTI image from its header."""
    header = geometry(path)
    return header.shape, header.affine


def write(
    path: str | Path, array: NDArray[Any] | Planes, like: Geometry, *, dtype: str = "float32"
) -> None:
    """Write an array ``[X, Y, Z]`` or ``[X, Y, Z, C]`` in the geometry of ``like``.

    Affine, qform and sform with their codes, and units are those of ``like``, and a map of a 2-D
    image has two axes. The file appears whole or not at all.

    Args:
        path: A name that ends in ``.nii`` or ``.nii.gz``.
        array: The voxels, in memory or plane by plane.
        like: The geometry of the file.
        dtype: ``"float32"`` or ``"float64"``; ``"int"`` for label maps, which are stored in the
            smallest of uint8, int16 and int32 that holds them; or ``"uint8"`` or ``"uint16"``,
            which store integers as they are, and real numbers scaled by ``scl_slope`` over
            [0, max] (with an error of half a step).

    Raises:
        ValueError: The shape differs from that of ``like``, values do not fit ``dtype``, or NaN is
            to be written as an integer.
        OSError: The disk reports an error, for example that it is full.

    Example:
        >>> image = read("imagesTr/heart_000_0000.nii.gz")  # doctest: +SKIP
        >>> write("entropy/heart_000.nii.gz", entropy, image, dtype="uint8")  # doctest: +SKIP
    """
    path = _checked(path)
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if tuple(array.shape[:3]) != tuple(like.shape[:3]):
        raise ValueError(
            f"array must have the shape of its image, {tuple(like.shape[:3])}, for {path}, "
            f"got {tuple(array.shape)}"
        )
    coding = coding_of(array, dtype, path)
    compressed = path.name.endswith(".gz")
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        gzip_writer(file) if compressed else nullcontext(file) as stream,
    ):
        stored = _write_header(stream, array.shape, like, coding)
        for plane in planes_of(array):
            coded = coding.coded(plane).astype(stored, copy=False)
            stream.write(np.ascontiguousarray(coded.T).data)


def _checked(path: str | Path) -> Path:
    path = Path(path)
    if not path.name.endswith(ENDINGS):
        raise DataError(path, f"must have a name that ends in {' or '.join(ENDINGS)}")
    return path


def _shape(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """(X, Y, Z), or (X, Y, Z, C) if there are several channels."""
    space, rest = (*shape, 1, 1)[:3], [extent for extent in shape[3:] if extent != 1]
    if len(rest) > 1:
        raise DataError(path, f"must hold a volume (X, Y, Z) or (X, Y, Z, C), got shape {shape}")
    return (*space, *rest)


def _header(file: NiftiFile) -> Any:
    """The header as it stands in the file. Its extensions are left out."""
    import nibabel as nib

    header_class: Any = nib.Nifti1Header if file.header.version == 1 else nib.Nifti2Header
    raw = file.stream.read(348 if file.header.version == 1 else 540)
    return header_class(raw, check=False)


def _laid_out(
    kind: type[G],
    path: Path,
    header: Any,
    shape: tuple[int, ...],
    stored: tuple[int, ...],
    *data: NDArray[Any],
) -> G:
    """A volume or a geometry, by the rule for what the header says."""
    found = place(header, stored, path)
    header.check_fix(logger=_SILENT, error_level=logging.CRITICAL + 1)
    if found.mended:
        header = mend(header, found)
    return kind(
        shape[:3],
        found.affine,
        header,
        *data,
        channels=shape[3] if len(shape) > 3 else 1,
        others=found.others,
        stated=found.stated,
        mended=found.mended,
    )


def _kind(path: Path, header: Any) -> tuple[np.dtype[Any], float, float]:
    """The type of the voxels in the file, with slope and intercept."""
    dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    if dtype.kind not in "iuf":
        raise DataError(path, f"must hold real numbers, got voxels of type {dtype}")
    slope, intercept = header.get_slope_inter()
    return (dtype, 1.0, 0.0) if slope is None else (dtype, slope, intercept)


def _voxels(path: Path, file: NiftiFile, header: Any) -> NDArray[Any]:
    from nibabel.arrayproxy import ArrayProxy

    dtype, *scaling = _kind(path, header)
    layout = (file.header.shape, dtype, file.header.offset, *scaling)
    proxy: Any = ArrayProxy(file.stream, layout)  # type: ignore[no-untyped-call]
    if (proxy.slope, proxy.inter) != (1.0, 0.0):
        return np.asarray(proxy, dtype=np.float32)
    native = dtype.newbyteorder("=") if dtype.itemsize <= 8 else np.dtype(np.float64)
    voxels: NDArray[Any] = np.asanyarray(proxy.get_unscaled()).astype(native, copy=False)
    return voxels


def _write_header(
    stream: IO[bytes] | gzip.GzipFile, shape: tuple[int, ...], like: Geometry, coding: Coding
) -> np.dtype[Any]:
    """Write what stands before the voxels, and return the type that they have in the file."""
    import nibabel as nib

    stored_axes = int(like.header["dim"][0])
    if stored_axes < 3 and len(shape) == 3:
        # The label map of a 2-D image is 2-D to nnU-Net and SimpleITK.
        shape = shape[: max(stored_axes, 1)]
    header = like.header.copy()
    header.extensions.clear()
    header["descrip"] = b""
    header["cal_min"] = header["cal_max"] = 0
    header.set_intent("none")
    header.set_data_dtype(coding.dtype)
    image_class: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    # Of an image without voxels of its own: nibabel makes the header fit its shape.
    image = image_class(np.broadcast_to(coding.dtype.type(0), shape), None, header)
    image.header.set_slope_inter(coding.slope, coding.low)
    raw = io.BytesIO()
    image.header.write_to(raw)
    stream.write(raw.getvalue().ljust(image.header.get_data_offset(), b"\0"))
    stored: np.dtype[Any] = image.header.get_data_dtype()
    return stored
