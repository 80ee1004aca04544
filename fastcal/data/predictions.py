"""Folders of probability maps: output of nnU-Net's ``--save_probabilities``, 4-D NIfTI, or .npy.

One case is in memory at a time, and an uncompressed file is mapped rather than read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastcal.core.arrays import Floats
from fastcal.core.atomic import atomic_path
from fastcal.core.doors import ZipWriter, check_claim, npy_header, open_npz, read_npy
from fastcal.core.doors.bounds import array_bytes
from fastcal.core.errors import DataError
from fastcal.data import description as dataset_json
from fastcal.data import images, listing, nifti, properties
from fastcal.data.description import Description
from fastcal.data.orientation import Turn

KEYS = ("probabilities", "softmax")
"""Names of the array in an npz of nnU-Net version 2 and version 1."""


@dataclass(frozen=True, eq=False)
class Probabilities:
    """What one member predicts for one case."""

    data: NDArray[Any]
    """Real numbers ``[C, X, Y, Z]``, a view of the stored array in nibabel's order."""
    affine: Floats | None
    """Voxel to RAS mm; None without a NIfTI file or a pkl that tells."""
    like: nifti.Geometry | None
    """The geometry that output files take."""
    activation: str | None
    """``"softmax"``, ``"sigmoid"`` where channels need not sum to one; None where nothing says."""
    label_groups: tuple[dataset_json.LabelGroup, ...] | None
    """The label values of each channel, where these are label groups: a multilabel problem."""
    source: Path
    """The file that the numbers came from."""


class PredictionFolder:
    """The predictions of one member, with one file per case.

    ``CASE.npz`` (nnU-Net, with the key ``probabilities``, or ``softmax`` in version 1) and
    ``CASE.npy`` hold (C, Z, Y, X). ``CASE.nii.gz`` or ``CASE.nii`` with four axes holds
    (X, Y, Z, C). The geometry comes from ``CASE.nii.gz`` and from ``CASE.pkl``, which is parsed and
    never executed. Where readers of nnU-Net have turned the image, the pkl says how, and the array
    is turned back; where pkl and NIfTI file contradict each other, the case is refused.

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
        cannot be opened counts as one, so that reading it reports what is wrong; so does an npz
        with other contents that stands beside the pkl or the label map of its case.
        """
        found = {path.name[: -len(".npy")] for path in self._files(".npy")}
        found |= {
            path.name[: -len(".npz")]
            for path in self._files(".npz")
            if _may_hold(path) or self._is_of_case(path)
        }
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
        self._check_once(case)
        for ending in (".npz", ".npy", *nifti.ENDINGS):
            path = self.path / f"{case}{ending}"
            if _is_there(path):
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

    def files(self, case: str) -> list[Path]:
        """Return every file that `probabilities` may read for a case, whether it exists or not."""
        return [self.path / f"{case}{end}" for end in (".npz", ".npy", ".pkl", *images.ENDINGS)]

    def _files(self, ending: str) -> list[Path]:
        # What is no regular file, such as a FIFO or a folder, is refused by name when it is read.
        return list(listing.entries(self.path, ending))

    def _is_of_case(self, npz: Path) -> bool:
        stem = npz.name.removesuffix(".npz")
        return any(_is_there(self.path / f"{stem}{end}") for end in (".pkl", *images.ENDINGS))

    def _check_once(self, case: str) -> None:
        """Refuse a case that has two files of probabilities."""
        stored = [self.path / f"{case}{ending}" for ending in (".npz", ".npy")]
        found = [path for path in stored if _is_there(path)]
        stacks = [self.path / f"{case}{ending}" for ending in nifti.ENDINGS]
        found += [path for path in stacks if path.is_file() and _is_readable_stack(path)]
        if len(found) > 1:
            found = [path for path in found if path.suffix != ".npz" or _may_hold(path)]
        if len(found) > 1:
            raise listing.twice(found[1], found[0], f"file of probabilities of case {case}")

    def _from_nifti(self, path: Path) -> Probabilities:
        volume = nifti.read(path)
        data = volume.data if volume.data.ndim == 4 else volume.data[..., None]
        _check_real(path, data)
        return self._result(np.moveaxis(data, -1, 0), volume.grid, None, path)

    def _from_numpy(self, case: str, path: Path) -> Probabilities:
        pickled = self.path / f"{case}.pkl"
        saved = properties.read(pickled) if _is_there(pickled) else None
        beside = [self.path / f"{case}{ending}" for ending in images.ENDINGS]
        image = next(filter(_is_there, beside), None)
        like = None if image is None else images.geometry(image)
        crop = None if saved is None or saved.full_shape is None else saved.crop

        def fits(shape: tuple[int, ...]) -> None:
            if len(shape) != 4:
                raise DataError(path, f"must have shape (classes, Z, Y, X), got {shape}")
            if crop is not None:
                _check_box(path, shape[1:], crop)
                return
            if saved is not None:
                saved.check_extents(pickled, shape[1:])
            # Readers of nnU-Net turn images, which moves extents.
            if like is not None and image is not None and sorted(shape[1:]) != sorted(like.shape):
                raise _other_extents(path, image, like, shape[:0:-1])

        if path.suffix == ".npz":
            stored, activation = _read_npz(path, fits)
        else:
            stored, activation = read_npy(path), None
            fits(stored.shape)
        _check_real(path, stored)
        stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
        if saved is not None and saved.crop is not None and saved.full_shape is not None:
            stored = _uncropped(path, stored, saved.crop, saved.full_shape, self._has_background)
        data, affine = stored.transpose(0, 3, 2, 1), None
        if saved is not None:
            data, affine = saved.image(pickled, data)
        if like is not None and image is not None:
            data = _onto(like, image, data, affine, path)
        elif affine is not None:
            like = nifti.Geometry.from_affine(affine, data.shape[1:])
        return self._result(data, like, activation, path)

    @property
    def _has_background(self) -> bool:
        return self.description is None or self.description.label_groups is None

    def _result(
        self, data: NDArray[Any], like: nifti.Geometry | None, activation: str | None, path: Path
    ) -> Probabilities:
        affine = None if like is None else like.affine
        found = Probabilities(data, affine, like, activation, None, path)
        if self.description is None:
            return found
        groups = self.description.label_groups
        if groups is not None:
            return replace(found, activation="sigmoid", label_groups=groups)
        return replace(found, activation=activation or "softmax")


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
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        writer = ZipWriter(file)
        with writer.member("probabilities.npy") as member:
            member.write(npy_header(stored.shape, stored.dtype))
            for planes in stored:
                for plane in planes:
                    member.write(np.ascontiguousarray(plane))
        if activation != "softmax":
            named = np.array(activation)
            with writer.member("activation.npy") as member:
                member.write(npy_header((), named.dtype) + named.tobytes())
        writer.end()


