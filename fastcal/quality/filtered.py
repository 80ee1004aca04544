"""Filtered Dice of QU-BraTS: what is left when uncertain voxels are taken away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcal.core.arrays import Floats
from fastcal.core.doors import bounded

MOST_THRESHOLDS = 10**6


@dataclass(frozen=True, slots=True)
class FilteredDice:
    """Curves over thresholds of the uncertainty, each ``[T]``; the last keeps every voxel."""

    thresholds: Floats
    """From 0 to 1: voxels with a higher uncertainty are taken away."""
    dice: Floats
    """Of the voxels that are left; 1 where neither mask has a voxel left."""
    filtered_true_positives: Floats
    """Share of the true positives that were taken away."""
    filtered_true_negatives: Floats
    """Share of the true negatives that were taken away."""

    @property
    def areas(self) -> tuple[float, float, float]:
        """Areas under the three curves."""
        return tuple(  # type: ignore[return-value]
            float(np.trapezoid(curve, self.thresholds))
            for curve in (self.dice, self.filtered_true_positives, self.filtered_true_negatives)
        )

    @property
    def score(self) -> float:
        """QU-BraTS' score, ``(A_Dice + (1 - A_FTP) + (1 - A_FTN)) / 3``; 1 is best."""
        dice, positives, negatives = self.areas
        return (dice + (1 - positives) + (1 - negatives)) / 3


def filtered_dice(
    uncertainty: Any,
    prediction: Any,
    reference: Any,
    *,
    kept: Any = None,
    n_thresholds: int = 40,
) -> FilteredDice:
    """Compute the curves of one structure in one pass over its voxels.

    Args:
        uncertainty: ``[*S]``, scaled to lie in [0, 1]; voxels above 1 are taken away nowhere but at
            thresholds below 1.
        prediction: Mask ``[*S]``.
        reference: Mask ``[*S]``.
        kept: Voxels that count ``[*S]``; None for all.
        n_thresholds: Steps from 0 to 1; QU-BraTS has 40.

    Raises:
        TypeError, ValueError: Shapes differ, a mask is not boolean, or an uncertainty is negative
            or NaN.

    Source: Mehta et al., QU-BraTS, MELBA 2022, and the code that the challenge was evaluated with.

    Example:
        >>> mask = np.array([True, True, False, False])
        >>> found = filtered_dice([0.1, 0.9, 0.2, 0.3], mask, [True, False, False, False])
        >>> found.dice[[0, 20, 40]].round(3), round(found.score, 3)
        (array([1.   , 1.   , 0.667]), 0.879)
    """
    values = np.asarray(uncertainty, np.float64)
    masks = [
        _mask(given, name, values.shape)
        for name, given in (("prediction", prediction), ("reference", reference))
    ]
    steps = bounded(n_thresholds, "n_thresholds", MOST_THRESHOLDS)
    if kept is not None:
        inside = _mask(kept, "kept", values.shape)
        values, masks = values[inside], [mask[inside] for mask in masks]
    if values.size and not values.min() >= 0:
        raise ValueError(f"uncertainty must be at least 0, got {values.min():g}")
    thresholds = np.arange(steps + 1) / steps
    # The first threshold that keeps a voxel.
    cell = np.searchsorted(thresholds, np.minimum(values, 1.0).ravel(), side="left")
    kind = (2 * masks[0] + masks[1]).ravel()
    counts = np.bincount(4 * cell + kind, minlength=4 * (steps + 1)).reshape(steps + 1, 4)
    true_negative, false_negative, false_positive, true_positive = counts.cumsum(0).T
    both = 2 * true_positive + false_positive + false_negative
    return FilteredDice(
        thresholds,
        np.where(both > 0, 2 * true_positive / np.maximum(both, 1), 1.0),
        _lost(true_positive),
        _lost(true_negative),
    )


def _lost(counts: NDArray[np.int64]) -> Floats:
    found: Floats = (counts[-1] - counts) / max(int(counts[-1]), 1)
    return found


def _mask(given: Any, name: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    mask = np.asarray(given)
    if mask.dtype != np.bool_:
        raise TypeError(f"{name} must be a mask of True and False, got {mask.dtype}")
    if mask.shape != shape:
        raise ValueError(f"{name} must have the shape of uncertainty, {shape}, got {mask.shape}")
    return mask
