"""From a volume to the slices a 2-D network sees, and from its probabilities back to the volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastcal.data.nifti import Geometry


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Slices of a volume along one voxel axis: resampled, normalised, of one size.

    In-plane axes keep the order of the volume's axes. Intensities go from the volume's own
    percentiles to [0, 1], each channel for itself, clipped.

    Example:
        >>> Preprocessing(slice_axis=2, size=(48, 64)).in_plane
        (0, 1)
    """

    slice_axis: int = 2
    """Voxel axis the slices are stacked along."""
    spacing: tuple[float, float] | None = None
    """In-plane spacing to resample to, mm; None keeps each volume's own."""
    size: tuple[int, int] | None = None
    """In-plane extents: smaller slices are padded with zeros about their centre, larger ones
    cropped where `crop` asks for it. None keeps each volume's own."""
    percentiles: tuple[float, float] = (1.0, 99.0)
    """Intensities that become 0 and 1."""

    def __post_init__(self) -> None:
        if self.slice_axis not in (0, 1, 2):
            raise ValueError(f"slice_axis: got {self.slice_axis!r}, expected 0, 1 or 2")
        for name, pair in (("spacing", self.spacing), ("size", self.size)):
            if pair is not None and (len(pair) != 2 or min(pair) <= 0):
                raise ValueError(f"{name}: got {pair!r}, expected two positive numbers")
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(
                f"percentiles: got {self.percentiles!r}, expected 0 <= low < high <= 100"
            )

    @property
    def in_plane(self) -> tuple[int, int]:
        """The two voxel axes of a slice."""
        first, second = (axis for axis in range(3) if axis != self.slice_axis)
        return first, second

    def plane(self, like: Geometry) -> tuple[int, int]:
        """In-plane extents of a volume after resampling, before `size` pads or crops them."""
        first, second = self.in_plane
        if self.spacing is None:
            return like.shape[first], like.shape[second]
        rows, columns = self.spacing
        return (
            max(1, round(like.shape[first] * like.spacing[first] / rows)),
            max(1, round(like.shape[second] * like.spacing[second] / columns)),
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Preprocessing:
        pairs = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
        return cls(**{**fields, **pairs})

    def apply(self, image: NDArray[Any], like: Geometry, *, crop: bool = False) -> Tensor:
        """Slices ``[S, Ch, H, W]`` (float32) of an image ``[Ch, X, Y, Z]``.

        Args:
            image: the channels of a case.
            like: its volume, for the spacing.
            crop: cut slices larger than `size`, as training does; prediction leaves them whole,
                since the network takes any size.

        Raises:
            ValueError: the image holds NaN or infinities, or has not four axes.
        """
        if image.ndim != 4:
            raise ValueError(f"image: got shape {image.shape}, expected [Ch, X, Y, Z]")
        slices = self._slices(torch.from_numpy(self._normalised(image)))
        plane = self.plane(like)
        if tuple(slices.shape[2:]) != plane:
            slices = functional.interpolate(slices, size=plane, mode="bilinear", antialias=True)
        return self._to_size(slices, crop).contiguous()

    def apply_label(self, label: NDArray[Any], like: Geometry, *, crop: bool = False) -> Tensor:
        """Slices ``[S, H, W]`` (int64) of a label map ``[X, Y, Z]``, by nearest neighbour."""
        volume = torch.from_numpy(np.ascontiguousarray(label, dtype=np.int64))
        slices = self._slices(volume[None])
        plane = self.plane(like)
        if tuple(slices.shape[2:]) != plane:
            # float64 carries every label exactly.
            resampled = functional.interpolate(slices.double(), size=plane, mode="nearest-exact")
            slices = resampled.long()
        return self._to_size(slices, crop)[:, 0].contiguous()

    def invert(self, probabilities: Tensor, like: Geometry) -> Tensor:
        """Probabilities ``[C, X, Y, Z]`` on the volume's own grid from those of its slices ``[S, C,
        H, W]``.

        Resampled linearly; voxels that a crop had cut are background with probability 1. The result
        is a view of the slices where nothing had to be computed.

        Raises:
            ValueError: another number of slices, or another slice size, than `apply` makes of
                `like`.
        """
        shape = like.shape[:3]
        if probabilities.ndim != 4 or probabilities.shape[0] != shape[self.slice_axis]:
            raise ValueError(
                f"probabilities: got shape {tuple(probabilities.shape)}, expected "
                f"[{shape[self.slice_axis]}, C, H, W]"
            )
        slices = probabilities
        plane = self.plane(like)
        for axis, extent in enumerate(plane, start=2):
            missing = slices.shape[axis] - extent
            if missing >= 0:
                slices = slices.narrow(axis, missing // 2, extent)
            else:
                slices = _grow(slices, axis, extent, background=True)
        original = tuple(shape[axis] for axis in self.in_plane)
        if plane != original:
            slices = functional.interpolate(
                slices.contiguous(), size=original, mode="bilinear", align_corners=False
            )
        return slices.transpose(0, 1).movedim(1, 1 + self.slice_axis)

    def _normalised(self, image: NDArray[Any]) -> NDArray[np.float32]:
        result = np.empty(image.shape, dtype=np.float32)
        for channel, values in enumerate(image):
            if not np.isfinite(values).all():
                raise ValueError(f"image: channel {channel} holds NaN or infinities")
            low, high = np.percentile(values, self.percentiles).tolist()
            # A constant channel carries nothing: zeros.
            scale = 1.0 / (high - low) if high > low else 0.0
            result[channel] = np.clip((values - low) * scale, 0.0, 1.0)
        return result

    def _slices(self, volume: Tensor) -> Tensor:
        return volume.movedim(1 + self.slice_axis, 0)

    def _to_size(self, slices: Tensor, crop: bool) -> Tensor:
        if self.size is None:
            return slices
        for axis, extent in enumerate(self.size, start=2):
            missing = extent - slices.shape[axis]
            if missing > 0:
                slices = _grow(slices, axis, extent, background=False)
            elif missing < 0 and crop:
                slices = slices.narrow(axis, -missing // 2, extent)
        return slices


def _grow(slices: Tensor, axis: int, extent: int, *, background: bool) -> Tensor:
    """Pad to an extent about the centre: zeros, or probability 1 in the first class."""
    shape = list(slices.shape)
    shape[axis] = extent
    grown = slices.new_zeros(shape)
    if background:
        grown[:, 0] = 1
    start = (extent - slices.shape[axis]) // 2
    grown.narrow(axis, start, slices.shape[axis]).copy_(slices)
    return grown
