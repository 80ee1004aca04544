"""Settings of augmentation: what may happen to an item of a batch, how often and how strongly."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from fastcal.train.section import Extent, Section

Probability = Field(default=0.0, ge=0.0, le=1.0)


def _within(least: float, most: float = math.inf) -> AfterValidator:
    def check(bounds: tuple[float, float]) -> tuple[float, float]:
        if not least <= bounds[0] <= bounds[1] <= most:
            raise ValueError(f"two numbers with {least} <= low <= high <= {most}")
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


class AugmentationConfig(Section):
    """How often each transform is applied, and how strongly.

    A probability is drawn for every item of a batch separately. By default nothing is augmented,
    as in the paper. ``"nnunet"`` in place of the whole section, or as its ``preset``, selects
    nnU-Net's probabilities; other keys then change single settings.

    Example:
        >>> AugmentationConfig().active
        False
        >>> AugmentationConfig.model_validate({"preset": "nnunet", "gamma": 0.5}).gamma
        0.5
    """

    preset: Literal["none", "nnunet"] = "none"
    rotation: float = Probability
    rotation_degrees: float | None = None
    """Angles are uniform between minus and plus this number, about each axis in three dimensions.
    None selects nnU-Net's: 180 in two dimensions and 30 in three."""
    scaling: float = Probability
    scaling_range: Factors = (0.7, 1.4)
    """Factors above 1 magnify."""
    elastic: float = Probability
    elastic_deformation: Deviations = (0.0, 0.25)
    """Standard deviation of the displacements, as a share of the distance between their points."""
    elastic_spacing: Extent = 16
    """Voxels between the points whose displacements are drawn; cubic interpolation in between."""
    mirror: float = Probability
    mirror_axes: tuple[Axis, ...] | None = None
    """Spatial axes of an item, each of which is mirrored with the probability; None for all."""
    noise: float = Probability
    noise_sigma: Deviations = (0.0, 0.1)
    """Standard deviation in units of the normalised intensities."""
    blur: float = Probability
    blur_sigma: Deviations = (0.5, 1.0)
    """Standard deviation in voxels."""
    brightness: float = Probability
    brightness_range: Deviations = (0.75, 1.25)
    """Factor by which intensities are multiplied."""
    shift: float = Probability
    shift_range: Annotated[Range, _within(-math.inf)] = (-0.1, 0.1)
    """Offset added to the intensities, in units of the normalised intensities."""
    contrast: float = Probability
    contrast_range: Deviations = (0.75, 1.25)
    """Factor by which distances from the mean are multiplied; the result is clipped to the item's
    own range."""
    low_resolution: float = Probability
    low_resolution_range: Shares = (0.5, 1.0)
    """Extents of the coarse grid, as a share of the item's extents."""
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
        """Whether any transform has a probability above 0."""
        return any(getattr(self, name) > 0 for name in (*NNUNET, "elastic", "shift"))
