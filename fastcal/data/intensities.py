"""Intensities of an image as a network sees them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

Normalisation = Literal["percentile", "zscore", "ct"]
NORMALISATIONS: tuple[Normalisation, ...] = ("percentile", "zscore", "ct")

# nnU-Net: percentiles of the foreground that bound a CT window.
CT_PERCENTILES = (0.5, 99.5)
# A channel that varies less than this carries nothing (nnU-Net divides by no less either).
SMALLEST_DEVIATION = 1e-8


class Window(NamedTuple):
    """A channel's foreground over the training cases: what ``"ct"`` clips and scales by."""

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
    """Normalise each channel of an image ``[Ch, X, Y, Z]`` for itself.

    ``"percentile"``: the channel's own percentiles become 0 and 1, clipped. ``"zscore"``: ``(x -
    mean) / sd`` of the channel. ``"ct"``: clipped to the window, then its mean and deviation, which
    are those of the training set (nnU-Net's CTNormalization). A constant channel becomes zeros.

    Args:
        image: real or integer voxels.
        schemes: one a channel.
        percentiles: of ``"percentile"``.
        nonzero: ``"percentile"`` and ``"zscore"`` look at the voxels where any channel differs from
            0, and the others become 0, as nnU-Net has it for images with a mask.
        windows: one a channel where a scheme is ``"ct"``.

    Raises:
        ValueError: NaN or infinities.
    """
    for channel, values in enumerate(image):
        if not np.isfinite(values).all():
            raise ValueError(f"image: channel {channel} holds NaN or infinities")
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
    """The windows of ``"ct"`` from foreground voxels ``[Ch, V]`` of each training case.

    Raises:
        ValueError: no foreground voxel in any case.
    """
    found = [np.asarray(sample, np.float64) for sample in samples if sample.shape[1]]
    if not found:
        raise ValueError("normalisation 'ct': no case has a foreground voxel")
    pooled = np.concatenate(found, axis=1)
    windows = []
    for values in pooled:
        low, high = np.percentile(values, CT_PERCENTILES).tolist()
        windows.append(Window(low, high, float(values.mean()), float(values.std())))
    return tuple(windows)
