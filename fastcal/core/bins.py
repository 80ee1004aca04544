"""Bin edges of the calibration histograms, computed once, on the CPU, for every backend."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcal.core.arguments import choice, whole_number
from fastcal.core.problem import FINE_OCTAVES

Closed = Literal["right", "left"]
CLOSED = ("right", "left")


def edges(n_bins: int) -> NDArray[np.float64]:
    """Give the ``n_bins + 1`` equally spaced edges of [0, 1], ``numpy.linspace`` in float64."""
    return np.linspace(0.0, 1.0, n_bins + 1)


@lru_cache(maxsize=64)
def _thresholds(n_bins: int, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(edges(n_bins)[1:-1].copy()).to(dtype)


def thresholds(n_bins: int, dtype: torch.dtype) -> Tensor:
    """Give the ``n_bins - 1`` interior edges, rounded once to ``dtype``.

    With ``closed="right"`` the bin of p is the number of thresholds below p, so 0 falls into the
    first bin and 1 into the last. With ``closed="left"`` it is the number of thresholds not above
    p. The tensor is shared between calls: do not write to it.

    Example:
        >>> thresholds(4, torch.float32)
        tensor([0.2500, 0.5000, 0.7500])
    """
    if torch.compiler.is_compiling():
        # linspace multiplies by the step, so these constants of the graph have its bits.
        inner = [k * (1.0 / n_bins) for k in range(1, n_bins)]
        return torch.tensor(inner, dtype=torch.float64).to(dtype)
    return _thresholds(n_bins, dtype)


@cache
def thresholds_on(n_bins: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Give `thresholds` on a device, where they stay, and a 1 where there are none.

    Only the first call of a kind copies and waits for the device, so it cannot be captured in a
    CUDA graph. The tensor is shared between calls: do not write to it.

    Example:
        >>> thresholds_on(1, torch.float32, torch.device("cpu"))
        tensor([1.])
    """
    inner = thresholds(n_bins, dtype)
    return (inner if len(inner) > 0 else torch.ones(1, dtype=dtype)).to(device)


def check_bins(n_bins: int, closed: str) -> int:
    """Check ``n_bins`` and ``closed``, and give ``n_bins`` as an int.

    Raises:
        TypeError: ``n_bins`` is not an integer.
        ValueError: ``n_bins`` or ``closed`` is out of range.
    """
    n_bins = whole_number(n_bins, "n_bins")
    if not 1 <= n_bins <= 65536:
        raise ValueError(f"n_bins must be between 1 and 65536, got {n_bins}")
    choice(closed, "closed", CLOSED)
    return n_bins


EdgeRule = Literal["linspace", "linspace64", "torch", "torch32", "torch32-eps", "floor"]
"""How a library finds the interior edges; see `library_thresholds`."""


@lru_cache(maxsize=64)
def library_thresholds(
    rule: EdgeRule, n_bins: int, dtype: torch.dtype, closed: Closed
) -> tuple[float, ...]:
    """Give the interior edges that another library uses for data of ``dtype``.

    Args:
        rule: ``"linspace"``: `numpy.linspace` rounded to the type. ``"linspace64"``: the same
            edges, with which the data are compared in float64. ``"torch"``: `torch.linspace` in
            the type. ``"torch32"``: `torch.linspace` in float32. ``"torch32-eps"``: the same, from
            0 to 1 + 2^-23. ``"floor"``: the bin is ``floor(p * n_bins)``, with the product in
            float64.
        n_bins: Number of bins over [0, 1].
        dtype: float32 or float64.
        closed: Which side of a bin belongs to it.

    Example:
        >>> library_thresholds("floor", 4, torch.float32, "left")
        (0.25, 0.5, 0.75)
    """
    real = np.float32 if dtype == torch.float32 else np.float64
    inner: NDArray[np.floating]
    if rule == "linspace":
        inner = edges(n_bins)[1:-1].astype(real)
    elif rule == "linspace64":
        exact = edges(n_bins)[1:-1]
        inner = exact.astype(real)
        # p > edge in float64 means p > the largest number of the type that is not above the edge.
        if closed == "right":
            inner = np.where(inner > exact, np.nextafter(inner, real(0)), inner)
        else:
            inner = np.where(inner < exact, np.nextafter(inner, real(1)), inner)
    elif rule == "floor":
        inner = _floor_thresholds(n_bins, real)
    else:
        end = 1 + torch.finfo(torch.float32).eps if rule == "torch32-eps" else 1.0
        single = torch.float32 if rule != "torch" else dtype
        inner = torch.linspace(0.0, end, n_bins + 1, dtype=single).numpy()[1:-1]
    return tuple(float(edge) for edge in inner)


def _floor_thresholds(n_bins: int, real: type[np.floating]) -> NDArray[np.floating]:
    """Find the smallest p with ``floor(p * n_bins) >= k``, for k from 1 to ``n_bins - 1``."""
    k = np.arange(1, n_bins)
    found = (k / n_bins).astype(real)
    for _ in range(4):  # k / n_bins is at most a few numbers off
        below = np.nextafter(found, real(0))
        found = np.where(np.floor(below.astype(np.float64) * n_bins) >= k, below, found)
        short = np.floor(found.astype(np.float64) * n_bins) < k
        found = np.where(short, np.nextafter(found, real(1)), found)
    return found


@lru_cache(maxsize=8)
def fine_edges(fine_bins: int) -> NDArray[np.float64]:
    """Give the ``fine_bins + 1`` edges of the fine cells.

    Below 1/2 every octave from 2^-33 on is divided evenly into ``fine_bins / 64`` cells [lo, hi).
    The cells above 1/2 are their mirror images (lo, hi], and 1/2 itself is in the first of them.
    The array is shared between calls: do not write to it.

    Example:
        >>> fine_edges(64)[[0, 31, 32, 33, 64]]
        array([0.  , 0.25, 0.5 , 0.75, 1.  ])
    """
    half = fine_bins // 2
    octave, part = np.divmod(np.arange(half + 1), half // FINE_OCTAVES)
    low = np.ldexp(1 + part / (half // FINE_OCTAVES), octave - FINE_OCTAVES - 1)
    low[0] = 0.0
    return np.concatenate([low, 1 - low[-2::-1]])


@lru_cache(maxsize=8)
def fine_centres(fine_bins: int) -> NDArray[np.float64]:
    """Give the middle of every fine cell, with 0 and 1 for the outermost cells.

    The array is shared between calls: do not write to it.
    """
    cut = fine_edges(fine_bins)
    centres = (cut[:-1] + cut[1:]) / 2
    centres[0], centres[-1] = 0.0, 1.0
    return centres