def as_tensor(found: Probabilities) -> torch.Tensor:
    """Return probabilities ``[C, X, Y, Z]`` as a tensor, which shares their memory if possible."""
    data = found.data
    if any(stride < 0 for stride in data.strides):
        data = data.copy(order="K")
    return torch.from_numpy(data.astype(data.dtype.newbyteorder("="), copy=False))


def _is_there(path: Path) -> bool:
    """Whether something has this name; what is no regular file is refused when it is read."""
    return path.exists() or path.is_symlink()


def _may_hold(path: Path) -> bool:
    """Whether an npz holds probabilities, or cannot be opened."""
    try:
        with open_npz(path) as arrays:
            return any(key in arrays.names for key in KEYS)
    except DataError:
        return True


def _is_readable_stack(path: Path) -> bool:
    """Whether a NIfTI file that can be opened has a class axis."""
    try:
        nifti.geometry(path)
    except DataError:
        return False
    return _is_stack(path)


def _is_stack(path: Path) -> bool:
    """Whether a NIfTI file has a class axis, or cannot be opened.

    (X, Y, Z, 1) is how some tools save label maps. It is the probability of one class where it
    holds fractions, for which the voxels of such a file, if they are real numbers, are read.
    """
    try:
        found = nifti.geometry(path)
        if found.channels > 1 or found.header["dim"][0] < 4:
            return found.channels > 1
        if np.dtype(found.header.get_data_dtype()).kind != "f":
            return False
        voxels = nifti.read(path).data
    except DataError:
        return True
    return bool((voxels % 1 != 0).any())


def _read_npz(
    path: Path, fits: Callable[[tuple[int, ...]], None]
) -> tuple[NDArray[Any], str | None]:
    """Read the array, mapped where it is stored uncompressed, and the activation recorded."""
    with open_npz(path) as arrays:
        keys = [key for key in KEYS if key in arrays.names]
        if len(keys) != 1:
            found = " and ".join(keys) or "none of them"
            raise DataError(path, f"must have one array named {' or '.join(KEYS)}, got {found}")
        key = keys[0]
        activation = arrays.text("activation") if "activation" in arrays.names else None
        return arrays.array(key, mapped=True, fits=fits), activation


def _check_real(path: Path, data: NDArray[Any]) -> None:
    if data.dtype.kind != "f" or data.dtype.itemsize > 8:
        raise DataError(path, f"must hold float16, float32 or float64 numbers, got {data.dtype}")


def _check_box(path: Path, extents: tuple[int, ...], crop: tuple[slice, slice, slice]) -> None:
    box = tuple(part.stop - part.start for part in crop)
    if extents != box:
        raise DataError(path, f"has shape {extents}, which does not fit the box {box} of its pkl")


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
    try:
        check_claim(array_bytes((len(stored), *full_shape), stored.itemsize), what="the image")
    except ValueError as error:
        raise DataError(path.with_suffix(".pkl"), str(error)) from error
    full = np.zeros((stored.shape[0], *full_shape), stored.dtype)
    if has_background:
        full[0] = 1
    full[(slice(None), *crop)] = stored
    return full


def _other_extents(
    path: Path, image: Path, like: nifti.Geometry, extents: tuple[int, ...]
) -> DataError:
    return DataError(path, f"must have the (X, Y, Z) of {image.name}, {like.shape}, got {extents}")


def _onto(
    like: nifti.Geometry, image: Path, data: NDArray[Any], affine: Floats | None, path: Path
) -> NDArray[Any]:
    """Bring ``[C, X, Y, Z]`` to the axes of the NIfTI file beside it, as far as the pkl tells."""
    if affine is not None and like.stated:
        shape = data.shape[1:]
        if like.agrees(nifti.Geometry(shape, affine, None)):
            return data
        turn = Turn.to_axes_of(affine, like.affine)
        if like.agrees(nifti.Geometry(turn.shape(shape), turn.affine(affine, shape), None)):
            return turn.array(data)
    if like.shape != data.shape[1:]:
        raise _other_extents(path, image, like, data.shape[1:])
    if affine is not None and like.stated:
        raise DataError(
            path.with_suffix(".pkl"),
            f"puts the array of {path.name} elsewhere than {image.name} lies; without this pkl, "
            f"the array is taken to lie as {image.name} does",
        )
    return data
