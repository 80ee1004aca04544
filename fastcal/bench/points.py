"""The axes of the kernel benchmark, and the bytes and operations of a point on them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch

SIX = ("mean", "label", "confidence", "entropy", "expected_entropy", "mutual_information")
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
LAYOUTS = ("ncdhw", "channels-last", "cropped")
Sweep = Literal["star", "product"]
SWEEPS: tuple[Sweep, ...] = ("star", "product")


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one pass computes."""

    maps: tuple[str, ...]
    calibration: bool = False


OUTPUTS = {
    "entropy": Outputs(("entropy",)),
    "six-maps": Outputs(SIX),
    "all-maps": Outputs((*SIX, "variance", "disagreement")),
    "calibration": Outputs((), calibration=True),
    "six-maps+calibration": Outputs(SIX, calibration=True),
}

# Operations per value by the formulas, each a comparison, addition, multiplication, exp or log.
# They give the abscissa of the roofline plot, and are a yardstick, not what a kernel issues.
_ACTIVATE = 6  # max, subtract, exp, sum, divide, add to the mean
_MEMBER_ENTROPY = 2  # multiply, add
_MEMBER_SQUARE = 2
_MEMBER_VOTE = 1
_ENTROPY = 3  # log, multiply, add
_ARGMAX = 1
_CALIBRATION = 12  # bin (3), squared error (2), rounding and adding the two sums (5), counts (2)


@dataclass(frozen=True, slots=True)
class Point:
    """One volume and what is computed from it."""

    dtype: str
    classes: int
    members: int
    volume: tuple[int, ...]
    background: float
    layout: str
    outputs: str

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return math.prod(self.volume)

    @property
    def member_bytes(self) -> int:
        """Size of all members together."""
        return self.members * self.classes * self.n_voxels * DTYPES[self.dtype].itemsize

    @property
    def bytes(self) -> int:
        """The fewest bytes that a pass moves: it reads members and target and writes maps once."""
        asked = OUTPUTS[self.outputs]
        real = max(DTYPES[self.dtype].itemsize, 4)
        per_voxel = sum(
            {"mean": self.classes * real, "label": 8}.get(name, real) for name in asked.maps
        )
        per_voxel += 8 * asked.calibration  # the target is int64
        return self.member_bytes + per_voxel * self.n_voxels

    @property
    def operations(self) -> int:
        """Operations of the formulas, from the constants above."""
        asked = OUTPUTS[self.outputs]
        member = (
            _ACTIVATE
            + _MEMBER_ENTROPY * ("expected_entropy" in asked.maps)
            + _MEMBER_SQUARE * ("variance" in asked.maps)
            + _MEMBER_VOTE * ("disagreement" in asked.maps)
        )
        mean = (
            _ENTROPY * ("entropy" in asked.maps)
            + _ARGMAX * ("label" in asked.maps or asked.calibration)
            + _CALIBRATION * asked.calibration
        )
        return self.n_voxels * self.classes * (self.members * member + mean)

    @property
    def working_bytes(self) -> int:
        """Memory that data, results, the float64 reference and plain PyTorch take together."""
        spare = 1.15 if self.layout == "cropped" else 1.0
        per_voxel = self.classes * (8 + 5 * 4) + 120  # reference; mean, its copies; the other maps
        slab = 4 * 8 * self.members * self.classes * min(self.n_voxels, 500_000)
        return int(spare * self.member_bytes) + per_voxel * self.n_voxels + slab

    def describe(self, names: Sequence[str] = ()) -> str:
        """Format the values of some axes, by default all: ``float32, C 4, M 5, 240x240x155``."""
        words = {
            "dtype": self.dtype,
            "classes": f"C {self.classes}",
            "members": f"M {self.members}",
            "volume": "x".join(map(str, self.volume)),
            "background": f"{self.background:.0%} background",
            "layout": self.layout,
            "outputs": self.outputs,
        }
        return ", ".join(words[name] for name in names or words)


MOST_VOXELS = 2**31
"""Of a volume; a volume of fewer voxels that the memory cannot hold is refused in its row."""

AXES = tuple(field.name for field in fields(Point))


def points(axes: Mapping[str, Sequence[Any]], sweep: Sweep) -> list[Point]:
    """List the points to measure. Those on one volume follow each other.

    Args:
        axes: Axis of `Point` to its values. The first value of each axis makes the base point.
        sweep: ``"star"`` takes the base point, and each other value of each axis with the other
            axes at the base. ``"product"`` takes every combination. Both combine each volume with
            all outputs.
    """
    base = Point(**{name: values[0] for name, values in axes.items()})
    outputs = axes["outputs"]
    rest = {name: values for name, values in axes.items() if name != "outputs"}

    def volumes() -> Iterator[Point]:
        if sweep == "product":
            for combination in itertools.product(*rest.values()):
                yield replace(base, **dict(zip(rest, combination, strict=True)))
        else:
            yield base
            for name, values in rest.items():
                for value in values[1:]:
                    yield replace(base, **{name: value})

    return [replace(point, outputs=name) for point in volumes() for name in outputs]


def read_volume(text: str) -> tuple[int, int, int]:
    """Read the size of a volume, ``"96"`` or ``"240x240x155"``.

    Raises:
        ValueError: The text is neither.

    Example:
        >>> read_volume("96")
        (96, 96, 96)
    """
    try:
        sizes = [int(part) for part in text.lower().split("x")]
        sizes = sizes * 3 if len(sizes) == 1 else sizes
        x, y, z = sizes
    except ValueError:
        raise ValueError(f"volumes must be N or NxNxN, got {text!r}") from None
    if min(sizes) < 1:
        raise ValueError(f"volumes must have positive sizes, got {text!r}")
    if math.prod(sizes) > MOST_VOXELS:
        raise ValueError(f"volumes must have at most {MOST_VOXELS} voxels, got {text[:80]!r}")
    return x, y, z
