"""The shape and kind of predictions, which maps and targets have to fit."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Predictions(NamedTuple):
    """What is known of predictions without reading them.

    Example:
        >>> cpu = torch.device("cpu")
        >>> Predictions(torch.Size([2, 3, 8, 9]), cpu, torch.float32, 1, False).voxel_shape
        torch.Size([2, 8, 9])
    """

    shape: torch.Size
    """Of a member, ``[B, C, *S]`` where the class axis is 1."""
    device: torch.device
    real: torch.dtype
    """The accumulation type."""
    class_dim: int
    """Not negative."""
    multilabel: bool
    """Every class is a Bernoulli variable with a target of its own."""
    stored: torch.dtype | None = None
    """The type of the probabilities that were given; None for those computed in `real`."""

    @property
    def num_classes(self) -> int:
        """C."""
        return self.shape[self.class_dim]

    @property
    def voxel_shape(self) -> torch.Size:
        """The shape without the class axis."""
        return self.shape[: self.class_dim] + self.shape[self.class_dim + 1 :]
