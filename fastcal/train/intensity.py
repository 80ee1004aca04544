"""Noise, blur, brightness, contrast, low resolution and gamma for chosen items of a batch.

Each function takes float32 images ``[K, Ch, *P]`` and one number per item and channel ``[K, Ch]``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def add_noise(images: Tensor, sigmas: Tensor, *, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of the standard deviations ``sigmas``."""
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return images + noise * _spread(sigmas, images)


def blur(images: Tensor, sigmas: Tensor, *, largest: float) -> Tensor:
    """Blur with a Gaussian; the voxels at the border are repeated beyond it.

    Args:
        images: ``[K, Ch, *P]``.
        sigmas: Standard deviations ``[K, Ch]`` in voxels; 0 leaves a channel as it is.
        largest: Upper bound of the sigmas; the kernel reaches three times as far.
    """
    reach = max(1, math.ceil(3 * largest))
    taps = torch.arange(-reach, reach + 1, device=images.device)
    weights = torch.exp(-0.5 * (taps / sigmas.clamp_min(1e-3).unsqueeze(-1)) ** 2)
    weights = weights / weights.sum(-1, keepdim=True)
    for axis in range(2, images.ndim):
        extent = images.shape[axis]
        reached = torch.arange(-reach, extent + reach, device=images.device)
        padded = images.index_select(axis, reached.clamp(0, extent - 1))
        images = torch.zeros_like(images)
        for tap in range(2 * reach + 1):
            weight = _spread(weights[..., tap], images)
            images.addcmul_(padded.narrow(axis, tap, extent), weight)
    return images


def brighten(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply intensities by a factor."""
    return images * _spread(factors, images)


def shift(images: Tensor, offsets: Tensor) -> Tensor:
    """Add an offset to the intensities."""
    return images + _spread(offsets, images)


def change_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply distances from the mean by a factor, and clip to the channel's own range."""
    low, high = _range(images)
    mean, centred = _centred(images)
    return (centred * _spread(factors, images) + mean).clamp(low, high)


def lower_resolution(images: Tensor, scales: Tensor) -> Tensor:
    """Show the images as seen on a coarser grid.

    The coarse grid has ``scale`` times the extents. Its voxels are the nearest fine ones, and the
    images are interpolated linearly between them.
    """
    for axis in range(2, images.ndim):
        extent = images.shape[axis]
        coarse = (extent * scales).round().clamp(1, extent).unsqueeze(-1)
        places = (torch.arange(extent, device=images.device) + 0.5) * coarse / extent - 0.5
        places = places.clamp_min(0).minimum(coarse - 1)
        lower = places.floor()
        between = places - lower
        shape = [*images.shape[:2], *[1] * (axis - 2), extent, *[1] * (images.ndim - axis - 1)]
        ends = []
        for cell in (lower, (lower + 1).minimum(coarse - 1)):
            # The fine voxel at the centre of a coarse one.
            voxel = ((cell + 0.5) * extent / coarse).long().clamp(0, extent - 1)
            ends.append(images.gather(axis, voxel.view(shape).expand(images.shape)))
        images = ends[0] + (ends[1] - ends[0]) * between.view(shape)
    return images


def apply_gamma(images: Tensor, exponents: Tensor, *, invert: bool = False) -> Tensor:
    """Raise intensities, scaled to [0, 1], to a power; keep their mean and standard deviation.

    Args:
        images: ``[K, Ch, *P]``.
        exponents: ``[K, Ch]``.
        invert: Take the power of the negative image, which bends the bright end of the range.
    """
    if invert:
        return -apply_gamma(-images, exponents)
    low, high = _range(images)
    extent = (high - low).clamp_min(1e-7)
    curved = ((images - low) / extent) ** _spread(exponents, images)
    mean, centred = _centred(images)
    _, curved = _centred(curved)
    return curved * (_deviation(centred) / _deviation(curved).clamp_min(1e-7)) + mean


def _space(images: Tensor) -> list[int]:
    return list(range(2, images.ndim))


def _centred(images: Tensor) -> tuple[Tensor, Tensor]:
    mean = images.mean(_space(images), keepdim=True)
    return mean, images - mean


def _deviation(centred: Tensor) -> Tensor:
    return centred.square().mean(_space(centred), keepdim=True).sqrt()


def _range(images: Tensor) -> tuple[Tensor, Tensor]:
    space = _space(images)
    return images.amin(space, keepdim=True), images.amax(space, keepdim=True)


def _spread(values: Tensor, images: Tensor) -> Tensor:
    """Reshape ``[K, Ch]`` to ``[K, Ch, 1, ...]``."""
    return values.view(*values.shape, *[1] * (images.ndim - 2))
