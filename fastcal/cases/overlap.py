"""Overlap of two masks as nnU-Net counts it, and the volumes that follow from it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def overlap(
    reference: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    *,
    kept: NDArray[np.bool_] | None = None,
    voxel_ml: float = 1e-3,
) -> dict[str, float]:
    """Count two masks against each other.

    Args:
        reference: Mask ``[*S]``.
        prediction: Mask ``[*S]``.
        kept: Voxels that count (True) ``[*S]``; None for all.
        voxel_ml: Volume of a voxel in millilitres.

    Returns:
        nnU-Net's ``Dice`` 2TP/(2TP+FP+FN) and ``IoU`` TP/(TP+FP+FN), both NaN if neither mask has
        a voxel, its counts ``FP``, ``TP``, ``FN``, ``TN``, ``n_pred`` and ``n_ref``, and
        ``volume_pred_ml`` and ``volume_ref_ml``.

    Example:
        >>> scores = overlap(np.array([True, True, False]), np.array([True, False, False]))
        >>> round(scores["Dice"], 3), scores["IoU"], scores["FN"]
        (0.667, 0.5, 1)
    """
    if kept is not None:
        reference, prediction = reference & kept, prediction & kept
    total = reference.size if kept is None else _count(kept)
    n_ref, n_pred, tp = _count(reference), _count(prediction), _count(reference & prediction)
    fp, fn = n_pred - tp, n_ref - tp
    return {
        "Dice": 2 * tp / (n_ref + n_pred) if n_ref + n_pred else float("nan"),
        "IoU": tp / (tp + fp + fn) if n_ref + n_pred else float("nan"),
        "FP": fp,
        "TP": tp,
        "FN": fn,
        "TN": total - tp - fp - fn,
        "n_pred": n_pred,
        "n_ref": n_ref,
        "volume_pred_ml": n_pred * voxel_ml,
        "volume_ref_ml": n_ref * voxel_ml,
    }


def _count(mask: NDArray[Any]) -> int:
    return int(np.count_nonzero(mask))
