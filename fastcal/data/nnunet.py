"""What nnU-Net keeps beside probabilities, so that ``nnUNetv2_ensemble`` takes a folder of ours.

``CASE.pkl`` holds what nnU-Net's writer of images needs, and ``plans.json`` names that writer
(``nnunetv2/ensembling/ensemble.py``, ``nnunetv2/imageio``; version 2.8).
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from fastcal.core.atomic import atomic_path, write_json
from fastcal.data import itk, nifti, pictures
from fastcal.data.nifti import Geometry

PLANS = "plans.json"


def properties(like: Geometry, file_ending: str) -> dict[str, Any]:
    """Return the content of ``CASE.pkl`` for an array that lies as ``like`` does.

    Args:
        like: The geometry of the case.
        file_ending: Ending of its image, which chooses nnU-Net's writer.

    Example:
        >>> import numpy as np
        >>> like = Geometry.from_affine(np.diag([1.0, 2.0, 3.0, 1.0]), (4, 4, 4))
        >>> properties(like, ".nrrd")["sitk_stuff"]["direction"][:3], properties(like, ".tif")
        ([-1.0, 0.0, 0.0], {'spacing': [3.0, 2.0, 1.0]})
    """
    spacing = list(like.spacing[::-1])
    if file_ending in nifti.ENDINGS:
        return {"nibabel_stuff": {"original_affine": like.affine.tolist()}, "spacing": spacing}
    if file_ending in itk.ENDINGS:
        steps, origin, direction = itk.of_affine(like.affine)
        place = {"spacing": steps, "origin": origin, "direction": direction}
        return {"sitk_stuff": place, "spacing": spacing}
    return {"spacing": spacing}


def write_properties(path: Path, like: Geometry, file_ending: str) -> None:
    """Write ``CASE.pkl``, whole or not at all.

    Args:
        path: The file.
        like: The geometry of the case.
        file_ending: Ending of its image.

    Raises:
        OSError: The disk reports an error, for example that it is full.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(pickle.dumps(properties(like, file_ending), protocol=4))


def write_plans(folder: Path, like: Geometry, file_ending: str) -> None:
    """Write ``plans.json`` with nnU-Net's writer of images, unless the folder has one.

    Args:
        folder: The prediction folder.
        like: The geometry of a case: a TIFF of one slice has another writer than a stack.
        file_ending: Ending of the images.

    Raises:
        OSError: The disk reports an error, for example that it is full.
    """
    path = folder / PLANS
    if not path.exists():
        plans = {"dataset_name": "unknown", "plans_name": "fastcal", "configurations": {}}
        reader = {"image_reader_writer": _reader(like, file_ending)}
        write_json(path, plans | reader | {"label_manager": "LabelManager"})


def _reader(like: Geometry, file_ending: str) -> str:
    if file_ending in nifti.ENDINGS:
        return "NibabelIO"  # SimpleITKIO refuses cosines that are not orthonormal
    if file_ending in itk.ENDINGS:
        return "SimpleITKIO"
    slices = (*like.shape, 1)[2]
    stack = file_ending in pictures.TIFF_ENDINGS and slices > 1
    return "Tiff3DIO" if stack else "NaturalImage2DIO"
