"""One case: read, checked, its labels renumbered and brought to its grid, and written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcal.convert.found import FoundCase, Source
from fastcal.convert.grid import orthonormal, resample_nearest
from fastcal.core.atomic import atomic_path
from fastcal.core.errors import DataError
from fastcal.data import checks, images, nifti
from fastcal.data.affines import same_place
from fastcal.data.nifti import Geometry, Volume

ENDING = images.DEFAULT


@dataclass(frozen=True, slots=True)
class CasePaths:
    """Where the files of a case go."""

    images: tuple[Path, ...]
    label: Path | None

    @classmethod
    def of(cls, case: FoundCase, out: Path) -> CasePaths:
        """Return the files in nnU-Net's layout; labels of test cases go to ``labelsTs``."""
        part = "Tr" if case.trains else "Ts"
        channels = range(len(case.images))
        return cls(
            tuple(out / f"images{part}" / f"{case.name}_{k:04d}{ENDING}" for k in channels),
            None if case.label is None else out / f"labels{part}" / f"{case.name}{ENDING}",
        )

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file, in the order of writing: the label is last."""
        return (*self.images, *(() if self.label is None else (self.label,)))


@dataclass(frozen=True, slots=True)
class ReadCase:
    """What the files of a case hold."""

    images: list[Volume]
    """The volume of each channel."""
    label: Volume | None


@dataclass(frozen=True, slots=True)
class ConvertedCase:
    """What is written of a case."""

    images: list[Volume]
    labels: NDArray[Any] | None
    grid: Geometry
    """Where they lie; that of the first image unless its directions were mended."""
    notes: list[str]
    """What was changed beyond the names of files, a sentence each."""


def read_case(case: FoundCase) -> ReadCase:
    """Read the files of a case.

    Raises:
        DataError: A file cannot be read, or holds no 3-D volume.
    """
    images = _read_all(case.images)
    return ReadCase(images, None if case.label is None else _read_all((case.label,))[0])


def convert_case(
    case: FoundCase, read: ReadCase, label_map: Mapping[int, int] | None
) -> ConvertedCase:
    """Check what was read of a case, and make of it what is written.

    Args:
        case: The case as it was found.
        read: What its files hold.
        label_map: See `fastcal.convert.found.FoundSet`.

    Raises:
        DataError: Channels lie on different grids, a label is none of the dataset's or lies
            elsewhere than the image.
    """
    notes: list[str] = []
    first = read.images[0]
    for source, volume in zip(case.images[1:], read.images[1:], strict=True):
        checks.check_place(source.path, volume, case.images[0].path, first)
    mended = orthonormal(first.affine, first.shape)
    grid: Geometry = first
    if mended is not first.affine:
        grid = _mended(case, first, mended, notes)
    labels = None
    if read.label is not None:
        labels = _labels(case, first, read.label, label_map, notes)
    return ConvertedCase(read.images, labels, grid, notes)


def write_case(case: FoundCase, made: ConvertedCase, paths: CasePaths) -> None:
    """Write the files of a case, each whole or not at all, its label last.

    Raises:
        OSError: The disk reports an error, for example that it is full.
    """
    for path in paths.all:
        path.parent.mkdir(parents=True, exist_ok=True)
    first = made.images[0]
    for source, volume, path in zip(case.images, made.images, paths.images, strict=True):
        here = made.grid is first and same_place(first.affine, volume.affine, first.shape)
        if here and _is_plain(source, volume):
            with atomic_path(path) as temporary:
                shutil.copyfile(source.path, temporary)
        else:
            nifti.write(path, volume.data, _clean(made.grid), dtype=_stored(volume.data))
    if made.labels is not None and paths.label is not None:
        nifti.write(paths.label, made.labels, _clean(made.grid), dtype="int")


def _read_all(sources: tuple[Source, ...]) -> list[Volume]:
    """Read volumes, each file once."""
    files = {source.path: images.read(source.path) for source in sources}
    return [_frame(source, files[source.path]) for source in sources]


def _frame(source: Source, volume: Volume) -> Volume:
    data, frame = volume.data, source.frame
    if frame is not None:
        frames = data.shape[3] if data.ndim == 4 else 1
        if not 0 <= frame < frames:
            raise DataError(
                source.path, f"must have a volume {frame} along its fourth axis, got {frames}"
            )
        data = data[..., frame] if data.ndim == 4 else data
    spatial = (*data.shape, 1, 1)[: max(3, data.ndim)]
    if any(extent != 1 for extent in spatial[3:]):
        raise DataError(source.path, f"must hold one 3-D volume, got shape {data.shape}")
    data = data.reshape(spatial[:3])
    return replace(volume, shape=data.shape, channels=1, data=data)


def _mended(case: FoundCase, first: Volume, affine: Any, notes: list[str]) -> Geometry:
    """Orthonormal cosines, unless they would move a voxel visibly."""
    if same_place(first.affine, affine, first.shape):
        notes.append(f"{case.name}: direction cosines made orthonormal")
        return Geometry.from_affine(affine, first.shape)
    notes.append(
        f"{case.name}: direction cosines are far from orthonormal and stay so in the sform; ITK "
        "takes the qform, which is not exact"
    )
    return Geometry.from_affine(first.affine, first.shape)


def _labels(
    case: FoundCase,
    first: Volume,
    volume: Volume,
    label_map: Mapping[int, int] | None,
    notes: list[str],
) -> NDArray[Any]:
    assert case.label is not None
    path = case.label.path
    labels = _renumbered(path, checks.integers(path, volume.data), label_map)
    if first.agrees(volume):
        return labels
    image = case.images[0].path.name
    for name, one in ((path.name, volume), (image, first)):
        if not one.stated:
            raise DataError(
                path,
                f"must have the voxels of {image} where {name} says nothing of its place, got "
                f"{_voxels(volume)} for {_voxels(first)}",
            )
    placed = resample_nearest(labels, volume, first)
    if labels.any() and not placed.any():
        raise DataError(path, f"lies elsewhere than {image}: no label meets it")
    notes.append(f"{case.name}: labels resampled to the grid of the image")
    return placed


def _voxels(volume: Volume) -> str:
    counts, sizes = (" x ".join(f"{n:.6g}" for n in one) for one in (volume.shape, volume.spacing))
    return f"{counts} of {sizes} mm"


def _renumbered(
    path: Path, labels: NDArray[Any], label_map: Mapping[int, int] | None
) -> NDArray[np.uint8]:
    if label_map is None:
        if labels.size and labels.min() < 0:
            raise DataError(path, f"must hold labels of at least 0, got {labels.min()}")
        return (labels > 0).astype(np.uint8)
    unknown = np.setdiff1d(np.unique(labels), list(label_map))
    if unknown.size:
        raise DataError(
            path, f"must hold labels among {sorted(label_map)}, got {unknown[:5].tolist()}"
        )
    written = np.zeros(labels.shape, np.uint8)
    for value, new in label_map.items():
        written[labels == value] = new
    return written


def _is_plain(source: Source, volume: Volume) -> bool:
    """Whether a file may be copied: of three axes, and lying in one place for every reader."""
    if source.frame is not None or not source.path.name.endswith(ENDING):
        return False
    forms = [volume.header.get_qform(coded=True), volume.header.get_sform(coded=True)]
    stated = [form for form, code in forms if code]
    if volume.mended or not stated or volume.header.get_xyzt_units()[0] != "mm":
        return False
    if int(volume.header["dim"][0]) != 3:
        return False
    return all(same_place(volume.affine, form, volume.shape) for form in stated)


def _clean(grid: Geometry) -> Geometry:
    """The geometry with a header that says one place, in mm, for whichever reader."""
    return Geometry.from_affine(grid.affine, grid.shape[:3])


def _stored(data: NDArray[Any]) -> str:
    """Integers stay integers where 32 bits hold them; real numbers are float32 in nnU-Net too."""
    if data.dtype.kind not in "iu" or not data.size:
        return "float32"
    limits = np.iinfo(np.int32)
    return "int" if limits.min <= data.min() and data.max() <= limits.max else "float32"
