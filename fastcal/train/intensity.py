"""Noise, blur, brightness, contrast, low resolution and gamma, for the struck items of a batch.

Each takes images ``[K, Ch, *P]`` (float32), and one number for each item and channel ``[K, Ch]``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def add_noise(images: Tensor, sigmas: Tensor, *, generator: torch.Generator) -> Tensor:
    """Gaussian noise of a standard deviation."""
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return images + noise * _spread(sigmas, images)


def blur(images: Tensor, sigmas: Tensor, *, largest: float) -> Tensor:
    """Gaussian blur of a standard deviation in voxels, with the border's voxels beyond it.

    Args:
        images: ``[K, Ch, *P]``.
        sigmas: ``[K, Ch]``; 0 leaves a channel as it is.
        largest: no sigma is above it; the kernel reaches three of them.
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
    """Intensities times a factor."""
    return images * _spread(factors, images)


def shift(images: Tensor, offsets: Tensor) -> Tensor:
    """Intensities plus an offset."""
    return images + _spread(offsets, images)


def change_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Distances from the mean times a factor, within the channel's own range."""
    low, high = _range(images)
    mean, centred = _centred(images)
    return (centred * _spread(factors, images) + mean).clamp(low, high)


def lower_resolution(images: Tensor, scales: Tensor) -> Tensor:
    """As if seen on a grid of ``scale`` times the extents: nearest voxels of it, linear between."""
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
            # The fine voxel at the centre of the coarse one.
            voxel = ((cell + 0.5) * extent / coarse).long().clamp(0, extent - 1)
            ends.append(images.gather(axis, voxel.view(shape).expand(images.shape)))
        images = ends[0] + (ends[1] - ends[0]) * between.view(shape)
    return images


def apply_gamma(images: Tensor, exponents: Tensor, *, invert: bool = False) -> Tensor:
    """A power of the intensities, scaled to [0, 1] for it; mean and deviation stay as they were.

    ``invert`` takes the power of the negative image, which bends the bright end.
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
    """``[K, Ch]`` to ``[K, Ch, 1, ...]``."""
    return values.view(*values.shape, *[1] * (images.ndim - 2))
