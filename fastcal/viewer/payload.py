"""What the page is told of a case, as JSON, and the bytes of its layers, as NIfTI."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from fastcal.viewer.folder import Row
from fastcal.viewer.landmarks import Landmarks, first_voxel
from fastcal.viewer.layers import Layer, ShownCase, Voxel

INVALID = -1.0
"""What maps, which are never negative, hold for the page in voxels without valid probabilities."""


def case_payload(case: ShownCase, found: Landmarks) -> dict[str, Any]:
    """Return what the page shows of a case, but for the voxels."""
    frame = case.frame
    return {
        "name": case.name,
        "shape": frame.turned_shape,
        "file_shape": frame.shape,
        "axes": frame.axes,
        "affine": frame.turned_affine.tolist(),
        "spacing": [round(step, 3) for step in frame.spacing],
        "layers": [_layer(one, measured=one.key == "image/0") for one in case.layers],
        "uncertainty": None if case.uncertainty is None else case.uncertainty.key,
        "start": first_voxel(case),
        "errors": found.errors,
        "uncertain": found.uncertain,
        "members": case.members,
    }


def row_payload(row: Row) -> dict[str, Any]:
    """Return a line of the list of cases; null for what is not known."""
    return {
        "case": row.case,
        "uncertainty": _finite(row.uncertainty),
        "quality": _finite(row.quality),
    }


def values_at(layers: Iterable[Layer], voxel: Voxel) -> dict[str, float | None]:
    """Return the number that each layer has in a voxel; None where there is none."""
    return {layer.key: _finite(float(layer.voxels[voxel])) for layer in layers}


def volume_bytes(case: ShownCase, layer: Layer) -> bytes:
    """Return a layer as an uncompressed NIfTI file that NiiVue reads."""
    import nibabel as nib

    voxels = layer.voxels
    if layer.kind in ("labels", "error"):
        voxels = voxels.astype(np.uint8 if int(voxels.max(initial=0)) < 256 else np.uint16)
    else:
        filler = INVALID if layer.kind == "map" else 0.0
        voxels = np.where(np.isfinite(voxels), voxels, np.float32(filler)).astype(np.float32)
    image: Any = nib.Nifti1Image(voxels, case.frame.turned_affine)  # type: ignore[no-untyped-call]
    content: bytes = image.to_bytes()
    return content


def _layer(layer: Layer, *, measured: bool) -> dict[str, Any]:
    """Describe a layer; the scale of one that only its voxels tell is null unless ``measured``."""
    known = measured or layer.kind in ("labels", "error")
    low, high = layer.scale if known else (0.0 if layer.kind == "map" else None, layer.high)
    return {
        "key": layer.key,
        "title": layer.title,
        "kind": layer.kind,
        "unit": layer.unit,
        "low": low,
        "high": high,
        "values": [
            {"value": value, "name": name, "colour": layer.colour(value)}
            for value, name in sorted(layer.names.items())
        ],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
