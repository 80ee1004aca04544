"""NIfTI volumes: voxels in nibabel's (X, Y, Z) order, and geometry that is kept bit for bit."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastcal.core.arrays import Floats
from fastcal.core.atomic import atomic_path
from fastcal.core.errors import DataError

ENDINGS = (".nii.gz", ".nii")
DTYPES = ("float32", "float64", "uint8", "uint16", "int")

_SCALED = {"uint8": 255, "uint16": 65535}
_DRAIN_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where an array lies: its shape, its affine (voxel index to RAS mm) and its NIfTI header."""

    shape: tuple[int, ...]
    affine: Floats
    header: Any

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along x, y, z in mm."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(x), float(y), float(z)

    @classmethod
    def from_affine(cls, affine: ArrayLike, shape: tuple[int, ...]) -> Geometry:
        """Make a geometry, in mm and scanner coordinates, for an array without a NIfTI file."""
        import nibabel as nib

        matrix = np.asarray(affine, dtype=np.float64)
        header: Any = nib.Nifti1Header()  # type: ignore[no-untyped-call]
        header.set_data_shape(shape)
        header.set_xyzt_units("mm")
        header.set_qform(matrix, code="scanner")
        header.set_sform(matrix, code="scanner")
        return cls(tuple(shape), matrix, header)


@dataclass(frozen=True, eq=False)
class Volume(Geometry):
    """A NIfTI image in memory. An uncompressed file is mapped, not read."""

    data: NDArray[Any]
    """(X, Y, Z) or (X, Y, Z, C), of the type on disk; float32 where the file scales its voxels."""


def read(path: str | Path) -> Volume:
    """Read a ``.nii`` or ``.nii.gz`` image.

    The whole gzip stream is read, so that its checksum covers every voxel returned.

    Raises:
        DataError: The file is missing, truncated, corrupt, or not a NIfTI image of real numbers.

    Example:
        >>> volume = read("imagesTr/heart_000_0000.nii.gz")  # doctest: +SKIP
        >>> volume.shape, volume.spacing  # doctest: +SKIP
        ((176, 176, 8), (1.6, 1.6, 8.0))
    """
    path = _checked(path)
    with naming(path):
        if path.name.endswith(".gz"):
            with gzip.open(path, "rb") as stream:
                image = _image_class(stream).from_stream(stream)
                data = _voxels(image.dataobj)
                while stream.read(_DRAIN_BYTES):
                    pass
        else:
            with path.open("rb") as stream:
                image_class = _image_class(stream)
            image = image_class.from_filename(path)
            data = _voxels(image.dataobj)
        return Volume(tuple(data.shape), image.affine.astype(np.float64), image.header, data)


def geometry(path: str | Path) -> Geometry:
    """Read only the header of a NIfTI image.

    Raises:
        DataError: See `read`; voxels are not checked.
    """
    path = _checked(path)
    with naming(path):
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as stream:
            image = _image_class(stream).from_stream(stream)
        return Geometry(tuple(image.shape), image.affine.astype(np.float64), image.header)


def shape_and_affine(path: str | Path) -> tuple[tuple[int, ...], Floats]:
    """Read shape and affine of a NIfTI image from its header."""
    header = geometry(path)
    return header.shape, header.affine


