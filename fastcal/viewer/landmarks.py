"""Where to look in a case: the slice to begin with, errors, and clusters of uncertain voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcal.core.arrays import Floats
from fastcal.viewer.layers import ShownCase, Voxel

MOST = 100
"""Places of each kind."""

APART_MM = 10.0
"""How far two places of a kind lie apart at least: errors along a boundary are all connected, and
one place for all of them would help nobody."""


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Voxels of a case to jump to, at least `APART_MM` apart."""

    errors: tuple[Voxel, ...]
    """Errors, those that are the most uncertain around in front (the thickest without a map)."""
    uncertain: tuple[Voxel, ...]
    """Clusters of uncertain voxels, down to half of the mean uncertainty of the first."""


def first_voxel(case: ShownCase) -> Voxel:
    """Return where a case is opened.

    It lies in the axial slice whose errors are the most uncertain, summed over them. Without a
    reference or an error it is the slice with the most uncertainty, without a map that with the
    most errors, and without either that with the largest prediction.
    """
    weights = [_uncertain_errors(case), _errors(case), _uncertainty(case), _predicted(case)]
    weight = next((one for one in weights if one is not None and one.any()), None)
    if weight is None:
        x, y, z = case.frame.turned_shape
        return x // 2, y // 2, z // 2
    index = int(np.argmax(weight.sum(axis=(0, 1), dtype=np.float64)))
    x, y = divmod(int(np.argmax(weight[:, :, index])), weight.shape[1])
    return x, y, index


def landmarks(case: ShownCase) -> Landmarks:
    """Return the errors and the uncertain parts of a case.

    Raises:
        ImportError: SciPy is not installed.
    """
    errors, uncertainty, spacing = _errors(case), _uncertainty(case), case.frame.spacing
    found: list[tuple[Voxel, ...]] = [(), ()]
    if errors is not None and errors.any():
        weight = errors if uncertainty is None else errors * (uncertainty + 1e-6)
        found[0] = _places(weight, spacing)
    if uncertainty is not None and uncertainty.any():
        found[1] = _places(uncertainty, spacing, least=0.5)
    return Landmarks(*found)


def _places(
    weight: Floats, spacing: tuple[float, float, float], *, least: float = 0.0
) -> tuple[Voxel, ...]:
    """Return where the mean of a weight within a box of 5 mm is largest, one place after another.

    Args:
        weight: ``[X, Y, Z]``, not negative; a place has a positive one.
        spacing: Voxel size in mm.
        least: The smallest mean, as a share of the first.
    """
    try:
        from scipy.ndimage import uniform_filter
    except ImportError as error:
        raise ImportError("errors and clusters need SciPy: pip install 'fastcal[view]'") from error

    box = [max(1, round(5 / step)) for step in spacing]
    around = np.where(weight > 0, uniform_filter(weight, box, mode="constant"), 0.0)
    reach = [int(APART_MM / step) for step in spacing]
    found: list[Voxel] = []
    limit = 0.0
    while len(found) < MOST:
        x, y, z = (int(i) for i in np.unravel_index(int(np.argmax(around)), around.shape))
        if around[x, y, z] <= limit:
            break
        limit = limit or least * float(around[x, y, z])
        found.append((x, y, z))
        near = (slice(max(0, i - r), i + r + 1) for i, r in zip((x, y, z), reach, strict=True))
        around[tuple(near)] = 0.0
    return tuple(found)


def _errors(case: ShownCase) -> Floats | None:
    layer = case.layer("error")
    return None if layer is None else (layer.voxels > 0).astype(np.float64)


def _uncertainty(case: ShownCase) -> Floats | None:
    layer = case.uncertainty
    if layer is None:
        return None
    # Voxels without valid probabilities hold NaN: there is nothing to look at.
    found: Floats = np.nan_to_num(layer.voxels.astype(np.float64), posinf=0.0, neginf=0.0)
    return found


def _uncertain_errors(case: ShownCase) -> Floats | None:
    errors, uncertainty = _errors(case), _uncertainty(case)
    return None if errors is None or uncertainty is None else errors * uncertainty


def _predicted(case: ShownCase) -> Floats | None:
    layer: Any = case.layer("prediction")
    return None if layer is None else (layer.voxels > 0).astype(np.float64)
