"""Bin edges of the calibration histograms: computed once, on the CPU, for every backend."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcal.arguments import whole_number

Closed = Literal["right", "left"]
CLOSED = ("right", "left")


def edges(n_bins: int) -> NDArray[np.float64]:
    """The ``n_bins + 1`` equally spaced edges of [0, 1], ``numpy.linspace`` in float64."""
    return np.linspace(0.0, 1.0, n_bins + 1)


@lru_cache(maxsize=64)
def _thresholds(n_bins: int, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(edges(n_bins)[1:-1].copy()).to(dtype)


def thresholds(n_bins: int, dtype: torch.dtype) -> Tensor:
    """The ``n_bins - 1`` interior edges, rounded once to ``dtype``; do not write to them.

    With ``closed="right"`` the bin of p is the number of thresholds below p, so 0 falls into the
    first bin and 1 into the last; with ``closed="left"`` the number of thresholds not above p.

    Example:
        >>> thresholds(4, torch.float32)
        tensor([0.2500, 0.5000, 0.7500])
    """
    if torch.compiler.is_compiling():
        # linspace multiplies by the step: these are its bits, as constants of the graph.
        inner = [k * (1.0 / n_bins) for k in range(1, n_bins)]
        return torch.tensor(inner, dtype=torch.float64).to(dtype)
    return _thresholds(n_bins, dtype)


def check_bins(n_bins: int, closed: str) -> int:
    """``n_bins`` as an int.

    Raises:
        TypeError, ValueError: ``n_bins`` and ``closed`` do not describe bins.
    """
    n_bins = whole_number(n_bins, "n_bins")
    if not 1 <= n_bins <= 65536:
        raise ValueError(f"n_bins must be between 1 and 65536, got {n_bins}")
    if closed not in CLOSED:
        raise ValueError(f"closed must be one of {CLOSED}, got {closed!r}")
    return n_bins
