"""Smooth random fields on a voxel grid, and a scanner's blur, motion and noise."""

from __future__ import annotations

import numpy as np

from fastcal.core.arrays import Floats

Millimetres = tuple[float, float, float]


def smooth_field(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    spacing: Millimetres,
    correlation: float | Millimetres,
) -> Floats:
    """Draw a periodic Gaussian random field ``[X, Y, Z]`` of mean 0 and standard deviation 1.

    Args:
        rng: Source of the noise.
        shape: Extents of the field.
        spacing: Voxel size in mm.
        correlation: Standard deviation in mm of the Gaussian that smooths white noise, one number
            or one per axis (0 leaves an axis white).
    """
    field = blur(rng.standard_normal(shape), spacing, correlation)
    field -= field.mean()
    deviation = field.std()
    return field / deviation if deviation > 0 else field


def blur(image: Floats, spacing: Millimetres, width: float | Millimetres) -> Floats:
    """Convolve with a Gaussian of standard deviation ``width`` mm, periodic at the borders."""
    widths = (width, width, width) if isinstance(width, int | float) else width
    spectrum = np.fft.rfftn(image)
    last = image.ndim - 1
    for axis, (step, sigma) in enumerate(zip(spacing, widths, strict=True)):
        frequencies = np.fft.rfftfreq if axis == last else np.fft.fftfreq
        k = frequencies(image.shape[axis], step)
        transfer = np.exp(-2.0 * (np.pi * sigma * k) ** 2)
        spectrum *= transfer.reshape([-1 if a == axis else 1 for a in range(image.ndim)])
    return np.fft.irfftn(spectrum, image.shape, axes=range(image.ndim))


def motion_ghosts(rng: np.random.Generator, image: Floats, strength: float) -> Floats:
    """Add ghosts along y, as breathing or restlessness during a Cartesian scan causes them.

    Every phase-encoding line (a frequency along y) sees the body shifted by a periodic motion of
    ``strength`` voxels. The rows of k-space get the phase of that shift.
    """
    lines = np.fft.fftfreq(image.shape[1])
    cycles = rng.uniform(3.0, 6.0)
    phase = rng.uniform(0.0, 2.0 * np.pi)
    shift = strength * np.sin(2.0 * np.pi * cycles * np.arange(lines.size) / lines.size + phase)
    spectrum = np.fft.fft(image, axis=1)
    spectrum *= np.exp(-2j * np.pi * np.fft.fftshift(shift) * lines)[None, :, None]
    return np.abs(np.fft.ifft(spectrum, axis=1))


def rician(rng: np.random.Generator, image: Floats, sigma: float) -> Floats:
    """Return the magnitude of a complex image with Gaussian noise of ``sigma`` in both parts."""
    real = image + sigma * rng.standard_normal(image.shape)
    imaginary = sigma * rng.standard_normal(image.shape)
    return np.hypot(real, imaginary)
