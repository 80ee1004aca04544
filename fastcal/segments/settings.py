"""What segment scores depend on besides the probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fastcal.core.arguments import flag, real_number, whole_number


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentSettings:
    """Settings of segment scores; each is checked when the object is made.

    Raises:
        TypeError: A setting has the wrong type.
        ValueError: A setting is out of range, or ``interior_mm`` lacks the spacing.

    Example:
        >>> SegmentSettings(spacing=[1, 1, 2.5]).voxel_volume
        2.5
    """

    spacing: Sequence[float] | None = None
    """Distance between voxels in mm, one number per spatial axis; None measures in voxels."""
    paper_clip: bool = False
    """Read p below 0.01 as 0.001 and p above 0.99 as 0.999 in the binary entropy, as the code of
    Mehrtash et al. (2020) does."""
    interior_voxels: float = 4.0
    """The interior of a segment is farther than this from its boundary, in voxels."""
    interior_mm: float | None = None
    """The same in mm, which then counts instead of ``interior_voxels``."""
    patch: int = 10
    """Voxels along each edge of the patch of ``patch_entropy``."""
    component_voxels: int | None = 10
    """Smallest connected component that is counted. None counts none, and needs no SciPy."""
    pairs: bool = False
    """Keep the labels of every member, one byte per voxel, for ``pairwise_dice``."""

    def __post_init__(self) -> None:
        if self.spacing is not None:
            given: object = self.spacing
            if isinstance(given, str) or not isinstance(given, Iterable):
                raise TypeError(f"spacing must be one number per axis, got {type(given).__name__}")
            steps = tuple(real_number(step, "spacing") for step in given)
            if not all(0 < step < math.inf for step in steps):
                raise ValueError(f"spacing must be positive, got {steps}")
            object.__setattr__(self, "spacing", steps)
        flag(self.paper_clip, "paper_clip")
        flag(self.pairs, "pairs")
        _depth(self.interior_voxels, "interior_voxels")
        if self.interior_mm is not None:
            _depth(self.interior_mm, "interior_mm")
            if self.spacing is None:
                raise ValueError("spacing must be given with interior_mm, got None")
        _at_least_one(self.patch, "patch")
        if self.component_voxels is not None:
            _at_least_one(self.component_voxels, "component_voxels")

    @property
    def voxel_volume(self) -> float:
        """mm^3 per voxel; 1 without a spacing, where volumes are numbers of voxels."""
        return 1.0 if self.spacing is None else math.prod(self.spacing)

    @property
    def depth(self) -> float:
        """How far the interior is from the boundary, in the unit of `steps`."""
        return self.interior_voxels if self.interior_mm is None else self.interior_mm

    def steps(self, axes: int) -> tuple[float, ...]:
        """Give the distance between neighbours along each axis, in the unit of `depth`.

        Raises:
            ValueError: The spacing is of another number of axes.
        """
        self.check_axes(axes)
        if self.interior_mm is None or self.spacing is None:
            return (1.0,) * axes
        return tuple(self.spacing)

    def check_axes(self, axes: int) -> None:
        """Check that there are voxels, and that the spacing is of as many axes as a volume has.

        Raises:
            ValueError: It is not so.
        """
        if axes < 1:
            raise ValueError("segments must be of volumes with an axis of voxels, got none")
        if self.spacing is not None and len(self.spacing) != axes:
            raise ValueError(
                f"spacing must hold one number per axis: {axes}, got {len(self.spacing)}"
            )


def read_settings(segments: bool | SegmentSettings) -> SegmentSettings | None:
    """Read the argument ``segments`` of a pass: settings, True for the default ones, or False.

    Raises:
        TypeError: It is something else.
    """
    if isinstance(segments, SegmentSettings):
        return segments
    if isinstance(segments, bool):
        return SegmentSettings() if segments else None
    raise TypeError(
        f"segments must be True, False or SegmentSettings, got {type(segments).__name__}"
    )


def _depth(value: object, name: str) -> None:
    if not 0 <= real_number(value, name) < math.inf:
        raise ValueError(f"{name} must be finite and not negative, got {value}")


def _at_least_one(value: object, name: str) -> None:
    if whole_number(value, name) < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
