"""What a viewer shows of one case: layers of voxels on one grid, turned to run as RAS does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastcal.core.arrays import Floats
from fastcal.core.likelihood import largest_entropy
from fastcal.data.affines import voxel_sizes
from fastcal.data.orientation import Turn
from fastcal.report.style import segment_colour

Kind = Literal["image", "labels", "error", "map"]
Voxel = tuple[int, int, int]

ERRORS = {1: "missed", 2: "invented", 3: "another structure"}
"""Values of the layer of errors."""

_ERROR_COLOURS = ("#ff3b5c", "#b6ff3c", "#ffd23f")
"""Far from those of the structures, which they are drawn over."""

UNCERTAINTIES = ("entropy", "expected_entropy", "mutual_information", "variance", "disagreement")
"""Maps that are large where a prediction is uncertain, the one to look at first in front."""

_TITLES = {
    "entropy": "Entropy",
    "expected_entropy": "Expected entropy",
    "mutual_information": "Mutual information",
    "variance": "Variance",
    "disagreement": "Disagreement",
    "confidence": "Confidence",
}
_NATS = ("entropy", "expected_entropy", "mutual_information")


@dataclass(frozen=True)
class Layer:
    """Voxels of a case with what is needed to draw and to read them."""

    key: str
    """Its name within the case."""
    title: str
    kind: Kind
    read: Callable[[], NDArray[Any]] = field(repr=False)
    """Gives the voxels ``[X, Y, Z]``, turned."""
    high: float | None = None
    """Upper end of the scale of a map; None for its largest value in this case."""
    unit: str = ""
    names: Mapping[int, str] = field(default_factory=dict)
    """Names of the values of labels and errors."""

    def colour(self, value: int) -> str:
        """Return the colour of a value of labels or errors, as ``#rrggbb``."""
        return _ERROR_COLOURS[value - 1] if self.kind == "error" else segment_colour(value)

    @cached_property
    def voxels(self) -> NDArray[Any]:
        """The voxels ``[X, Y, Z]``, which are read once."""
        return self.read()

    @cached_property
    def scale(self) -> tuple[float, float]:
        """The values that are drawn darkest and brightest."""
        if self.kind in ("labels", "error"):
            return 0.0, float(max(self.names, default=1))
        found = self.voxels[np.isfinite(self.voxels)]
        if self.kind == "image":
            low, high = np.percentile(found, (1, 99.5)) if found.size else (0.0, 1.0)
            return float(low), float(max(high, low + 1e-6))
        high = self.high if self.high is not None else float(found.max(initial=0.0))
        return 0.0, max(high, 1e-6)


@dataclass(frozen=True, eq=False)
class Frame:
    """The grid of a case, and how its axes are turned to run to the right, front and top."""

    affine: Floats
    """Voxel index of the files to RAS mm."""
    shape: Voxel
    """Of the files."""

    @cached_property
    def turn(self) -> Turn:
        """From the files to the layers."""
        return Turn.to_axes_of(self.affine, np.eye(4))

    @cached_property
    def turned_affine(self) -> Floats:
        """Voxel index of the layers to RAS mm."""
        return self.turn.affine(self.affine, self.shape)

    @property
    def turned_shape(self) -> Voxel:
        """Extents of the layers."""
        x, y, z = self.turn.shape(self.shape)
        return x, y, z

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size of the layers in mm."""
        x, y, z = voxel_sizes(self.turned_affine)
        return float(x), float(y), float(z)

    def voxels(self, data: NDArray[Any]) -> NDArray[Any]:
        """Turn the voxels of a file ``[X, Y, Z]``."""
        turned: NDArray[Any] = self.turn.array(data[None])[0]
        return turned

    def in_file(self, voxel: Sequence[int]) -> Voxel:
        """Return the index that a voxel of the layers has in the files."""
        found = []
        for extent, (axis, flip) in zip(self.shape, self.axes, strict=True):
            found.append(voxel[axis] if flip > 0 else extent - 1 - voxel[axis])
        x, y, z = found
        return x, y, z

    @property
    def axes(self) -> list[tuple[int, int]]:
        """For each axis of the files, the axis of the layers, and -1 where it is flipped."""
        return [(int(axis), int(flip)) for axis, flip in self.turn.orientation]


@dataclass(frozen=True, eq=False)
class ShownCase:
    """One case, ready to be drawn."""

    name: str
    frame: Frame
    layers: tuple[Layer, ...]
    members: int | None = None
    """How many members the ensemble has, where that is known."""

    def layer(self, key: str) -> Layer | None:
        """Return a layer by its key; None where there is none."""
        return next((one for one in self.layers if one.key == key), None)

    def of_kind(self, kind: Kind) -> tuple[Layer, ...]:
        """Return the layers of a kind."""
        return tuple(one for one in self.layers if one.kind == kind)

    @property
    def uncertainty(self) -> Layer | None:
        """The map by which the case is walked through; None where there is none."""
        found = (self.layer(name) for name in UNCERTAINTIES)
        return next((one for one in found if one is not None), None)


def map_layer(
    name: str, read: Callable[[], NDArray[Any]], num_classes: int, *, multilabel: bool = False
) -> Layer:
    """Return the layer of a map.

    Args:
        name: As in `fastcal.core.problem.MAPS`, or the name of any other folder of maps.
        read: Gives its turned voxels.
        num_classes: Number of classes, from which the largest value of some maps follows.
        multilabel: Whether every class is a question of its own, whose entropies are summed.
    """
    classes = max(2, num_classes)
    entropy = largest_entropy(num_classes, multilabel=multilabel)
    highest = {
        "entropy": entropy,
        "expected_entropy": entropy,
        "disagreement": 1 - 1 / classes,
        "confidence": 1.0,
    }
    title = _TITLES.get(name, name.replace("_", " "))
    return Layer(name, title, "map", read, highest.get(name), "nats" if name in _NATS else "")


def probability_layer(
    channel: int, title: str, read: Callable[[], NDArray[Any]], *, key: str = "probability"
) -> Layer:
    """Return the layer of the mean probability of a class."""
    return Layer(f"{key}/{channel}", f"Probability of {title}", "map", read, 1.0)


def error_layer(prediction: Layer, reference: Layer, ignored: int | None = None) -> Layer:
    """Return the layer that tells where prediction and reference differ, and how.

    Args:
        prediction: Labels.
        reference: Labels of the same grid.
        ignored: Value of the reference where nothing counts.
    """

    def read() -> NDArray[Any]:
        predicted, true = prediction.voxels, reference.voxels
        found = np.zeros(true.shape, np.uint8)
        found[(predicted == 0) & (true != 0)] = 1
        found[(predicted != 0) & (true == 0)] = 2
        found[(predicted != 0) & (true != 0) & (predicted != true)] = 3
        if ignored is not None:
            found[true == ignored] = 0
        return found

    return Layer("error", "Error", "error", read, names=ERRORS)
