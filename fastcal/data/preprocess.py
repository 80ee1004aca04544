"""Preprocessing of a volume for a network, and the way back from its output to the volume."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fastcal.core.doors import check_claim
from fastcal.data.intensities import NORMALISATIONS, Normalisation, Window, normalise
from fastcal.data.resample import (
    Interpolation,
    LabelInterpolation,
    coarse_axis,
    resample,
    resample_labels,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastcal.data.nifti import Geometry

MOST_VOXELS = 2**31
"""Of an item, which takes 8 GiB per channel in float32."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How items ``[N, Ch, *P]`` are made from a volume: orientation, spacing, intensities, size.

    In two dimensions, items are the slices along one axis; in three, the volume is the only item.
    The spatial axes ``P`` keep the order of the volume's (oriented) axes.

    Example:
        >>> Preprocessing(slice_axis=2, size=(48, 64)).in_plane
        (0, 1)
        >>> Preprocessing(dims=3, spacing=(1.0, 1.0, 1.0)).reorients
        True
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}
    """For readers of run folders: a key that nobody knows is none of ours."""

    slice_axis: int = 2
    """Axis along which slices are stacked in two dimensions, counted after reorientation."""
    spacing: tuple[float, ...] | None = None
    """Spacing of `P` in mm to resample to; None keeps each volume's own."""
    size: tuple[int, ...] | None = None
    """Extents of `P`. Smaller items are padded with zeros about their centre; larger ones are
    cropped where `apply` is told to. None keeps each volume's own."""
    percentiles: tuple[float, float] = (1.0, 99.0)
    """Percentiles of the intensities that ``"percentile"`` maps to 0 and 1."""
    dims: Literal[2, 3] = 2
    reorient: bool | None = None
    """Turn the axes to RAS (right, anterior, superior) by the affine. None does so only in three
    dimensions."""
    normalisation: Normalisation | tuple[Normalisation, ...] = "percentile"
    """Scheme of all channels, or one per channel; see `fastcal.data.intensities.normalise`."""
    nonzero: bool = False
    """Normalise by the voxels where any channel is not 0, and leave the others 0."""
    crop_to_nonzero: bool = False
    """In training, keep the bounding box of the voxels that are not 0, as in nnU-Net; prediction
    sees the whole volume. This needs patches, because items then have sizes of their own."""
    windows: tuple[Window, ...] | None = None
    """One window per channel for ``"ct"``, with foreground statistics of the training set."""
    interpolation: Interpolation = "linear"
    """Interpolation of images that are resampled."""
    label_interpolation: LabelInterpolation = "nearest"
    """Interpolation of label maps that are resampled. ``"linear"`` is nnU-Net's, which takes the
    label with the largest share of a voxel."""

    def __post_init__(self) -> None:
        if self.dims not in (2, 3):
            raise ValueError(f"dims must be 2 or 3, got {self.dims!r}")
        if self.slice_axis not in (0, 1, 2):
            raise ValueError(f"slice_axis must be 0, 1 or 2, got {self.slice_axis!r}")
        for name, numbers in (("spacing", self.spacing), ("size", self.size)):
            if numbers is not None and (len(numbers) != self.dims or min(numbers) <= 0):
                raise ValueError(f"{name} must be {self.dims} positive numbers, got {numbers!r}")
        if self.size is not None and math.prod(self.size) > MOST_VOXELS:
            raise ValueError(f"size must have at most {MOST_VOXELS} voxels, got {self.size!r}")
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(
                "percentiles must be two numbers with 0 <= low < high <= 100, "
                f"got {self.percentiles!r}"
            )
        if self.crop_to_nonzero and self.size is not None:
            raise ValueError(
                "crop_to_nonzero must be False where size is set, got True: items of their own "
                "extents cannot have one size"
            )
        schemes = self.normalisation
        for scheme in (schemes,) if isinstance(schemes, str) else schemes:
            if scheme not in NORMALISATIONS:
                raise ValueError(
                    f"normalisation must be one of {', '.join(NORMALISATIONS)}, got {scheme!r}"
                )
            if scheme == "ct" and self.windows is None:
                raise ValueError(
                    "windows must hold the foreground statistics of the training set for 'ct', "
                    "got None"
                )
        if self.interpolation not in ("linear", "cubic"):
            raise ValueError(
                f"interpolation must be 'linear' or 'cubic', got {self.interpolation!r}"
            )
        if self.label_interpolation not in ("nearest", "linear"):
            raise ValueError(
                "label_interpolation must be 'nearest' or 'linear', "
                f"got {self.label_interpolation!r}"
            )

    @property
    def reorients(self) -> bool:
        """Whether the axes are turned to RAS."""
        return self.dims == 3 if self.reorient is None else self.reorient

    @property
    def in_plane(self) -> tuple[int, ...]:
        """The axes of the (oriented) volume that are `P`."""
        if self.dims == 3:
            return (0, 1, 2)
        return tuple(axis for axis in range(3) if axis != self.slice_axis)

    def extents(self, like: Geometry) -> tuple[int, ...]:
        """Return the extents of a volume's `P` after resampling, before padding and cropping.

        Raises:
            ValueError: The spacing would make an item of more than `MOST_VOXELS`.
        """
        own = self._own_extents(like)
        if self.spacing is None:
            return own
        steps = self.own_spacing(like)
        wished = [
            n * step / wanted for n, step, wanted in zip(own, steps, self.spacing, strict=True)
        ]
        if not math.prod(max(1.0, extent) for extent in wished) <= MOST_VOXELS:
            raise ValueError(
                f"spacing must leave at most {MOST_VOXELS} voxels of a volume of the extents {own} "
                f"and the spacing {steps} mm, got {self.spacing!r}"
            )
        return tuple(max(1, round(extent)) for extent in wished)

    def own_spacing(self, like: Geometry) -> tuple[float, ...]:
        """Return the spacing of a volume's `P` in mm before resampling."""
        axes, _ = self._orientation(like)
        return tuple(like.spacing[axes[axis]] for axis in self.in_plane)

    def resamples(self, like: Geometry) -> bool:
        """Whether the items of a volume lie on another grid than its own."""
        return self.extents(like) != self._own_extents(like)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Preprocessing:
        """Read settings from JSON, where tuples are lists; those of older runs have ``dims=2``."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
        }
        if values.get("windows") is not None:
            values["windows"] = tuple(Window(*window) for window in values["windows"])
        return cls(**values)

    def apply(self, image: NDArray[Any], like: Geometry, *, crop: bool = False) -> Tensor:
        """Make float32 items ``[N, Ch, *P]`` from an image ``[Ch, X, Y, Z]``.

        Args:
            image: The channels of a case.
            like: Its geometry, for spacing and orientation.
            crop: Crop items larger than `size`, as training does. Prediction leaves them whole,
                since the network takes any size.

        Raises:
            ValueError: The image holds NaN or infinities, does not have four axes, or its number
                of channels differs from that of `normalisation` and `windows`.
        """
        if image.ndim != 4:
            raise ValueError(f"image must have shape [Ch, X, Y, Z], got {image.shape}")
        self._check_memory(len(image), like)
        normalised = normalise(
            image,
            self._schemes(len(image)),
            percentiles=self.percentiles,
            nonzero=self.nonzero,
            windows=self.windows,
        )
        items = resample(
            self._items(torch.from_numpy(normalised), like),
            self.extents(like),
            interpolation=self.interpolation,
            nearest_axis=self._coarse_axis(like),
        )
        return self._to_size(items, crop).contiguous()

    def apply_label(self, label: NDArray[Any], like: Geometry, *, crop: bool = False) -> Tensor:
        """Make int64 items ``[N, *P]`` from a label map ``[X, Y, Z]``; see `apply`."""
        volume = torch.from_numpy(np.ascontiguousarray(label, dtype=np.int64))
        items = self._items(volume[None], like)
        extents = self.extents(like)
        if tuple(items.shape[2:]) != extents:
            items = resample_labels(
                items,
                extents,
                interpolation=self.label_interpolation,
                nearest_axis=self._coarse_axis(like),
            )
        return self._to_size(items, crop)[:, 0].contiguous()

    def nonzero_box(
        self, image: NDArray[Any], label: NDArray[Any], like: Geometry
    ) -> tuple[slice, ...]:
        """Return the box in `P` of all voxels where a channel or the label map is not 0."""
        kept = image.any(axis=0) | (label != 0)
        items = self.apply_label(kept, like)
        box = []
        for axis, extent in enumerate(items.shape[1:], start=1):
            others = [other for other in range(items.ndim) if other != axis]
            found = torch.nonzero(items.sum(others)).flatten()
            low, high = (int(found[0]), int(found[-1]) + 1) if len(found) else (0, extent)
            box.append(slice(low, high))
        return tuple(box)

    def invert(self, values: Tensor, like: Geometry) -> Tensor:
        """Bring logits or probabilities of items back to the grid of their volume.

        They are resampled linearly. Voxels that a crop had removed become background with the
        value 1. The result is a view of the items where nothing had to be computed.

        Args:
            values: ``[N, C, *P]``.
            like: The geometry of the volume.

        Returns:
            ``[C, X, Y, Z]`` on the volume's own grid.

        Raises:
            ValueError: The number of items or spatial axes is not that which `apply` makes for
                ``like``.
        """
        count = 1 if self.dims == 3 else self._oriented_shape(like)[self.slice_axis]
        if values.ndim != 2 + self.dims or values.shape[0] != count:
            space = "X, Y, Z" if self.dims == 3 else "H, W"
            raise ValueError(
                f"values must have shape [{count}, C, {space}], got {tuple(values.shape)}"
            )
        for axis, extent in enumerate(self.extents(like), start=2):
            missing = values.shape[axis] - extent
            if missing >= 0:
                values = values.narrow(axis, missing // 2, extent)
            else:
                values = _grow(values, axis, extent, background=True)
        own = self._own_extents(like)
        if tuple(values.shape[2:]) != own:
            mode = "bilinear" if self.dims == 2 else "trilinear"
            values = functional.interpolate(
                values.contiguous(), size=own, mode=mode, align_corners=False
            )
        if self.dims == 3:
            volume = values[0]
        else:
            volume = values.transpose(0, 1).movedim(1, 1 + self.slice_axis)
        axes, flipped = self._orientation(like)
        if flipped:
            volume = volume.flip([1 + axis for axis in flipped])
        return volume.permute(0, *(1 + axes.index(axis) for axis in range(3)))

    def _check_memory(self, channels: int, like: Geometry) -> None:
        """Refuse a size or spacing whose items no memory holds, before they are made."""
        wanted = self.size or self.extents(like)
        voxels = math.prod(map(max, zip(wanted, self.extents(like), strict=True)))
        items = 1 if self.dims == 3 else self._oriented_shape(like)[self.slice_axis]
        try:
            check_claim(4 * channels * items * voxels, what="a case")
        except ValueError as error:
            raise ValueError(
                f"size and spacing must be such that a case fits the memory, got size {self.size} "
                f"and spacing {self.spacing}: {error}"
            ) from None

    def _schemes(self, channels: int) -> tuple[Normalisation, ...]:
        named = self.normalisation
        schemes = (named,) * channels if isinstance(named, str) else named
        for name, given in (("normalisation", schemes), ("windows", self.windows or schemes)):
            if len(given) != channels:
                raise ValueError(
                    f"image must have {len(given)} channels, as {name} does, got {channels}"
                )
        return schemes

    def _orientation(self, like: Geometry) -> tuple[tuple[int, ...], list[int]]:
        """Return the volume's axis for each oriented one, and the oriented axes that flip."""
        if not self.reorients:
            return (0, 1, 2), []
        from nibabel.orientations import io_orientation

        orientation: NDArray[np.float64] = io_orientation(like.affine)  # type: ignore[no-untyped-call]
        if not np.isfinite(orientation).all():
            raise ValueError(
                "affine must give every axis a direction, got an axis without a direction: "
                f"{like.affine.tolist()}"
            )
        axes = np.argsort(orientation[:, 0])
        flipped = [oriented for oriented, axis in enumerate(axes) if orientation[axis, 1] < 0]
        return tuple(int(axis) for axis in axes), flipped

    def _oriented_shape(self, like: Geometry) -> tuple[int, ...]:
        return tuple(like.shape[axis] for axis in self._orientation(like)[0])

    def _own_extents(self, like: Geometry) -> tuple[int, ...]:
        shape = self._oriented_shape(like)
        return tuple(shape[axis] for axis in self.in_plane)

    def _coarse_axis(self, like: Geometry) -> int | None:
        if self.dims == 2 or self.spacing is None:
            return None
        return coarse_axis(self.own_spacing(like), self.spacing)

    def _items(self, volume: Tensor, like: Geometry) -> Tensor:
        """Reorder ``[Ch, X, Y, Z]`` to ``[N, Ch, *P]`` on the volume's own grid."""
        axes, flipped = self._orientation(like)
        volume = volume.permute(0, *(1 + axis for axis in axes))
        if flipped:
            volume = volume.flip([1 + axis for axis in flipped])
        return volume[None] if self.dims == 3 else volume.movedim(1 + self.slice_axis, 0)

    def _to_size(self, items: Tensor, crop: bool) -> Tensor:
        if self.size is None:
            return items
        for axis, extent in enumerate(self.size, start=2):
            missing = extent - items.shape[axis]
            if missing > 0:
                items = _grow(items, axis, extent, background=False)
            elif missing < 0 and crop:
                items = items.narrow(axis, -missing // 2, extent)
        return items


def _grow(items: Tensor, axis: int, extent: int, *, background: bool) -> Tensor:
    """Pad to an extent about the centre, with zeros or with the value 1 in the first class."""
    shape: Sequence[int] = [*items.shape[:axis], extent, *items.shape[axis + 1 :]]
    grown = items.new_zeros(shape)
    if background:
        grown[:, 0] = 1
    start = (extent - items.shape[axis]) // 2
    grown.narrow(axis, start, items.shape[axis]).copy_(items)
    return grown
