"""Folders of probability maps: output of nnU-Net's ``--save_probabilities``, 4-D NIfTI, or .npy.

One case is in memory at a time, and an uncompressed file is mapped rather than read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastcal.core.arrays import Floats
from fastcal.core.atomic import atomic_path
from fastcal.core.doors import (
    ZipWriter,
    check_claim,
    npy_header,
    one_error,
    open_npz,
    read_npy,
)
from fastcal.core.doors.bounds import array_bytes
from fastcal.core.errors import DataError
from fastcal.data import description as dataset_json
from fastcal.data import images, listing, nifti, properties
from fastcal.data.coding import Planes, planes_of
from fastcal.data.description import Description
from fastcal.data.orientation import Turn
from fastcal.data.saved_stack import Box, Slabs, View, unread
from fastcal.data.stored import Cut, Stored
from fastcal.data.stored_files import KEYS, key_of, open_stored


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
    put_back: bool = False
    """Whether the file has a box of its image alone, with the probabilities 1 and 0 around it."""


@dataclass(frozen=True)
class Stack(Slabs):
    """What one member predicts for one case, of which nothing but the header was read."""

    about: Probabilities = field(kw_only=True)
    """Everything but the numbers, in whose place there are zeros without memory."""

    def pieces(self, cuts: Sequence[Cut]) -> Iterator[Probabilities]:
        """Give the probabilities of slabs; see `Slabs.read`."""
        for slab in self.read(cuts):
            yield replace(self.about, data=_forwards(slab))
            del slab


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
        multilabel: Whether the channels are label groups, without a background, where the caller
            knows it; None where the description says it. Around the box that version 1 saves, the
            first of exclusive classes has probability 1, and no label group has.

    Raises:
        DataError: There is no such folder, or its ``dataset.json`` is unusable.

    Example:
        >>> folder = PredictionFolder("fold_0/validation")  # doctest: +SKIP
        >>> folder.probabilities(folder.cases()[0]).data.shape  # doctest: +SKIP
        (4, 240, 240, 155)
    """

    def __init__(
        self,
        path: str | Path,
        *,
        description: Description | None = None,
        multilabel: bool | None = None,
    ) -> None:
        self.path = Path(path)
        self._multilabel = multilabel
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
        found |= {path.name[: -len(".zarr")] for path in self.path.glob("*.zarr")}
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
        path = self._path(case)
        if path.suffix == ".zarr":
            stack = self._stack(case, path, in_memory=True)
            cuts = [(0, stack.extent)]
            (found,) = stack.pieces(cuts)
            return found
        numpy = path.suffix in (".npz", ".npy")
        found = self._from_numpy(case, path) if numpy else self._from_nifti(path)
        return self._checked(found)

    def described(self, case: str) -> Probabilities:
        """Read everything about one case but its numbers, in whose place there are zeros.

        Raises:
            DataError: See `probabilities`.
        """
        return self._stack(case, self._path(case), in_memory=True).about

    def stack(self, case: str) -> Stack:
        """Open one case to read it slab by slab; its numbers are not read yet.

        Raises:
            DataError: See `probabilities`.
        """
        return self._stack(case, self._path(case))

    def _path(self, case: str) -> Path:
        self._check_once(case)
        for ending in (".npz", ".npy", ".zarr", *nifti.ENDINGS):
            path = self.path / f"{case}{ending}"
            if _is_there(path):
                return path
        raise DataError(self.path, f"has no probabilities of case {case}")

    def _checked(self, found: Probabilities) -> Probabilities:
        groups = found.label_groups
        if groups is not None and len(groups) != len(found.data):
            raise DataError(
                found.source,
                f"must have {len(groups)} channels, one per label group of dataset.json, "
                f"got {len(found.data)}",
            )
        return found

    def files(self, case: str) -> list[Path]:
        """Return every file that `probabilities` may read for a case, whether it exists or not."""
        endings = (".npz", ".npy", ".pkl", *images.ENDINGS)
        chunks = self.path / f"{case}.zarr"
        inside = sorted(path for path in chunks.rglob("*") if path.is_file())
        return [*(self.path / f"{case}{end}" for end in endings), *inside]

    def _files(self, ending: str) -> list[Path]:
        # What is no regular file, such as a FIFO or a folder, is refused by name when it is read.
        return list(listing.entries(self.path, ending))

    def _is_of_case(self, npz: Path) -> bool:
        stem = npz.name.removesuffix(".npz")
        return any(_is_there(self.path / f"{stem}{end}") for end in (".pkl", *images.ENDINGS))

    def _check_once(self, case: str) -> None:
        """Refuse a case that has two files of probabilities."""
        stored = [self.path / f"{case}{ending}" for ending in (".npz", ".npy", ".zarr")]
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
        # Whatever does not fit is found before the numbers are read.
        stack = self._stack(case, path, in_memory=True)
        stored = _read_npz(path) if path.suffix == ".npz" else read_npy(path)
        stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
        if stack.box is not None:
            stored = stack.box.put_back(stored)
        return replace(stack.about, data=_forwards(stack.view(stored)))

    def _properties(self, case: str) -> tuple[Path, properties.Properties | None]:
        pickled = self.path / f"{case}.pkl"
        return pickled, properties.read(pickled) if _is_there(pickled) else None

    def _placed(
        self,
        case: str,
        path: Path,
        stored: NDArray[Any],
        pickled: Path,
        saved: properties.Properties | None,
        activation: str | None,
    ) -> Probabilities:
        """Turn ``[C, Z, Y, X]`` to the axes of its image; the numbers are not read."""
        data, affine = stored.transpose(0, 3, 2, 1), None
        if saved is not None:
            data, affine = saved.image(pickled, data)
        image = self._label_map(case)
        like: nifti.Geometry | None = None
        if image is not None:
            like = images.geometry(image)
            data = _onto(like, image, data, affine, path)
        elif affine is not None:
            like = nifti.Geometry.from_affine(affine, data.shape[1:])
        return self._result(data, like, activation, path)

    def _label_map(self, case: str) -> Path | None:
        """The file beside the probabilities that says where they lie; two are an error."""
        beside = (self.path / f"{case}{ending}" for ending in images.ENDINGS)
        found = [path for path in beside if _is_there(path)]
        if len(found) > 1 and found[1].name.endswith(images.LOCATED):
            raise listing.twice(found[1], found[0], f"label map of case {case}")
        return found[0] if found else None

    def _stack(self, case: str, path: Path, *, in_memory: bool = False) -> Stack:
        if path.name.endswith(nifti.ENDINGS):
            stored, like = nifti.stored(path)
            _check_real(path, stored)
            dummy = unread(stored.shape, stored.dtype).transpose(0, 3, 2, 1)
            return self._opened(self._result(dummy, like, None, path), stored, None)
        stored, activation = open_stored(path, check=not in_memory)
        _check_stored(path, stored)
        if in_memory and path.suffix == ".zarr":
            claimed = array_bytes(stored.shape, stored.dtype.itemsize)
            with one_error(path, "a Zarr array of version 3"):
                check_claim(claimed, what="the array")
        pickled, saved = self._properties(case)
        box = None
        if saved is not None and saved.crop is not None and saved.full_shape is not None:
            _check_box(path, stored.shape, saved.crop)
            background = self._has_background and stored.shape[0] > 1
            box = Box(saved.crop, saved.full_shape, background)
            whole = array_bytes((stored.shape[0], *box.shape), stored.dtype.itemsize)
            with one_error(pickled, "the properties of an image"):
                check_claim(whole, what="the image", in_memory=in_memory)
        dummy = unread((stored.shape[0], *(box or stored).shape[-3:]), stored.dtype)
        placed = self._placed(case, path, dummy, pickled, saved, activation)
        return self._opened(placed, stored, box)

    def _opened(self, found: Probabilities, stored: Stored, box: Box | None) -> Stack:
        view = View.of(found.data)
        nothing = np.broadcast_to(np.zeros((), stored.dtype), found.data.shape)
        put_back = box is not None and box.shape != stored.shape[1:]
        about = self._checked(replace(found, data=nothing, put_back=put_back))
        return Stack(stored, view, box, about=about)

    @property
    def _has_background(self) -> bool:
        if self._multilabel is not None:
            return not self._multilabel
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
    path: str | Path, probabilities: NDArray[Any] | Planes, *, activation: str = "softmax"
) -> None:
    """Write nnU-Net's npz, whole or not at all.

    Args:
        path: The file.
        probabilities: ``[C, X, Y, Z]``, or planes of ``[X, Y, Z, C]``. They are stored as
            (C, Z, Y, X) under ``probabilities``.
        activation: ``"softmax"``, or ``"sigmoid"``, which is recorded in the file, because nnU-Net
            has no place for it.

    Raises:
        ValueError: There are not four axes, or the activation is unknown.
        OSError: The disk reports an error, for example that it is full.

    Example:
        >>> write_npz("predicted/heart_000.npz", probabilities)  # doctest: +SKIP
    """
    path = Path(path)
    if len(probabilities.shape) != 4:
        raise ValueError(f"probabilities must have shape [C, X, Y, Z], got {probabilities.shape}")
    if activation not in ("softmax", "sigmoid"):
        raise ValueError(f"activation must be 'softmax' or 'sigmoid', got {activation!r}")
    if isinstance(probabilities, np.ndarray):
        probabilities = np.moveaxis(probabilities, 0, -1)
    dtype = probabilities.dtype
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        writer = ZipWriter(file)
        with writer.member("probabilities.npy") as member:
            member.write(npy_header(probabilities.shape[::-1], dtype))
            for plane in planes_of(probabilities):
                member.write(np.ascontiguousarray(plane.T).data)
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


