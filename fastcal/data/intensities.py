"""Normalisation of intensities for a network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

Normalisation = Literal["percentile", "zscore", "ct"]
NORMALISATIONS: tuple[Normalisation, ...] = ("percentile", "zscore", "ct")

# Percentiles of the foreground that bound a CT window, as in nnU-Net.
CT_PERCENTILES = (0.5, 99.5)
# A channel with a smaller deviation carries no information. It is nnU-Net's smallest divisor, too.
SMALLEST_DEVIATION = 1e-8


class Window(NamedTuple):
    """Foreground statistics of a channel in the training cases, by which ``"ct"`` normalises."""

    low: float
    high: float
    mean: float
    deviation: float


def normalise(
    image: NDArray[Any],
    schemes: Sequence[Normalisation],
    *,
    percentiles: tuple[float, float],
    nonzero: bool,
    windows: Sequence[Window] | None,
) -> NDArray[np.float32]:
    """Normalise each channel of an image ``[Ch, X, Y, Z]`` separately.

    ``"percentile"`` maps the channel's own percentiles to 0 and 1, and clips. ``"zscore"`` computes
    ``(x - mean) / sd`` of the channel. ``"ct"`` clips to the window, and then uses its mean and
    deviation, which are those of the training set (nnU-Net's CTNormalization). A constant channel
    becomes zeros.

    Args:
        image: Real or integer voxels.
        schemes: One scheme per channel.
        percentiles: The two percentiles of ``"percentile"``.
        nonzero: ``"percentile"`` and ``"zscore"`` use only voxels where any channel differs from 0,
            and the others become 0, as in nnU-Net for images with a mask.
        windows: One window per channel, where a scheme is ``"ct"``.

    Raises:
        ValueError: The image holds NaN or infinities.
    """
    for channel, values in enumerate(image):
        if not np.isfinite(values).all():
            raise ValueError(f"image must be finite, got NaN or infinities in channel {channel}")
    inside = image.any(axis=0) if nonzero else None
    if inside is not None and not inside.any():
        inside = None
    result = np.empty(image.shape, dtype=np.float32)
    for channel, (values, scheme) in enumerate(zip(image, schemes, strict=True)):
        if scheme == "ct":
            assert windows is not None
            window = windows[channel]
            clipped = np.clip(values, window.low, window.high)
            result[channel] = (clipped - window.mean) / max(window.deviation, SMALLEST_DEVIATION)
            continue
        seen = values if inside is None else values[inside]
        if scheme == "percentile":
            low, high = np.percentile(seen, percentiles).tolist()
            scale = 1.0 / (high - low) if high > low else 0.0
            result[channel] = np.clip((values - low) * scale, 0.0, 1.0)
        else:
            mean, deviation = float(seen.mean(dtype=np.float64)), float(seen.std(dtype=np.float64))
            scale = 1.0 / deviation if deviation > SMALLEST_DEVIATION else 0.0
            result[channel] = (values - mean) * scale
        if inside is not None:
            result[channel][~inside] = 0.0
    return result


def foreground_windows(samples: Iterable[NDArray[Any]]) -> tuple[Window, ...]:
    """Compute the windows of ``"ct"`` from foreground voxels ``[Ch, V]`` of each training case.

    Raises:
        ValueError: No case has a foreground voxel.
    """
    found = [np.asarray(sample, np.float64) for sample in samples if sample.shape[1]]
    if not found:
        raise ValueError(
            "normalisation must not be 'ct' without foreground: no case has a foreground voxel"
        )
    pooled = np.concatenate(found, axis=1)
    windows = []
    for values in pooled:
        low, high = np.percentile(values, CT_PERCENTILES).tolist()
        windows.append(Window(low, high, float(values.mean()), float(values.std())))
    return tuple(windows)
