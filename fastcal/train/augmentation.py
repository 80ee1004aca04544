"""Augmentation of whole batches where they are, every random number from one seed."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from fastcal.train import intensity
from fastcal.train.spatial import Warp, draw_warp, mirror, warp

if TYPE_CHECKING:
    import numpy.typing as npt

Probability = Field(default=0.0, ge=0.0, le=1.0)


def _within(least: float, most: float = math.inf) -> AfterValidator:
    def check(bounds: tuple[float, float]) -> tuple[float, float]:
        if not least <= bounds[0] <= bounds[1] <= most:
            raise ValueError(f"got {bounds}, expected {least} <= low <= high <= {most}")
        return bounds

    return AfterValidator(check)


Range = tuple[float, float]
Deviations = Annotated[Range, _within(0.0)]
Factors = Annotated[Range, _within(0.01)]
Shares = Annotated[Range, _within(0.01, 1.0)]
Axis = Annotated[int, Field(ge=0, le=2)]

# nnU-Net v2's DefaultTrainer (batchgeneratorsv2), three dimensions.
NNUNET: dict[str, Any] = {
    "rotation": 0.2,
    "scaling": 0.2,
    "noise": 0.1,
    "blur": 0.2,
    "brightness": 0.15,
    "contrast": 0.15,
    "low_resolution": 0.25,
    "inverted_gamma": 0.1,
    "gamma": 0.3,
    "mirror": 0.5,
}


class AugmentationConfig(BaseModel):
    """How often and how much; each transform strikes each item of a batch by itself.

    Without settings nothing is augmented, as in the paper. ``"nnunet"`` in place of the section,
    or as its ``preset``, has nnU-Net's probabilities; other keys then change single ones.

    Example:
        >>> AugmentationConfig().active
        False
        >>> AugmentationConfig.model_validate({"preset": "nnunet", "gamma": 0.5}).gamma
        0.5
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Literal["none", "nnunet"] = "none"
    rotation: float = Probability
    rotation_degrees: float | None = None
    """Angles are uniform in +-this, about each axis in three dimensions. None: nnU-Net's, 180 in
    two dimensions and 30 in three."""
    scaling: float = Probability
    scaling_range: Factors = (0.7, 1.4)
    """Above 1 magnifies."""
    elastic: float = Probability
    elastic_deformation: Deviations = (0.0, 0.25)
    """Standard deviation of the displacements, as a share of the distance of their points."""
    elastic_spacing: int = Field(default=16, ge=1)
    """Voxels between the points whose displacements are drawn; cubic in between."""
    mirror: float = Probability
    mirror_axes: tuple[Axis, ...] | None = None
    """Spatial axes of an item, each mirrored with the probability; None: all."""
    noise: float = Probability
    noise_sigma: Deviations = (0.0, 0.1)
    """In units of the normalised intensities, as those of shift."""
    blur: float = Probability
    blur_sigma: Deviations = (0.5, 1.0)
    """Voxels."""
    brightness: float = Probability
    brightness_range: Deviations = (0.75, 1.25)
    """Intensities are multiplied by it."""
    shift: float = Probability
    shift_range: Annotated[Range, _within(-math.inf)] = (-0.1, 0.1)
    """Added to the intensities."""
    contrast: float = Probability
    contrast_range: Deviations = (0.75, 1.25)
    """Distances from the mean are multiplied by it, and clipped to the item's own range."""
    low_resolution: float = Probability
    low_resolution_range: Shares = (0.5, 1.0)
    """Extents of the coarse grid, as a share of the item's."""
    inverted_gamma: float = Probability
    gamma: float = Probability
    gamma_range: Factors = (0.7, 1.5)

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {"preset": data}
        if isinstance(data, dict) and data.get("preset") == "nnunet":
            data = {**NNUNET, **data}
        return data

    @property
    def active(self) -> bool:
        """Whether anything may strike."""
        return any(getattr(self, name) > 0 for name in (*NNUNET, "elastic", "shift"))


def augment(
    images: Tensor,
    labels: Tensor,
    config: AugmentationConfig,
    *,
    seed: int,
    patch: tuple[int, ...] | None = None,
) -> tuple[Tensor, Tensor]:
    """Augment a batch on the device it is on.

    Every parameter is drawn on the CPU from the seed alone, so that every device draws the same;
    only the noise itself comes from the device's own generator.

    Args:
        images: ``[B, Ch, *Q]``, two or three spatial axes, float32 or bfloat16 (computed in
            float32).
        labels: ``[B, *Q]``, integers below 2^24.
        config: what may happen.
        seed: of the batch.
        patch: extents ``P`` to cut about the centre, so that what a rotation turns into the patch
            is there; see `source_extents`. None: ``Q``.

    Returns:
        images ``[B, Ch, *P]`` and labels ``[B, *P]`` of the types given.

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
    """Extents ``Q`` to cut from the cases, so that `augment` finds all that the patches show."""
    return _draw_warp(config, seed, batch, patch).source_extents(patch)


@dataclass(frozen=True, slots=True)
class _Strike:
    """The items that a transform strikes, and its parameter for each of their channels."""

    items: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    spared: npt.NDArray[np.bool_]
    """Channels that keep their intensities, by a neutral value of the parameter."""

    def on(
        self,
        images: Tensor,
        transform: Callable[[Tensor, Tensor], Tensor],
        *,
        neutral: float | None = None,
        shared: bool = False,
    ) -> Tensor:
        """Transform the struck items in place; ``shared``: one value for all channels."""
        if len(self.items) == 0:
            return images
        values = self.values[:, :1].repeat(images.shape[1], 1) if shared else self.values
        if neutral is not None:
            values = np.where(self.spared, neutral, values)
        # Small copies that do not wait for what the device is at.
        index = torch.from_numpy(self.items).to(images.device, non_blocking=True)
        parameters = torch.from_numpy(values).float().to(images.device, non_blocking=True)
        return images.index_copy_(0, index, transform(images[index], parameters))


def _stream(seed: int, name: str) -> np.random.Generator:
    """A stream of its own for each transform: to change one leaves the others as they were."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _draw_warp(config: AugmentationConfig, seed: int, batch: int, patch: tuple[int, ...]) -> Warp:
    return draw_warp(config, _stream(seed, "warp"), batch, patch)


def _mirrored(
    config: AugmentationConfig, seed: int, batch: int, dims: int
) -> npt.NDArray[np.bool_]:
    mirrored = _stream(seed, "mirror").random((batch, dims)) < config.mirror
    if config.mirror_axes is not None:
        mirrored[:, [axis for axis in range(dims) if axis not in config.mirror_axes]] = False
    return mirrored


def _exponents(uniform: npt.NDArray[np.float64], bounds: Range) -> npt.NDArray[np.float64]:
    """From [-1, 1] to the part of the range below 1 and the part above it, half and half."""
    low, high = bounds
    below, above = min(low, 1.0), max(high, 1.0)
    if low >= 1.0 or high <= 1.0:
        return low + (uniform + 1.0) / 2.0 * (high - low)
    return np.where(uniform < 0, 1.0 + uniform * (1.0 - below), 1.0 + uniform * (above - 1.0))