def _read_npz(path: Path) -> NDArray[Any]:
    """Read the array, mapped where it is stored uncompressed."""
    with open_npz(path) as arrays:
        return arrays.array(key_of(path, arrays), mapped=True)


def _forwards(data: NDArray[Any]) -> NDArray[Any]:
    """Copy an array with a flipped axis: torch has no negative strides."""
    return np.ascontiguousarray(data) if min(data.strides, default=0) < 0 else data


def _check_stored(path: Path, stored: NDArray[Any] | Stored) -> None:
    if len(stored.shape) != 4:
        raise DataError(path, f"must have shape (classes, Z, Y, X), got {stored.shape}")
    _check_real(path, stored)


def _check_box(path: Path, shape: tuple[int, ...], crop: tuple[slice, slice, slice]) -> None:
    box = tuple(part.stop - part.start for part in crop)
    if shape[1:] != box:
        raise DataError(path, f"has shape {shape[1:]}, which does not fit the box {box} of its pkl")


def _check_real(path: Path, data: NDArray[Any] | Stored) -> None:
    if data.dtype.kind != "f" or data.dtype.itemsize > 8:
        raise DataError(path, f"must hold float16, float32 or float64 numbers, got {data.dtype}")


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
        raise DataError(
            path, f"must have the (X, Y, Z) of {image.name}, {like.shape}, got {data.shape[1:]}"
        )
    if affine is not None and like.stated:
        raise DataError(
            path.with_suffix(".pkl"),
            f"puts the array of {path.name} elsewhere than {image.name} lies; without this pkl, "
            f"the array is taken to lie as {image.name} does",
        )
    return data
