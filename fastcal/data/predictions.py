"""Folders of probability maps: nnU-Net's ``--save_probabilities`` output, 4-D NIfTI, or .npy.

One case is in memory at a time, and an uncompressed one is mapped rather than read.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch

from fastcal.core.atomic import atomic_path
from fastcal.core.errors import DataError
from fastcal.data import description as dataset_json
from fastcal.data import nifti, properties
from fastcal.data.description import Description

Array = npt.NDArray[Any]

KEYS = ("probabilities", "softmax")
"""Name of the array in an npz: nnU-Net version 2, version 1."""

_CHECK_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class Probabilities:
    """What one member says about one case."""

    data: Array
    """Real numbers [C, X, Y, Z]: a view in nibabel's order of what is stored."""
    affine: npt.NDArray[np.float64] | None
    """Voxel to RAS mm, or None where neither a NIfTI file nor a pkl tells."""
    like: nifti.Geometry | None
    """The geometry that output files take."""
    activation: str
    """``"softmax"``, or ``"sigmoid"`` where channels need not sum to one."""
    label_groups: tuple[dataset_json.LabelGroup, ...] | None
    """The label values of each channel of a region-based model: a multilabel problem."""
    source: Path
    """The file the numbers came from."""


class PredictionFolder:
    """One member's predictions, a case a file.

    ``CASE.npz`` (nnU-Net; key ``probabilities``, or ``softmax`` of version 1) and ``CASE.npy``
    hold (C, Z, Y, X); ``CASE.nii.gz`` or ``CASE.nii`` of four axes holds (X, Y, Z, C). Geometry
    comes from ``CASE.nii.gz``, else from ``CASE.pkl``, which is parsed, never executed.

    Args:
        path: the folder.
        description: of the dataset that the model was trained on, for regions; by default the
            ``dataset.json`` in the folder, or up to two levels above it.

    Raises:
        DataError: there is no such folder, or its ``dataset.json`` is unusable.

    Example:
        >>> folder = PredictionFolder("fold_0/validation")  # doctest: +SKIP
        >>> folder.probabilities(folder.cases()[0]).data.shape  # doctest: +SKIP
        (4, 240, 240, 155)
    """

    def __init__(self, path: str | Path, *, description: Description | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise DataError(self.path, "no such folder")
        self.description = description
        if description is None and (found := dataset_json.find(self.path)) is not None:
            self.description = dataset_json.read(found)

    def cases(self) -> list[str]:
        """Names of the cases that have probabilities, sorted.

        An npz of something else and a NIfTI label map are no cases; a file that cannot be opened
        is one, so that reading it says what is wrong.
        """
        found = {path.name[: -len(".npy")] for path in self._files(".npy")}
        found |= {p.name[: -len(".npz")] for p in self._files(".npz") if _may_hold(p)}
        for ending in nifti.ENDINGS:
            for path in self._files(ending):
                case = path.name.removesuffix(ending)
                if case not in found and _is_stack(path):
                    found.add(case)
        return sorted(found)

    def probabilities(self, case: str) -> Probabilities:
        """Read one case.

        Raises:
            DataError: the case has no file, or its file is truncated, corrupt, not of real
                numbers, or does not fit its image.
        """
        for ending in (".npz", ".npy", *nifti.ENDINGS):
            path = self.path / f"{case}{ending}"
            if path.is_file():
                break
        else:
            raise DataError(self.path, f"no probabilities of case {case}")
        numpy = ending not in nifti.ENDINGS
        found = self._from_numpy(case, path) if numpy else self._from_nifti(path)
        groups = found.label_groups
        if groups is not None and len(groups) != len(found.data):
            raise DataError(
                path, f"{len(found.data)} channels, but dataset.json has {len(groups)} regions"
            )
        return found

    def _files(self, ending: str) -> list[Path]:
        return [path for path in self.path.glob(f"[!.]*{ending}") if path.is_file()]

    def _from_nifti(self, path: Path) -> Probabilities:
        volume = nifti.read(path)
        data = volume.data
        if data.ndim == 5 and data.shape[3] == 1:
            data = data[:, :, :, 0]
        if data.ndim != 4:
            raise DataError(path, f"shape {data.shape}, expected (X, Y, Z, classes)")
        _check_real(path, data)
        like = nifti.Geometry(data.shape[:3], volume.affine, volume.header)
        return self._result(np.moveaxis(data, -1, 0), like, "softmax", path)

    def _from_numpy(self, case: str, path: Path) -> Probabilities:
        stored, activation = _read_npz(path) if path.suffix == ".npz" else (_read_npy(path), None)
        if stored.ndim != 4:
            raise DataError(path, f"shape {stored.shape}, expected (classes, Z, Y, X)")
        _check_real(path, stored)
        stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
        pickled = self.path / f"{case}.pkl"
        saved = properties.read(pickled) if pickled.is_file() else None
        if saved is not None and saved.crop is not None and saved.full_shape is not None:
            stored = _uncropped(path, stored, saved.crop, saved.full_shape, self._has_background)
        data = stored.transpose(0, 3, 2, 1)
        if saved is not None and saved.reoriented_affine is not None and saved.affine is not None:
            data = _as_stored_image(data, saved.affine)

        shape = data.shape[1:]
        like: nifti.Geometry | None = None
        for ending in nifti.ENDINGS:
            image = self.path / f"{case}{ending}"
            if image.is_file():
                like = nifti.geometry(image)
                if like.shape[:3] != shape:
                    raise DataError(
                        path, f"(X, Y, Z) is {shape}, but {image.name} has {like.shape[:3]}"
                    )
                break
        if like is None and saved is not None and saved.affine is not None:
            like = nifti.Geometry.from_affine(saved.affine, shape)
        return self._result(data, like, activation or "softmax", path)

    @property
    def _has_background(self) -> bool:
        return self.description is None or self.description.label_groups is None

    def _result(
        self, data: Array, like: nifti.Geometry | None, activation: str, path: Path
    ) -> Probabilities:
        affine = None if like is None else like.affine
        found = Probabilities(data, affine, like, activation, None, path)
        if self.description is not None and self.description.label_groups is not None:
            return replace(found, activation="sigmoid", label_groups=self.description.label_groups)
        return found


def write_npz(path: str | Path, probabilities: Array, *, activation: str = "softmax") -> None:
    """Write nnU-Net's npz, whole or not at all.

    Args:
        probabilities: [C, X, Y, Z], stored as (C, Z, Y, X) under ``probabilities``.
        activation: ``"sigmoid"`` is noted in the file, as nnU-Net has no place for it.

    Raises:
        ValueError: not of four axes, or an unknown activation.
        OSError: the disk's own error, for example that it is full.

    Example:
        >>> write_npz("predicted/heart_000.npz", probabilities)  # doctest: +SKIP
    """
    path = Path(path)
    if probabilities.ndim != 4:
        raise ValueError(f"probabilities: got shape {probabilities.shape}, expected [C, X, Y, Z]")
    if activation not in ("softmax", "sigmoid"):
        raise ValueError(f"activation: got {activation!r}, expected softmax or sigmoid")
    stored = probabilities.transpose(0, 3, 2, 1)
    with atomic_path(path) as temporary:
        if activation == "softmax":
            np.savez_compressed(temporary, probabilities=stored)
        else:
            np.savez_compressed(temporary, probabilities=stored, activation=np.array(activation))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, MemoryError) as error:
        raise DataError(path, f"truncated or corrupt ({error})") from error
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error


