"""Every setting of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fastcal.models.unet import PAPER_WIDTHS

_POSITIVE = ("batch_size", "learning_rate", "plateau_patience", "early_stopping", "max_epochs")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Settings of a run; the defaults are the paper's where it has one.

    Example:
        >>> TrainConfig(iterations_per_epoch=50, max_epochs=40).batch_size
        32
    """

    widths: tuple[int, ...] = PAPER_WIDTHS
    """Channels of each level of the U-Net, finest first."""
    dropout: float = 0.0
    """Rate in the deepest blocks; the paper has 0.5 where Monte Carlo dropout is wanted."""
    norm: str = "batch"
    """``"batch"`` or ``"instance"``."""
    head: Literal["softmax", "sigmoid"] | None = None
    """None: the paper's, softmax for cross entropy and sigmoid for Dice (which takes either)."""

    slice_axis: int | Literal["auto"] = "auto"
    """Voxel axis the slices are stacked along. ``"auto"``: that of the largest median spacing
    over the training and validation cases, the last one of equals."""
    spacing: tuple[float, float] | None = None
    """In-plane spacing to resample to, mm."""
    size: tuple[int, int] | None = None
    """In-plane extents to crop and pad to (the paper: 224, 224). None: the largest of the training
    and validation cases, rounded up to what the poolings divide."""
    percentiles: tuple[float, float] = (1.0, 99.0)
    """Intensities that become 0 and 1."""

    batch_size: int = 32
    learning_rate: float = 0.005
    """Of Adam."""
    plateau_factor: float = 0.5
    """Multiplies the learning rate (the paper: 0.5 to 0.8) ..."""
    plateau_patience: int = 10
    """... after this many epochs without a better validation Dice."""
    early_stopping: int = 50
    """A member's training ends after this many epochs without a better validation Dice."""
    max_epochs: int = 1000
    iterations_per_epoch: int | None = None
    """Steps between two validations. None: as many as show each slice once."""

    class_weights: tuple[float, ...] | None = None
    """``w_k`` of the loss, one a class."""
    dice_eps: float = 1e-5
    """Added to the denominators of the Dice loss."""

    mirror: tuple[int, ...] = ()
    """Augmentation, none in the paper: in-plane axes (0, 1) mirrored in half of the slices."""
    jitter: float = 0.0
    """Augmentation, none in the paper: intensities become ``x * (1 + a) + b``, a and b uniform in
    +-jitter for each slice and channel."""

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected more than 0")
        if self.iterations_per_epoch is not None and self.iterations_per_epoch < 1:
            raise ValueError(
                f"iterations_per_epoch: got {self.iterations_per_epoch!r}, expected at least 1"
            )
        if not 0.0 < self.plateau_factor <= 1.0:
            raise ValueError(f"plateau_factor: got {self.plateau_factor!r}, expected (0, 1]")
        if self.slice_axis not in ("auto", 0, 1, 2):
            raise ValueError(f"slice_axis: got {self.slice_axis!r}, expected 'auto', 0, 1 or 2")
        if not set(self.mirror) <= {0, 1}:
            raise ValueError(f"mirror: got {self.mirror!r}, expected in-plane axes 0 and 1")
        if not 0.0 <= self.jitter < 1.0:
            raise ValueError(f"jitter: got {self.jitter!r}, expected [0, 1)")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> TrainConfig:
        """Settings from JSON, where tuples are lists.

        Raises:
            ValueError: a setting that does not exist.
        """
        unknown = sorted(set(fields) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"config: no such setting: {', '.join(unknown)}")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
        }
        return cls(**values)
