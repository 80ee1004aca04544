"""Folders of probability maps: output of nnU-Net's ``--save_probabilities``, 4-D NIfTI, or .npy.

One case is in memory at a time, and an uncompressed file is mapped rather than read.
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
import torch
from numpy.typing import NDArray

from fastcal.core.arrays import Floats
from fastcal.core.atomic import atomic_path
from fastcal.core.errors import DataError
from fastcal.data import description as dataset_json
from fastcal.data import images, nifti, properties
from fastcal.data.description import Description

KEYS = ("probabilities", "softmax")
"""Names of the array in an npz of nnU-Net version 2 and version 1."""

_CHECK_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class Probabilities:
    """What one member predicts for one case."""

    data: NDArray[Any]
    """Real numbers ``[C, X, Y, Z]``, a view of the stored array in nibabel's order."""
    affine: Floats | None
    """Voxel to RAS mm; None without a NIfTI file or a pkl that tells."""
    like: nifti.Geometry | None
    """The geometry that output files take."""
    activation: str
    """``"softmax"``, or ``"sigmoid"`` where channels need not sum to one."""
    label_groups: tuple[dataset_json.LabelGroup, ...] | None
    """The label values of each channel, where these are label groups: a multilabel problem."""
    source: Path
    """The file that the numbers came from."""


class PredictionFolder:
    """The predictions of one member, with one file per case.

    ``CASE.npz`` (nnU-Net, with the key ``probabilities``, or ``softmax`` in version 1) and
    ``CASE.npy`` hold (C, Z, Y, X). ``CASE.nii.gz`` or ``CASE.nii`` with four axes holds
    (X, Y, Z, C). The geometry comes from ``CASE.nii.gz``, or else from ``CASE.pkl``, which is
    parsed and never executed.

    Args:
        path: The folder.
        description: The description of the dataset that the model was trained on, for its label
            groups. By default, it is the ``dataset.json`` in the folder or up to two levels above.

    Raises:
        DataError: There is no such folder, or its ``dataset.json`` is unusable.

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
        """List the names of cases with probabilities, sorted.

        An npz with other contents is not a case, and neither is a NIfTI label map. A file that
        cannot be opened counts as one, so that reading it reports what is wrong.
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
            DataError: The case has no file, or its file is truncated, corrupt, does not hold real
                numbers, or does not fit its image.
        """
        for ending in (".npz", ".npy", *nifti.ENDINGS):
            path = self.path / f"{case}{ending}"
            if path.is_file():
                break
        else:
            raise DataError(self.path, f"has no probabilities of case {case}")
        numpy = ending not in nifti.ENDINGS
        found = self._from_numpy(case, path) if numpy else self._from_nifti(path)
        groups = found.label_groups
        if groups is not None and len(groups) != len(found.data):
            raise DataError(
                path,
                f"must have {len(groups)} channels, one per label group of dataset.json, "
                f"got {len(found.data)}",
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
            raise DataError(path, f"must have shape (X, Y, Z, classes), got {data.shape}")
        _check_real(path, data)
        like = nifti.Geometry(data.shape[:3], volume.affine, volume.header)
        return self._result(np.moveaxis(data, -1, 0), like, "softmax", path)

    def _from_numpy(self, case: str, path: Path) -> Probabilities:
        stored, activation = _read_npz(path) if path.suffix == ".npz" else (_read_npy(path), None)
        if stored.ndim != 4:
            raise DataError(path, f"must have shape (classes, Z, Y, X), got {stored.shape}")
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
        for ending in images.ENDINGS:
            image = self.path / f"{case}{ending}"
            if image.is_file():
                like = images.geometry(image)
                if like.shape[:3] != shape:
                    raise DataError(
                        path,
                        f"must have the (X, Y, Z) of {image.name}, {like.shape[:3]}, got {shape}",
                    )
                break
        if like is None and saved is not None and saved.affine is not None:
            like = nifti.Geometry.from_affine(saved.affine, shape)
        return self._result(data, like, activation or "softmax", path)

    @property
    def _has_background(self) -> bool:
        return self.description is None or self.description.label_groups is None

    def _result(
        self, data: NDArray[Any], like: nifti.Geometry | None, activation: str, path: Path
    ) -> Probabilities:
        affine = None if like is None else like.affine
        found = Probabilities(data, affine, like, activation, None, path)
        if self.description is not None and self.description.label_groups is not None:
            return replace(found, activation="sigmoid", label_groups=self.description.label_groups)
        return found


def write_npz(
    path: str | Path, probabilities: NDArray[Any], *, activation: str = "softmax"
) -> None:
    """Write nnU-Net's npz, whole or not at all.

    Args:
        path: The file.
        probabilities: ``[C, X, Y, Z]``, stored as (C, Z, Y, X) under ``probabilities``.
        activation: ``"softmax"``, or ``"sigmoid"``, which is recorded in the file, because nnU-Net
            has no place for it.

    Raises:
        ValueError: There are not four axes, or the activation is unknown.
        OSError: The disk reports an error, for example that it is full.

    Example:
        >>> write_npz("predicted/heart_000.npz", probabilities)  # doctest: +SKIP
    """
    path = Path(path)
    if probabilities.ndim != 4:
        raise ValueError(f"probabilities must have shape [C, X, Y, Z], got {probabilities.shape}")
    if activation not in ("softmax", "sigmoid"):
        raise ValueError(f"activation must be 'softmax' or 'sigmoid', got {activation!r}")
    stored = probabilities.transpose(0, 3, 2, 1)
    with atomic_path(path) as temporary:
        if activation == "softmax":
            np.savez_compressed(temporary, probabilities=stored)
        else:
            np.savez_compressed(temporary, probabilities=stored, activation=np.array(activation))


def as_tensor(found: Probabilities) -> torch.Tensor:
    """Return probabilities ``[C, X, Y, Z]`` as a tensor, which shares their memory if possible."""
    data = found.data
    if any(stride < 0 for stride in data.strides):
        data = data.copy(order="K")
    return torch.from_numpy(data.astype(data.dtype.newbyteorder("="), copy=False))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, MemoryError) as error:
        raise DataError(path, f"is truncated or corrupt ({error})") from error
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error


def _may_hold(path: Path) -> bool:
    """Whether an npz holds probabilities, or cannot be opened."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return True
    return any(f"{key}.npy" in names for key in KEYS)


