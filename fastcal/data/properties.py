"""Geometry from nnU-Net's ``CASE.pkl``, which is read without executing any of it.

A pickle is a program, and ``pickle.load`` calls whatever it names. Here, every name that it may use
is mapped to an inert stand-in, NumPy's names included (whose unpickling hooks trust the sizes and
types they are given). Any other name is refused.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcal.core.arrays import Floats
from fastcal.core.errors import DataError

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_PLAIN_NUMBER = re.compile(r"[?biuf]\d*")


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
    content = _load(path)
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


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as stream:
            return _PlainUnpickler(stream).load()
    except _Refused as refused:
        raise DataError(path, f"asks for {refused}, which plain data do not need") from None
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    except OSError as error:
        raise DataError(path, error.strerror or "is unreadable") from error
    except Exception as error:
        # A malformed pickle may fail in any instruction of the machine, with any exception.
        raise DataError(path, f"is truncated or corrupt ({error})") from error


class _Refused(Exception):
    pass


class _PlainUnpickler(pickle.Unpickler):
    """Knows containers, and stand-ins for NumPy's numbers.

    A stand-in is a bound method and a container is a built-in type. A pickle can set attributes on
    any other object that it gets, but not on these.
    """

    def find_class(self, module: str, name: str) -> Any:
        known = (module.replace("numpy._core", "numpy.core"), name)
        if known in _CONTAINERS:
            return _CONTAINERS[known]
        if known in _STAND_INS:
            return getattr(self, _STAND_INS[known])
        raise _Refused(f"{module}.{name}")

    def _dtype(self, code: object, *_: object) -> _Dtype:
        return _Dtype(code)

    def _array(self, *_: object) -> _Array:
        return _Array()

    def _frombuffer(self, raw: Any, dtype: Any, shape: Any, order: Any) -> _Array:
        array = _Array()
        array.fill(raw, dtype, shape, order)
        return array

    def _scalar(self, dtype: Any, raw: Any = b"") -> Any:
        array = _Array()
        array.fill(raw, dtype, (), "C")
        return None if array.values is None else array.values.item()

    def _encode(self, text: str, encoding: str = "latin1") -> bytes:
        """Encode text: protocol 2 writes bytes as text to be encoded."""
        if encoding != "latin1":
            raise _Refused(f"the codec {encoding}")
        return text.encode("latin1")


class _Dtype:
    """Stands for ``numpy.dtype``."""

    def __init__(self, code: object) -> None:
        self.code = str(code)
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    @property
    def plain(self) -> np.dtype[Any] | None:
        """The type if it is real, integer or bool; None for objects, strings and records."""
        if not _PLAIN_NUMBER.fullmatch(self.code):
            return None
        return np.dtype(self.code).newbyteorder(self.order)  # type: ignore[arg-type]


class _Array:
    """Stands for ``numpy.ndarray``; holds plain numbers, or nothing."""

    def __init__(self) -> None:
        self.values: NDArray[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.fill(raw, dtype, shape, "F" if fortran else "C")

    def fill(self, raw: Any, dtype: Any, shape: Any, order: Any) -> None:
        plain = dtype.plain if isinstance(dtype, _Dtype) else None
        if plain is not None and isinstance(raw, bytes | bytearray):
            self.values = np.frombuffer(raw, plain).reshape(shape, order=order)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        del copy
        if self.values is None:
            raise ValueError("an array that does not hold plain numbers")
        return self.values.astype(dtype or self.values.dtype)

    def __iter__(self) -> Any:
        return iter(self.__array__())

    def __len__(self) -> int:
        return len(self.__array__())


_CONTAINERS: dict[tuple[str, str], type] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "list"): list,
    ("builtins", "dict"): dict,
    ("builtins", "tuple"): tuple,
    ("__builtin__", "set"): set,
    ("__builtin__", "frozenset"): frozenset,
}
_STAND_INS = {
    ("_codecs", "encode"): "_encode",
    ("numpy", "dtype"): "_dtype",
    ("numpy", "ndarray"): "_array",
    ("numpy.core.multiarray", "_reconstruct"): "_array",
    ("numpy.core.multiarray", "scalar"): "_scalar",
    ("numpy.core.numeric", "_frombuffer"): "_frombuffer",
}
