"""Dice on the scale that a linear fit is made on, and back."""

from __future__ import annotations

import numpy as np
from scipy import special

from fastcal.core.arrays import Floats


def logit(dice: Floats, clip: float) -> Floats:
    """Return ``ln(D / (1 - D))`` of Dice that are first moved into ``[clip, 1 - clip]``.

    Example:
        >>> logit(np.array([0.5, 1.0]), 0.01).round(3)
        array([0.   , 4.595])
    """
    inside = np.clip(dice, clip, 1.0 - clip)
    return np.log(inside / (1.0 - inside))


def unlogit(values: Floats) -> Floats:
    """Return the Dice of logits."""
    return special.expit(values)  # type: ignore[no-any-return]


def bounds_of(values: Floats, clip: float) -> Floats:
    """Return the Dice of bounds; one at or beyond the clip holds the Dice that was moved there.

    Example:
        >>> bounds_of(np.array([0.0, 4.7]), 0.01)
        array([0.5, 1. ])
    """
    # Rounding must not take a bound from the clip that it stands for.
    end = np.log((1.0 - clip) / clip) * (1 - 1e-12)
    return np.where(values >= end, 1.0, np.where(values <= -end, 0.0, unlogit(values)))
