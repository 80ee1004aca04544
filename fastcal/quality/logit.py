"""Dice on the scale that a linear fit is made on, and back."""

from __future__ import annotations

import numpy as np

from fastcal.core.arrays import Floats


def logit(dice: Floats, clip: float) -> Floats:
    """Return ``ln(D / (1 - D))`` of Dice that are first moved into ``[clip, 1 - clip]``.

    Example:
        >>> logit(np.array([0.5, 1.0]), 0.01).round(3)
        array([0.   , 4.595])
    """
    inside = np.clip(dice, clip, 1.0 - clip)
    return np.log(inside / (1.0 - inside))


def unlogit(values: Floats, clip: float) -> Floats:
    """Return the Dice of logits; what lies at or beyond the clip is 0 or 1, as it was before.

    Example:
        >>> unlogit(np.array([0.0, 4.7]), 0.01)
        array([0.5, 1. ])
    """
    end = np.log((1.0 - clip) / clip)
    # Rounding must not take a bound from the clip that it stands for.
    dice = np.where(values >= end * (1 - 1e-12), 1.0, 1.0 / (1.0 + np.exp(-values)))
    return np.where(values <= -end * (1 - 1e-12), 0.0, dice)
