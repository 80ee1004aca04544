"""Surface distances of two masks, computed by MONAI in two and three dimensions."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def surface_scores(
    reference: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    *,
    spacing: tuple[float, ...],
    tolerance_mm: float = 1.0,
) -> dict[str, float]:
    """Return HD95 and the surface Dice of two masks.

    An axis of extent 1 has no inside and outside: the surface of a single slice is the boundary
    within its plane, not its whole area.

    Args:
        reference: Mask of up to three axes, such as ``[X, Y]`` or ``[X, Y, Z]``.
        prediction: Mask of the same shape.
        spacing: Voxel size in mm, one number per axis.
        tolerance_mm: Distance in mm up to which a surface voxel counts as right.

    Returns:
        ``HD95``, the larger of the two directed 95th percentiles of surface distance in mm
        (`monai.metrics.compute_hausdorff_distance`), NaN if either mask is empty. ``SurfaceDice``,
        the share of surface voxels within the tolerance (`monai.metrics.compute_surface_dice`,
        arXiv 2111.05408), 0 if one mask is empty, NaN if both are.

    Raises:
        ImportError: MONAI is not installed; the message names the extra that brings it.
        ValueError: ``spacing`` is not one positive number per axis, or the tolerance is negative.

    Example:
        >>> mask = np.zeros((8, 8, 8), dtype=bool)
        >>> mask[2:6, 2:6, 2:6] = True
        >>> surface_scores(mask, np.roll(mask, 1, axis=0), spacing=(2.0, 1.0, 1.0))["HD95"]
        2.0
    """
    if len(spacing) != reference.ndim or not all(0 < step < math.inf for step in spacing):
        raise ValueError(
            f"spacing must hold {reference.ndim} positive numbers, one per axis, got {spacing}"
        )
    if not 0 <= tolerance_mm < math.inf:
        raise ValueError(f"tolerance_mm must be at least 0, got {tolerance_mm}")
    metrics = _monai_metrics()
    spacing = tuple(step for step, n in zip(spacing, reference.shape, strict=True) if n > 1)
    reference, prediction = reference.squeeze(), prediction.squeeze()
    box = _bounding_box(reference | prediction)
    if box is None:
        return {"HD95": float("nan"), "SurfaceDice": float("nan")}
    if not (reference.any() and prediction.any()):
        return {"HD95": float("nan"), "SurfaceDice": 0.0}
    if reference.ndim < 2:
        return _of_a_line(reference, prediction, spacing[0] if spacing else 1.0, tolerance_mm)
    pair = [torch.from_numpy(mask[box].copy())[None, None] for mask in (prediction, reference)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hd95 = metrics.compute_hausdorff_distance(
            *pair, include_background=True, percentile=95, spacing=spacing
        )
        dice = metrics.compute_surface_dice(
            *pair, class_thresholds=[tolerance_mm], include_background=True, spacing=spacing
        )
    return {"HD95": float(hd95), "SurfaceDice": float(dice)}


def _of_a_line(
    reference: NDArray[np.bool_], prediction: NDArray[np.bool_], step: float, tolerance_mm: float
) -> dict[str, float]:
    """The scores of masks ``[X]``, whose surfaces are the ends of their runs; MONAI has none."""
    ends = []
    for mask in (np.atleast_1d(prediction), np.atleast_1d(reference)):
        padded = np.pad(mask, 1)
        ends.append(np.flatnonzero(mask & ~(padded[:-2] & padded[2:])) * step)
    distances = [_to_nearest(*ends), _to_nearest(*ends[::-1])]
    near = sum(int((distance <= tolerance_mm).sum()) for distance in distances)
    return {
        "HD95": float(max(np.percentile(distance, 95) for distance in distances)),
        "SurfaceDice": near / (len(ends[0]) + len(ends[1])),
    }


def _to_nearest(points: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    """The distance of each point on a line to the nearest of others, both sorted."""
    after = np.searchsorted(others, points).clip(0, len(others) - 1)
    nearest: NDArray[Any] = np.minimum(
        abs(others[after] - points), abs(others[(after - 1).clip(0)] - points)
    )
    return nearest


def _monai_metrics() -> Any:
    try:
        import monai.metrics
    except ImportError as error:
        raise ImportError(
            "HD95 and surface Dice need MONAI: pip install 'fastcal[train]', or surface=False"
        ) from error
    return monai.metrics


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """Return the box around a mask with a margin of one voxel, so that a border stays one."""
    if not mask.any():
        return None
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        (where,) = np.nonzero(mask.any(axis=others))
        box.append(slice(max(int(where[0]) - 1, 0), int(where[-1]) + 2))
    return tuple(box)
