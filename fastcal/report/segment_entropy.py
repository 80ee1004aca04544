"""The paper's entropy of a predicted segment, from saved probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def binary_entropies(channels: NDArray[Any], masks: Sequence[NDArray[np.bool_]]) -> list[float]:
    """Return the mean one-vs-rest entropy of each structure over its predicted segment, in nats.

    ``H = -(1/|S|) sum_S [p ln p + (1 - p) ln(1 - p)]``, in [0, ln 2]; NaN for an empty segment.

    Args:
        channels: Probabilities of the structures ``[K, X, Y, Z]``.
        masks: Predicted segments, K times ``[X, Y, Z]``.

    Reference: Mehrtash et al., IEEE TMI 39(12):3868-3878, 2020.

    Example:
        >>> p = np.array([[0.5, 1.0]])
        >>> round(binary_entropies(p, [np.array([True, True])])[0], 4)
        0.3466
    """
    found = []
    for channel, mask in zip(channels, masks, strict=True):
        p = np.asarray(channel[mask], np.float64)
        found.append(float(entropy_of([p, 1 - p]).mean()) if p.size else float("nan"))
    return found


def entropy_of(channels: Any) -> NDArray[np.float64]:
    """Return ``-sum_k p_k ln p_k`` of probabilities ``[C, ...]`` in nats, with 0 ln 0 = 0."""
    total: NDArray[np.float64] | None = None
    for channel in channels:
        p = np.clip(np.asarray(channel, np.float64), 0.0, 1.0)
        term = -p * np.log(np.where(p > 0, p, 1.0))
        total = term if total is None else total + term
    if total is None:
        raise ValueError("channels must hold at least one channel, got none")
    return total