def _may_hold(path: Path) -> bool:
    """Whether an npz holds probabilities, or cannot be opened to see."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return True
    return any(f"{key}.npy" in names for key in KEYS)


def _is_stack(path: Path) -> bool:
    """Whether a NIfTI file has a class axis, or cannot be opened to see."""
    try:
        shape = nifti.geometry(path).shape
    except DataError:
        return True
    return len(shape) > 3


def _read_npy(path: Path) -> Array:
    with _naming(path):
        mapped: Array = np.load(path, mmap_mode="c", allow_pickle=False)
        return mapped


def _read_npz(path: Path) -> tuple[Array, str | None]:
    """The array, mapped where the archive stores it uncompressed, and the activation noted."""
    with _naming(path), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        member = next((f"{key}.npy" for key in KEYS if f"{key}.npy" in names), None)
        if member is None:
            raise DataError(path, f"no array named {' or '.join(KEYS)}")
        activation = None
        if "activation.npy" in names:
            with archive.open("activation.npy") as stream:
                activation = str(np.lib.format.read_array(stream, allow_pickle=False))
        info = archive.getinfo(member)
        with archive.open(info) as stream:
            if info.compress_type == zipfile.ZIP_STORED:
                # The checksum costs one read, which leaves the pages in the cache.
                while stream.read(_CHECK_BYTES):
                    pass
                return _map_member(path, info), activation
            array: Array = np.lib.format.read_array(stream, allow_pickle=False)
            if stream.read(1):
                raise ValueError("more bytes than its header says")
            return array, activation


def _map_member(path: Path, info: zipfile.ZipInfo) -> Array:
    with path.open("rb") as stream:
        stream.seek(info.header_offset + 26)
        name, extra = (int.from_bytes(stream.read(2), "little") for _ in range(2))
        start = stream.seek(name + extra, 1)
        shape, fortran, dtype = _npy_header(stream)
        offset = stream.tell()
    if dtype.hasobject:
        raise ValueError("an array of objects")
    if offset - start + math.prod(shape) * dtype.itemsize != info.file_size:
        raise ValueError(f"{info.file_size} bytes are no array of shape {shape}")
    return np.memmap(path, dtype, "c", offset, shape, "F" if fortran else "C")


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


def _check_real(path: Path, data: Array) -> None:
    if data.dtype.kind != "f" or data.dtype.itemsize > 8:
        raise DataError(path, f"numbers of type {data.dtype}, expected float16, 32 or 64")


def _uncropped(
    path: Path,
    stored: Array,
    crop: tuple[slice, slice, slice],
    full_shape: tuple[int, int, int],
    has_background: bool,
) -> Array:
    """Put a version 1 box back in its image; around it all is background, as v1 exports it."""
    if stored.shape[1:] == full_shape:
        return stored
    box = tuple(slice(s.start, s.start + n) for s, n in zip(crop, stored.shape[1:], strict=True))
    if any(s.stop > extent for s, extent in zip(box, full_shape, strict=True)):
        raise DataError(path, f"shape {stored.shape[1:]} does not fit the image {full_shape}")
    full = np.zeros((stored.shape[0], *full_shape), stored.dtype)
    if has_background:
        full[0] = 1
    full[(slice(None), *box)] = stored
    return full


def _as_stored_image(data: Array, affine: npt.NDArray[np.float64]) -> Array:
    """Turn [C, X, Y, Z] from RAS, where nnU-Net's reader put it, back to the axes of the file.

    A copy where an axis turns round: torch has no negative strides.
    """
    from nibabel import orientations

    module: Any = orientations
    turn = module.ornt_transform(module.axcodes2ornt("RAS"), module.io_orientation(affine))
    order = np.argsort(turn[:, 0])
    flips = [slice(None, None, int(flip)) for flip in turn[:, 1]]
    turned = data[(slice(None), *flips)].transpose(0, *(int(axis) + 1 for axis in order))
    return np.ascontiguousarray(turned) if min(turned.strides) < 0 else turned


def as_tensor(found: Probabilities) -> torch.Tensor:
    """Return probabilities ``[C, X, Y, Z]`` as a tensor that shares their memory if it can."""
    data = found.data
    if any(stride < 0 for stride in data.strides):
        data = data.copy(order="K")
    return torch.from_numpy(data.astype(data.dtype.newbyteorder("="), copy=False))
