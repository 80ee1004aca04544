"""Test-time augmentation: views of an image that are turned, mirrored or noisy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastcal.core.doors import bounded

Predictor = Callable[[Tensor], Tensor]

MOST_PASSES = 10_000
"""Of a network over one image: more are a slip, and their list alone would fill the memory."""

_PLANE = (2, 3)
"""Axes of a batch that quarter turns exchange: those of a slice, or of an axial plane."""


@dataclass(frozen=True, slots=True)
class InferenceAugmentation:
    """Which views of an image a member sees: all combinations of what is asked for.

    Example:
        >>> InferenceAugmentation(mirror=(0, 1), rotate=True).n_views
        16
    """

    mirror: tuple[int, ...] = ()
    """Spatial axes of the network's input, from 0; every subset of them is mirrored."""
    rotate: bool = False
    """Turn the first two spatial axes by 0, 90, 180 and 270 degrees."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise, in units of the normalised image."""
    draws: int = 1
    """Noisy copies of each view."""
    as_members: bool = False
    """Count views as members of the ensemble; otherwise their logits are averaged per member."""

    def check(self, dims: int) -> None:
        """Raise a ValueError for settings that do not fit a network with this many axes."""
        if not set(self.mirror) <= set(range(dims)) or len(set(self.mirror)) != len(self.mirror):
            raise ValueError(
                f"mirror must be different axes from 0 to {dims - 1}, got {list(self.mirror)}"
            )
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"noise must be a number of at least 0, got {self.noise}")
        bounded(self.draws, "draws", MOST_PASSES)
        if self.draws > 1 and self.noise == 0:
            raise ValueError(f"draws must be 1 without noise, got {self.draws}: all would be equal")

    @property
    def n_views(self) -> int:
        """Number of views of an image."""
        turns = 4 if self.rotate else 1
        return int(2 ** len(self.mirror)) * turns * self.draws

    def views(self) -> list[View]:
        """List every view, the plain one first."""
        flips = [
            tuple(axis + 2 for axis in axes)
            for count in range(len(self.mirror) + 1)
            for axes in itertools.combinations(self.mirror, count)
        ]
        turns = range(4 if self.rotate else 1)
        return [
            View(axes, turn, self.noise)
            for _ in range(self.draws)
            for turn in turns
            for axes in flips
        ]


@dataclass(frozen=True, slots=True)
class View:
    """One way to show windows ``[B, Ch, *S]`` to a network."""

    flip: tuple[int, ...]
    """Axes of the batch that are mirrored."""
    turns: int
    """Number of quarter turns."""
    noise: float
    """Standard deviation of the noise."""

    def of(self, network: Predictor, windows: Tensor) -> Tensor:
        """Compute the logits of windows in this view, turned back."""
        seen = windows.flip(self.flip) if self.flip else windows
        if self.turns:
            seen = seen.rot90(self.turns, _PLANE)
        if self.noise:
            seen = seen + self.noise * torch.randn_like(seen)
        logits = network(seen).float()
        if self.turns:
            logits = logits.rot90(-self.turns, _PLANE)
        return logits.flip(self.flip) if self.flip else logits


def averaged(network: Predictor, views: Sequence[View]) -> Predictor:
    """Return a function that computes the mean of a network's logits over views."""

    def predict(windows: Tensor) -> Tensor:
        total = views[0].of(network, windows)
        for view in views[1:]:
            total += view.of(network, windows)
        return total / len(views) if len(views) > 1 else total

    return predict