def write(path: str | Path, array: NDArray[Any], like: Geometry, *, dtype: str = "float32") -> None:
    """Write an array ``[X, Y, Z]`` or ``[X, Y, Z, C]`` in the geometry of ``like``.

    Affine, qform and sform with their codes, and units are those of ``like``. The file appears
    whole or not at all.

    Args:
        path: A name that ends in ``.nii`` or ``.nii.gz``.
        array: The voxels.
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
    import nibabel as nib

    path = _checked(path)
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if tuple(array.shape[:3]) != tuple(like.shape[:3]):
        raise ValueError(
            f"array must have the shape of its image, {tuple(like.shape[:3])}, for {path}, "
            f"got {tuple(array.shape)}"
        )
    voxels, slope, intercept = _encode(array, dtype, path)

    header = like.header.copy()
    header.extensions.clear()
    header["descrip"] = b""
    header["cal_min"] = header["cal_max"] = 0
    header.set_intent("none")
    header.set_data_dtype(voxels.dtype)
    image_class: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = image_class(voxels, None, header)
    image.header.set_slope_inter(slope, intercept)
    with atomic_path(path) as temporary:
        image.to_filename(temporary)


def same_place(
    one: Floats,
    other: Floats,
    shape: tuple[int, ...],
    *,
    tolerance: float = 0.1,
) -> bool:
    """Whether two affines put every corner of an array within ``tolerance`` voxels of each other.

    Files that went through different tools differ in the last digits of their affines. A tenth of
    the smallest voxel edge is invisible, and flips no label.

    Args:
        one: An affine.
        other: Another affine.
        shape: Extents of the array.
        tolerance: Distance in units of the smallest voxel edge of ``one``.
    """
    extents = [(0, max(extent - 1, 0)) for extent in shape[:3]]
    corners = np.array([(x, y, z, 1.0) for x in extents[0] for y in extents[1] for z in extents[2]])
    distance = np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max()
    smallest = np.sqrt((one[:3, :3] ** 2).sum(axis=0)).min()
    return bool(distance <= tolerance * smallest)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn the errors of a reader into a `DataError`, one line that names the file."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(path, f"is truncated or corrupt ({_one_line(error)})") from error
    except OSError as error:
        raise DataError(path, f"{error.strerror or _one_line(error)}") from error
    except (
        ValueError,
        OverflowError,
        MemoryError,
        ImageFileError,
        HeaderDataError,
        WrapStructError,
    ) as error:
        raise DataError(path, f"{_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _checked(path: str | Path) -> Path:
    path = Path(path)
    if not path.name.endswith(ENDINGS):
        raise DataError(path, f"must have a name that ends in {' or '.join(ENDINGS)}")
    return path


def _image_class(stream: IO[bytes] | gzip.GzipFile) -> Any:
    """Tell NIfTI-1 from NIfTI-2 by the size of the header, which is the first number of either."""
    import nibabel as nib

    start = stream.read(4)
    stream.seek(0)
    if not start:
        raise ValueError("is empty")
    sizes = {int.from_bytes(start, "little"), int.from_bytes(start, "big")}
    if len(start) == 4 and 348 in sizes:
        return nib.Nifti1Image
    if len(start) == 4 and 540 in sizes:
        return nib.Nifti2Image
    raise ValueError("is not a NIfTI image")


def _voxels(proxy: Any) -> NDArray[Any]:
    dtype = np.dtype(proxy.dtype)
    if dtype.kind not in "iuf":
        raise ValueError(f"must hold real numbers, got voxels of type {dtype}")
    if (proxy.slope, proxy.inter) != (1.0, 0.0):
        return np.asarray(proxy, dtype=np.float32)
    native = dtype.newbyteorder("=") if dtype.itemsize <= 8 else np.dtype(np.float64)
    voxels: NDArray[Any] = np.asanyarray(proxy.get_unscaled()).astype(native, copy=False)
    return voxels


def _encode(array: NDArray[Any], dtype: str, path: Path) -> tuple[NDArray[Any], float, float]:
    """Return voxels as they are stored, with the slope and intercept that decode them."""
    if dtype in ("float32", "float64"):
        return array.astype(dtype, copy=False), 1.0, 0.0
    if array.dtype.kind in "iub":
        stored = _label_dtype(array) if dtype == "int" else np.dtype(dtype)
        limits = np.iinfo(stored)
        if array.size and not limits.min <= array.min() <= array.max() <= limits.max:
            raise ValueError(
                f"array must fit {stored} for {path}, got values in [{array.min()}, {array.max()}]"
            )
        return array.astype(stored, copy=False), 1.0, 0.0
    if dtype == "int":
        raise ValueError(f"array must hold integers for dtype 'int' of {path}, got {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(
            f"array must be finite for dtype {dtype!r} of {path}, got NaN or infinity: use float32"
        )
    steps = _SCALED[dtype]
    low = min(float(array.min(initial=0.0)), 0.0)
    slope = float(np.float32((float(array.max(initial=0.0)) - low) / steps)) or 1.0
    low = float(np.float32(low))
    codes = np.rint((array - low) / slope)
    return np.clip(codes, 0, steps).astype(dtype), slope, low


def _label_dtype(array: NDArray[Any]) -> np.dtype[Any]:
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    candidates = (np.dtype(np.uint8), np.dtype(np.int16), np.dtype(np.int32))
    for candidate in candidates:
        if np.iinfo(candidate).min <= low and high <= np.iinfo(candidate).max:
            return candidate
    return candidates[-1]