def _is_stack(path: Path) -> bool:
    """Whether a NIfTI file has a class axis, or cannot be opened."""
    try:
        shape = nifti.geometry(path).shape
    except DataError:
        return True
    return len(shape) > 3


def _read_npy(path: Path) -> NDArray[Any]:
    with _naming(path):
        mapped: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
        return mapped


def _read_npz(path: Path) -> tuple[NDArray[Any], str | None]:
    """Read the array, mapped where it is stored uncompressed, and the activation recorded."""
    with _naming(path), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        member = next((f"{key}.npy" for key in KEYS if f"{key}.npy" in names), None)
        if member is None:
            raise DataError(path, f"has no array named {' or '.join(KEYS)}")
        activation = None
        if "activation.npy" in names:
            with archive.open("activation.npy") as stream:
                activation = str(np.lib.format.read_array(stream, allow_pickle=False))
        info = archive.getinfo(member)
        with archive.open(info) as stream:
            if info.compress_type == zipfile.ZIP_STORED:
                # Verify the checksum. This reads the pages once and leaves them in the cache.
                while stream.read(_CHECK_BYTES):
                    pass
                return _map_member(path, info), activation
            array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
            if stream.read(1):
                raise ValueError("more bytes than its header says")
            return array, activation


def _map_member(path: Path, info: zipfile.ZipInfo) -> NDArray[Any]:
    with path.open("rb") as stream:
        stream.seek(info.header_offset + 26)
        name, extra = (int.from_bytes(stream.read(2), "little") for _ in range(2))
        start = stream.seek(name + extra, 1)
        shape, fortran, dtype = _npy_header(stream)
        offset = stream.tell()
    if dtype.hasobject:
        raise ValueError("an array of objects")
    if offset - start + math.prod(shape) * dtype.itemsize != info.file_size:
        raise ValueError(f"{info.file_size} bytes do not hold an array of shape {shape}")
    return np.memmap(path, dtype, "c", offset, shape, "F" if fortran else "C")


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


def _check_real(path: Path, data: NDArray[Any]) -> None:
    if data.dtype.kind != "f" or data.dtype.itemsize > 8:
        raise DataError(path, f"must hold float16, float32 or float64 numbers, got {data.dtype}")


def _uncropped(
    path: Path,
    stored: NDArray[Any],
    crop: tuple[slice, slice, slice],
    full_shape: tuple[int, int, int],
    has_background: bool,
) -> NDArray[Any]:
    """Put a box of version 1 back into its image, with background around it, as v1 exports it."""
    if stored.shape[1:] == full_shape:
        return stored
    box = tuple(slice(s.start, s.start + n) for s, n in zip(crop, stored.shape[1:], strict=True))
    if any(s.stop > extent for s, extent in zip(box, full_shape, strict=True)):
        raise DataError(
            path, f"has shape {stored.shape[1:]}, which does not fit its image {full_shape}"
        )
    full = np.zeros((stored.shape[0], *full_shape), stored.dtype)
    if has_background:
        full[0] = 1
    full[(slice(None), *box)] = stored
    return full


def _as_stored_image(data: NDArray[Any], affine: Floats) -> NDArray[Any]:
    """Turn ``[C, X, Y, Z]`` from RAS, where nnU-Net's reader put it, to the axes of the file.

    It is copied where an axis is flipped, because torch has no negative strides.
    """
    from nibabel import orientations

    module: Any = orientations
    turn = module.ornt_transform(module.axcodes2ornt("RAS"), module.io_orientation(affine))
    order = np.argsort(turn[:, 0])
    flips = [slice(None, None, int(flip)) for flip in turn[:, 1]]
    turned = data[(slice(None), *flips)].transpose(0, *(int(axis) + 1 for axis in order))
    return np.ascontiguousarray(turned) if min(turned.strides) < 0 else turned
