"""Label maps on disk: which cases a folder has, reading them, comparing their geometry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastcal.core.errors import DataError
from fastcal.data import nifti

if TYPE_CHECKING:
    from fastcal.data.nifti import Geometry, Volume


def find_label_maps(folder: Path) -> dict[str, Path]:
    """Return the label map of every case at the top of a folder, by case name, sorted.

    Raises
    ------
    DataError
        If the folder is missing or has no ``.nii.gz`` and no ``.nii`` file.
    """
    if not folder.is_dir():
        raise DataError(folder, "no such folder")
    found = {}
    for path in sorted(folder.iterdir()):
        ending = next((end for end in nifti.ENDINGS if path.name.endswith(end)), None)
        if ending is not None and not path.name.startswith("."):
            found[path.name.removesuffix(ending)] = path
    if not found:
        raise DataError(folder, "no label maps (*.nii.gz, *.nii) in this folder")
    return dict(sorted(found.items()))


def find_dataset_json(*folders: Path) -> Path | None:
    """Return the first ``dataset.json`` in a folder given, or up to two levels above it.

    Two, because nnU-Net keeps it beside predictions, or above ``fold_0/validation``.
    """
    for folder in folders:
        for place in (folder, *folder.resolve().parents[:2]):
            if (place / "dataset.json").is_file():
                return place / "dataset.json"
    return None


def read_labels(path: Path) -> tuple[NDArray[Any], Volume]:
    """Read a label map: integers ``[X, Y, Z]`` in nibabel's order, and the volume it came in.

    Raises
    ------
    DataError
        If the file cannot be read, or holds numbers that are not integers.
    """
    volume = nifti.read(path)
    shape = (*volume.shape, 1, 1)[: max(3, len(volume.shape))]
    if any(extent != 1 for extent in shape[3:]):
        raise DataError(path, f"shape {_times(shape)}, expected a 3-D label map")
    labels = volume.data.reshape(shape[:3])
    volume = nifti.Volume(labels.shape, volume.affine, volume.header, labels)
    if not np.issubdtype(labels.dtype, np.integer):
        rounded = np.rint(labels)
        if not np.array_equal(rounded, labels):
            raise DataError(path, f"fractions in a label map ({labels.dtype}), expected integers")
        labels = rounded.astype(np.int32)
    return labels, volume


def check_same_grid(
    path: Path,
    shape: tuple[int, ...],
    affine: NDArray[np.float64] | None,
    like: Geometry,
    *,
    expected: Path,
) -> None:
    """Raise a `DataError` naming ``path`` if it does not lie on the grid ``like`` of ``expected``.

    Affines agree when no corner of the volume moves by more than a tenth of a voxel
    (`nifti.same_place`); one that is None is not compared.
    """
    if tuple(shape[:3]) != tuple(like.shape[:3]):
        raise DataError(
            path, f"shape {_times(shape[:3])} differs from {_times(like.shape[:3])} of {expected}"
        )
    if affine is not None and not nifti.same_place(like.affine, affine, tuple(shape)):
        raise DataError(path, f"its affine differs from that of {expected}")


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
