"""Histograms of intensities: how far simple properties of an image tell cases apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcal.core.arrays import Floats
from fastcal.core.doors import bounded

MOST_BINS = 65_536
"""An image has no more grey values that a scanner tells apart."""
PERCENTILES = (1.0, 99.0)
"""They become 0 and 1, as in the preprocessing of the paper."""


def intensity_histogram(image: Any, *, n_bins: int = 64) -> Floats:
    """Return the histograms of the channels of an image, after each other.

    Each channel is scaled on its own, so that its 1st and 99th percentiles are 0 and 1, and
    clipped, as the networks see it: gain and offset of a scanner change nothing, contrast, noise
    and field of view do.

    Args:
        image: ``[Ch, *S]``
        n_bins: Bins from 0 to 1.

    Returns:
        ``[Ch * n_bins]``, shares of the voxels.

    Raises:
        TypeError, ValueError: An argument does not fit.

    Source: Vasiliuk et al., Limitations of out-of-distribution detection in 3D medical image
    segmentation, MELBA 2023 (intensity histogram features).

    Example:
        >>> intensity_histogram(np.arange(101.0)[None], n_bins=4).round(2)
        array([0.26, 0.25, 0.24, 0.26])
    """
    values = np.asarray(image)
    if values.ndim < 2 or values.size == 0 or values.dtype.kind not in "fiu":
        raise ValueError(
            f"image must be numbers [Ch, *S], got {values.dtype} of shape {values.shape}"
        )
    bounded(n_bins, "n_bins", MOST_BINS, least=2)
    if not np.isfinite(values).all():
        raise ValueError("image must hold finite numbers, got NaN or infinity")
    shares = []
    for channel in values.astype(np.float64):
        low, high = np.percentile(channel, PERCENTILES)
        scaled = np.clip((channel - low) / (high - low), 0, 1) if high > low else channel * 0
        counts, _ = np.histogram(scaled, bins=n_bins, range=(0, 1))
        shares.append(counts / channel.size)
    return np.concatenate(shares)
