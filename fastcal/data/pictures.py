"""PNG, BMP and TIFF images as nnU-Net reads them: pictures of one slice, and stacks of slices.

The formats are those of nnU-Net's ``NaturalImage2DIO`` and ``Tiff3DIO`` (``nnunetv2/imageio``). A
picture of Y rows and X columns is ``[X, Y, 1]``, in colour ``[X, Y, 1, C]``; a TIFF of Z pages is
``[X, Y, Z]``. There is no orientation: the axes are those of the world.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from fastcal.core import atomic
from fastcal.core.doors import check_claim, check_expansion, one_error, open_regular, read_json
from fastcal.core.doors.bounds import array_bytes
from fastcal.core.errors import DataError
from fastcal.data.nifti import Geometry, Volume
from fastcal.data.voxel_types import unscaled

PICTURE_ENDINGS = (".png", ".bmp")
TIFF_ENDINGS = (".tif", ".tiff")

_INTEGERS = ("uint8", "uint16")
_MODES = {"1": 1, "L": 1, "I": 4, "I;16": 2, "I;16B": 2, "RGB": 3, "RGBA": 4}
"""Bytes of a pixel by Pillow's name of its type; others have no place in NaturalImage2DIO."""

_Step = Annotated[float, Field(gt=0, lt=1e6)]


class _Spacing(BaseModel):
    """The file of a stack's spacing, one number per axis of the stored array."""

    spacing: tuple[_Step, _Step, _Step]


_CHANNEL = re.compile(r"_\d{4}$")


def read_picture(path: str | Path) -> Volume:
    """Read a ``.png`` or ``.bmp`` picture: ``[X, Y, 1]``, or ``[X, Y, 1, C]`` in colour.

    Pixels are 1 mm apart, for these files do not say what a pixel is.

    Raises:
        DataError: The file is missing, truncated, corrupt, or neither grey nor RGB nor RGBA.
        ImportError: Pillow is missing.
    """
    with _picture(Path(path)) as (image, like):
        data = np.asarray(image)
        data = data.astype(np.uint8) if data.dtype == bool else data
    return _volume(like, np.swapaxes(data, 0, 1)[:, :, None])


def picture_geometry(path: str | Path) -> Geometry:
    """Read only the header of a picture.

    Raises:
        DataError: See `read_picture`; pixels are not checked.
        ImportError: Pillow is missing.
    """
    with _picture(Path(path)) as (_, like):
        return like


def write_picture(
    path: str | Path, array: NDArray[Any], like: Geometry, *, dtype: str = "int"
) -> None:
    """Write labels ``[X, Y, 1]`` as a grey picture of 8 or 16 bits, whole or not at all.

    Args:
        path: A name that ends in ``.png``, or ``.bmp``, which has 8 bits.
        array: The labels.
        like: Where they lie; the file does not keep it.
        dtype: ``"int"``, ``"uint8"`` or ``"uint16"``.

    Raises:
        ImportError: Pillow is missing.
        ValueError: There is more than one slice, or a value that the format does not hold.
        OSError: The disk reports an error.
    """
    path = Path(path)
    slices = _spatial(path, array, like)
    if slices.shape[2] != 1:
        raise ValueError(f"array must have one slice for {path}, got {slices.shape[2]}")
    integers = _INTEGERS[:1] if path.suffix == ".bmp" else _INTEGERS
    pixels = unscaled(slices[:, :, 0].T, dtype, path, integers, reals=False)
    image = _pillow(path).fromarray(np.ascontiguousarray(pixels))
    with atomic.atomic_path(path) as temporary:
        image.save(temporary)


def read_tiff(path: str | Path) -> Volume:
    """Read a ``.tif`` or ``.tiff``: a picture as `read_picture` does, or ``[X, Y, Z]`` of pages.

    The spacing of a stack comes from ``CASE.json`` beside it, ``{"spacing": [z, y, x]}``, as in
    nnU-Net; without that file it is 1 mm.

    Raises:
        DataError: The file is missing, truncated, corrupt, or has axes beyond these.
        ImportError: tifffile is missing.
    """
    path = Path(path)
    with _tiff(path) as tiff:
        like, colour = _tiff_geometry(path, tiff)
        data = np.asarray(tiff.asarray())
    if colour:
        return _volume(like, np.swapaxes(data, 0, 1)[:, :, None])
    return _volume(like, data.transpose().reshape(like.shape))


def tiff_geometry(path: str | Path) -> Geometry:
    """Read only the header of a TIFF.

    Raises:
        DataError: See `read_tiff`; pixels are not checked.
        ImportError: tifffile is missing.
    """
    path = Path(path)
    with _tiff(path) as tiff:
        return _tiff_geometry(path, tiff)[0]


def parts(path: Path) -> tuple[Path, ...]:
    """Return a TIFF and, where there is one, the file of its spacing."""
    file = _spacing_file(path)
    return (path,) if file is None else (path, file)


