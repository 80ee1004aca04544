"""What a pass over the members of an ensemble gives."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch

from fastcal.calibration import CalibrationStatistics
from fastcal.core.arrays import Array
from fastcal.core.problem import MAPS
from fastcal.core.shown import as_html, as_text
from fastcal.segments import SegmentScores


@dataclass(init=False, repr=False, eq=False)
class EnsembleStatistics:
    """The maps and the calibration that a pass gave. A map that was not asked for is missing.

    Reading such a map is an `AttributeError` that says how to ask for it; ``maps`` holds those
    there are, by name.

    Float maps are float32, or float64 for float64 members. Voxels without valid probabilities hold
    NaN in float maps and -1 in ``label`` (all bits set in unsigned types).
    """

    mean: Array
    """Mean probabilities, ``[B, C, *S]``."""
    label: Array
    """Class of the largest mean probability, the lowest class where several are equal, ``[B, *S]``;
    ``[B, C, *S]`` of 0 and 1 when multilabel."""
    confidence: Array
    """Largest mean probability, ``[B, *S]``; ``max(p, 1 - p)``, ``[B, C, *S]``, when multilabel."""
    entropy: Array
    """Entropy of the mean in nats, ``[B, *S]``."""
    expected_entropy: Array
    """Mean entropy of the members in nats, ``[B, *S]``."""
    mutual_information: Array
    """Entropy minus expected entropy, at least 0, in nats, ``[B, *S]``."""
    variance: Array
    """Variance over the members, averaged over classes, ``[B, *S]``."""
    disagreement: Array
    """Fraction of members whose label is not the most frequent one, ``[B, *S]``."""
    calibration: CalibrationStatistics | None = None
    """Calibration of the mean against the target."""
    segments: SegmentScores | None = None
    """Scores of the segment of each class, ``[B, C]`` each."""

    def __init__(
        self,
        *,
        calibration: CalibrationStatistics | None = None,
        segments: SegmentScores | None = None,
        **maps: Array,
    ) -> None:
        self.calibration, self.segments = calibration, segments
        for name, values in maps.items():
            if name not in MAPS:
                raise TypeError(f"maps must be among {', '.join(MAPS)}, got {name!r}")
            setattr(self, name, values)

    def __getattr__(self, name: str) -> Any:
        if name in MAPS:
            raise AttributeError(
                f"{name} was not asked for: pass maps=({name!r}, ...) to what computes it"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def maps(self) -> dict[str, Array]:
        """The maps that were computed, by name."""
        held = vars(self)
        return {name: held[name] for name in MAPS if name in held}

    def __repr__(self) -> str:
        return as_text(type(self).__name__, self._rows())

    def _repr_html_(self) -> str:
        return as_html(type(self).__name__, self._rows())

    def _rows(self) -> list[tuple[str, str]]:
        rows = [(name, _described(name, values)) for name, values in self.maps.items()]
        if self.calibration is not None:
            lines = repr(self.calibration).splitlines()
            rows.append(("calibration", "; ".join(" ".join(one.split()) for one in lines[1:])))
        if self.segments is not None:
            scores = (one.name for one in fields(self.segments))
            held = [name for name in scores if getattr(self.segments, name) is not None]
            rows.append(("segments", ", ".join(held)))
        return rows


def _described(name: str, values: Array) -> str:
    """Type, shape, range and mean of a map, without its invalid voxels."""
    tensor = torch.as_tensor(values)
    shape = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
    valid = tensor[tensor >= 0]  # drops NaN, and the -1 of labels
    if valid.numel() == 0:
        return f"{shape}, no valid voxel"
    low, high = valid.min().item(), valid.max().item()
    if name == "label":
        return f"{shape}, {low} to {high}"
    return f"{shape}, {low:.4g} to {high:.4g}, mean {valid.double().mean().item():.4g}"
