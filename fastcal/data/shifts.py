"""Shifts of images away from what a network was trained on: contrast, motion, noise, resolution.

Each changes an image as another scanner or another patient would, and leaves the anatomy, and so
the reference label map, where it is. They make out-of-distribution cases of known cause out of the
cases of any dataset.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from fastcal.core.arguments import choice, whole_number
from fastcal.core.arrays import Floats

GAMMA = 2.0
"""Contrast: intensities from 0 to 1 are raised to this power, or to its inverse, by a coin."""
MOVES, MOVE_VOXELS = 3, 3.0
"""Motion: how often the body moves during a slice, and the standard deviation in voxels."""
NOISE = 0.15
"""Noise: its standard deviation, as a share of the range of intensities."""
COARSER = 3
"""Resolution: voxels of a slice that become one, along either axis."""
PERCENTILES = (1.0, 99.0)
"""The range of intensities lies between these percentiles of a channel."""


def shifted(
    image: NDArray[np.floating], name: str, *, slice_axis: int = 2, seed: int = 0
) -> Floats:
    """Return an image as it would look after a named shift.

    Args:
        image: ``[Ch, X, Y, Z]``, in any units. Each channel is shifted in its own range.
        name: ``"contrast"`` (a gamma of 2 or 1/2), ``"motion"`` (three translations within each
            slice, in k-space), ``"noise"`` (Rician, 15 % of the range) or ``"resolution"`` (slices
            of a third of the resolution, on the same grid).
        slice_axis: Which of X, Y and Z is across the slices.
        seed: Of everything random; one seed gives the same image everywhere.

    Returns:
        float64, ``[Ch, X, Y, Z]``, in the same units.

    Raises:
        TypeError: ``seed`` or ``slice_axis`` is not an integer.
        ValueError: There is no such shift, the image does not have four axes, or the axis is none.

    Example:
        >>> image = np.random.default_rng(0).random((1, 12, 12, 4))
        >>> noisy = shifted(image, "noise", seed=1)
        >>> noisy.shape, bool((noisy != image).all())
        ((1, 12, 12, 4), True)
    """
    change = _SHIFTS[choice(name, "name", tuple(_SHIFTS))]
    if image.ndim != 4:
        raise ValueError(f"image must have shape [Ch, X, Y, Z], got {image.shape}")
    if whole_number(slice_axis, "slice_axis") not in (0, 1, 2):
        raise ValueError(f"slice_axis must be 0, 1 or 2, got {slice_axis}")
    random = np.random.default_rng([whole_number(seed, "seed"), list(_SHIFTS).index(name)])
    slices = np.moveaxis(np.asarray(image, np.float64), 1 + slice_axis, 1)  # [Ch, N, H, W]
    found = np.empty_like(slices)
    for channel, values in enumerate(slices):
        low, high = np.percentile(values, PERCENTILES)
        scale = high - low if high > low else 1.0
        found[channel] = low + scale * change((values - low) / scale, random)
    back: Floats = np.moveaxis(found, 1, 1 + slice_axis)
    return back


def _contrast(slices: Floats, random: np.random.Generator) -> Floats:
    gamma = GAMMA if random.random() < 0.5 else 1.0 / GAMMA
    # The sign keeps the few values below the range in their order.
    curved: Floats = np.sign(slices) * np.abs(slices) ** gamma
    return curved


def _motion(slices: Floats, random: np.random.Generator) -> Floats:
    """Measure the lines of k-space in order, while the body moves between some of them."""
    lines, columns = slices.shape[1:]
    measured = np.fft.fft2(slices)
    # From the lowest frequency to the highest and on: an order like that of a sequential scan.
    order = np.argsort(np.fft.fftfreq(lines))
    moves = np.sort(random.integers(1, lines, MOVES))
    place = np.zeros((lines, 2))
    for start in moves:
        place[start:] += random.normal(0.0, MOVE_VOXELS, 2)
    place -= place[lines // 2]  # where the body was when the centre of k-space was measured
    shift = np.empty_like(place)
    shift[order] = place
    ky, kx = np.fft.fftfreq(lines)[:, None], np.fft.fftfreq(columns)[None, :]
    phase = np.exp(-2j * np.pi * (ky * shift[:, :1] + kx * shift[:, 1:]))
    moved: Floats = np.abs(np.fft.ifft2(measured * phase))
    return moved


def _noise(slices: Floats, random: np.random.Generator) -> Floats:
    real, imaginary = random.normal(0.0, NOISE, (2, *slices.shape))
    noisy: Floats = np.hypot(slices + real, imaginary)
    return noisy


def _resolution(slices: Floats, random: np.random.Generator) -> Floats:
    del random
    whole = torch.from_numpy(np.ascontiguousarray(slices))[:, None]
    extents = whole.shape[2:]
    coarse = functional.interpolate(
        whole, size=[max(1, round(extent / COARSER)) for extent in extents], mode="area"
    )
    fine = functional.interpolate(coarse, size=list(extents), mode="bilinear")
    found: Floats = fine[:, 0].numpy()
    return found


_SHIFTS: dict[str, Callable[[Floats, np.random.Generator], Floats]] = {
    "contrast": _contrast,
    "motion": _motion,
    "noise": _noise,
    "resolution": _resolution,
}
SHIFTS = tuple(_SHIFTS)
