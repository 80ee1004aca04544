"""Augmentation of a whole batch on its device, with every random number drawn from one seed."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcal.core.arrays import Floats, Integers
from fastcal.train import intensity
from fastcal.train.augmentation import AugmentationConfig, Range
from fastcal.train.spatial import Warp, draw_warp, mirror, warp


def augment(
    images: Tensor,
    labels: Tensor,
    config: AugmentationConfig,
    *,
    seed: int,
    patch: tuple[int, ...] | None = None,
) -> tuple[Tensor, Tensor]:
    """Augment a batch on the device it is on.

    Every parameter is drawn on the CPU from the seed alone, so that every device gets the same
    parameters. Only the noise itself comes from the device's own generator.

    Args:
        images: ``[B, Ch, *Q]`` with two or three spatial axes, float32 or bfloat16 (computed in
            float32).
        labels: ``[B, *Q]``, integers below 2^24.
        config: Which transforms may be applied.
        seed: The seed of the batch.
        patch: Extents ``P`` to cut about the centre. The margin around them holds what a rotation
            turns into the patch; see `source_extents`. None keeps ``Q``.

    Returns:
        Images ``[B, Ch, *P]`` and labels ``[B, *P]`` in the types given.

    Example:
        >>> import torch
        >>> config = AugmentationConfig(preset="nnunet")
        >>> images, labels = torch.rand(2, 1, 32, 32), torch.ones(2, 32, 32, dtype=torch.uint8)
        >>> images, labels = augment(images, labels, config, seed=0)
        >>> images.shape, labels.dtype
        (torch.Size([2, 1, 32, 32]), torch.uint8)
    """
    patch = tuple(labels.shape[1:]) if patch is None else patch
    batch, channels = images.shape[:2]
    dtype, images = images.dtype, images.float()
    images, labels = warp(images, labels, _draw_warp(config, seed, batch, patch), patch)

    def strike(name: str, low: float, high: float, *, channelwise: float = 1.0) -> _Strike:
        random = _stream(seed, name)
        items = np.flatnonzero(random.random(batch) < getattr(config, name))
        values = random.uniform(low, high, (batch, channels))
        spared = random.random((batch, channels)) >= channelwise
        return _Strike(items, values[items], spared[items])

    # nnU-Net's order.
    noise = strike("noise", *config.noise_sigma)
    generator = torch.Generator(images.device).manual_seed(seed)
    images = noise.on(images, partial(intensity.add_noise, generator=generator), shared=True)
    largest = config.blur_sigma[1]
    blurred = strike("blur", *config.blur_sigma, channelwise=0.5)
    images = blurred.on(images, partial(intensity.blur, largest=largest), neutral=0.0)
    images = strike("brightness", *config.brightness_range).on(images, intensity.brighten)
    images = strike("shift", *config.shift_range).on(images, intensity.shift)
    images = strike("contrast", *config.contrast_range).on(images, intensity.change_contrast)
    coarse = strike("low_resolution", *config.low_resolution_range, channelwise=0.5)
    images = coarse.on(images, intensity.lower_resolution, neutral=1.0)
    # Half of the exponents are below 1, however unequal the range is.
    for name, invert in (("inverted_gamma", True), ("gamma", False)):
        curved = strike(name, -1.0, 1.0)
        curved = replace(curved, values=_exponents(curved.values, config.gamma_range))
        images = curved.on(images, partial(intensity.apply_gamma, invert=invert))
    mirror(images, labels, _mirrored(config, seed, batch, len(patch)))
    return images.to(dtype), labels


def source_extents(
    config: AugmentationConfig, *, seed: int, batch: int, patch: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the extents ``Q`` to cut from the cases, so that `augment` can fill the patches.

    Args:
        config: Which transforms may be applied.
        seed: The seed of the batch.
        batch: Items of the batch.
        patch: Extents ``P`` of a patch.
    """
    return _draw_warp(config, seed, batch, patch).source_extents(patch)


@dataclass(frozen=True, slots=True)
class _Strike:
    """The items that a transform is applied to, and its parameter for each of their channels."""

    items: Integers
    values: Floats
    spared: NDArray[np.bool_]
    """Channels that keep their intensities; they get a neutral value of the parameter."""

    def on(
        self,
        images: Tensor,
        transform: Callable[[Tensor, Tensor], Tensor],
        *,
        neutral: float | None = None,
        shared: bool = False,
    ) -> Tensor:
        """Transform the chosen items in place; ``shared`` uses one value for all channels."""
        if len(self.items) == 0:
            return images
        values = self.values[:, :1].repeat(images.shape[1], 1) if shared else self.values
        if neutral is not None:
            values = np.where(self.spared, neutral, values)
        # Small copies, which do not wait for the device to finish its work.
        index = torch.from_numpy(self.items).to(images.device, non_blocking=True)
        parameters = torch.from_numpy(values).float().to(images.device, non_blocking=True)
        return images.index_copy_(0, index, transform(images[index], parameters))


def _stream(seed: int, name: str) -> np.random.Generator:
    """Return a generator for one transform, so that changing one leaves the others unchanged."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _draw_warp(config: AugmentationConfig, seed: int, batch: int, patch: tuple[int, ...]) -> Warp:
    return draw_warp(config, _stream(seed, "warp"), batch, patch)


def _mirrored(config: AugmentationConfig, seed: int, batch: int, dims: int) -> NDArray[np.bool_]:
    mirrored = _stream(seed, "mirror").random((batch, dims)) < config.mirror
    if config.mirror_axes is not None:
        mirrored[:, [axis for axis in range(dims) if axis not in config.mirror_axes]] = False
    return mirrored


def _exponents(uniform: Floats, bounds: Range) -> Floats:
    """Map [-1, 0) to the part of the range below 1, and [0, 1] to the part above it."""
    low, high = bounds
    below, above = min(low, 1.0), max(high, 1.0)
    if low >= 1.0 or high <= 1.0:
        return low + (uniform + 1.0) / 2.0 * (high - low)
    return np.where(uniform < 0, 1.0 + uniform * (1.0 - below), 1.0 + uniform * (above - 1.0))