def write_tiff(
    path: str | Path, array: NDArray[Any], like: Geometry, *, dtype: str = "int"
) -> None:
    """Write labels ``[X, Y, Z]`` as a TIFF; the spacing of a stack goes into ``CASE.json``.

    Args:
        path: A name that ends in ``.tif`` or ``.tiff``.
        array: The labels.
        like: Where they lie; the files keep the spacing alone.
        dtype: ``"int"``, ``"uint8"`` or ``"uint16"``.

    Raises:
        ImportError: tifffile is missing.
        ValueError: A value is below 0 or above 65535.
        OSError: The disk reports an error.
    """
    path = Path(path)
    slices = _spatial(path, array, like)
    pages = unscaled(slices.transpose(2, 1, 0), dtype, path, _INTEGERS, reals=False)
    if len(pages) == 1:
        pages = pages[0]
    else:
        atomic.write_json(path.with_suffix(".json"), {"spacing": list(like.spacing[::-1])})
    with atomic.atomic_path(path) as temporary:
        _tifffile(path).imwrite(
            temporary, np.ascontiguousarray(pages), compression="zlib", photometric="minisblack"
        )


def _spatial(path: Path, array: NDArray[Any], like: Geometry) -> NDArray[Any]:
    shape = (*like.shape, 1, 1)[:3]
    if tuple(array.shape) != shape:
        raise ValueError(
            f"array must have the shape of its image, {shape}, for {path}, got {array.shape}"
        )
    return array


def _volume(like: Geometry, data: NDArray[Any]) -> Volume:
    return Volume(like.shape, like.affine, like.header, data, channels=like.channels, stated=False)


@contextmanager
def _picture(path: Path) -> Iterator[tuple[Any, Geometry]]:
    """Open a picture whose claims have been checked, with its geometry."""
    pillow = _pillow(path)
    with (
        open_regular(path) as file,
        one_error(path, "a picture"),
        pillow.open(file.stream, formats=("PNG", "BMP")) as image,
    ):
        mode = "RGB" if image.mode == "P" else image.mode
        if mode not in _MODES:
            raise DataError(path, f"must be grey, RGB or RGBA, got {mode}")
        columns, rows = image.size
        check_claim(array_bytes((rows, columns), _MODES[mode]), what="the pixels")
        check_expansion(rows * columns // 8, file.size, what="the pixels")
        channels = (len(mode),) if mode in ("RGB", "RGBA") else ()
        like = _unplaced((1.0, 1.0, 1.0), (columns, rows, 1, *channels))
        # Colours of a palette, as nnU-Net reads them: their numbers have no meaning.
        yield (image.convert("RGB") if image.mode == "P" else image), like


@contextmanager
def _tiff(path: Path) -> Iterator[Any]:
    """Open a TIFF file."""
    tifffile = _tifffile(path)
    with (
        open_regular(path) as file,
        one_error(path, "a TIFF image"),
        tifffile.TiffFile(file.stream, name=path.name) as tiff,
    ):
        yield tiff


def _tiff_geometry(path: Path, tiff: Any) -> tuple[Geometry, bool]:
    """Geometry of the only series, and whether it is one picture in colour."""
    if len(tiff.series) != 1:
        raise DataError(
            path, f"must hold one picture or stack, got {len(tiff.series)} of different kinds"
        )
    first = tiff.series[0]
    shape, dtype = tuple(int(extent) for extent in first.shape), np.dtype(first.dtype)
    if dtype.kind not in "iuf":
        raise DataError(path, f"must hold real numbers, got {dtype}")
    check_claim(array_bytes(shape, dtype.itemsize), what="the pixels")
    if "S" in first.axes[:-1]:
        raise DataError(path, f"must have its colours last, got axes {first.axes} of {shape}")
    page = tiff.pages[0]
    if len(shape) == 3 and page.samplesperpixel in (3, 4) and shape[2] == page.samplesperpixel:
        rows, columns, channels = shape
        return _unplaced((1.0, 1.0, 1.0), (columns, rows, 1, channels)), True
    if len(shape) not in (2, 3):
        raise DataError(path, f"must be one picture or a stack of grey slices, got {shape}")
    extents = (*shape[::-1], 1)[:3]
    spacing = _spacing(path) if len(shape) == 3 else (1.0, 1.0, 1.0)
    return _unplaced(spacing, extents), False


def _unplaced(spacing: tuple[float, float, float], shape: tuple[int, ...]) -> Geometry:
    """The geometry of a file that knows the size of its voxels, and no place in the world."""
    return Geometry.from_affine(np.diag([*spacing, 1.0]), shape, stated=False)


def _spacing(path: Path) -> tuple[float, float, float]:
    """Spacing (x, y, z) of a stack, by the JSON file that nnU-Net keeps beside it."""
    file = _spacing_file(path)
    if file is None:
        return 1.0, 1.0, 1.0
    z, y, x = read_json(file, _Spacing).spacing
    return x, y, z


def _spacing_file(path: Path) -> Path | None:
    stems = dict.fromkeys((_CHANNEL.sub("", path.stem), path.stem))
    files = (path.with_name(f"{stem}.json") for stem in stems)
    return next((file for file in files if file.is_file()), None)


def _pillow(path: Path) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(f"{path}: needs Pillow: pip install 'fastcal[pictures]'") from error
    return Image


def _tifffile(path: Path) -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise ImportError(f"{path}: needs tifffile: pip install 'fastcal[pictures]'") from error
    # Readers are silent; what is wrong with a file is in the error.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    return tifffile
