"""The volumes of a fit, which are read once in every pass."""

from __future__ import annotations

from collections.abc import Iterator

from fastcal.core.arrays import to_tensor
from fastcal.core.sums_to_one import warn_of_logits
from fastcal.recalibrate.volumes import FitVolume, PredictionReading, Volumes, read_volume


def check_volumes(volumes: Volumes) -> None:
    """Raise a TypeError for volumes that can be iterated over only once."""
    if isinstance(volumes, Iterator):
        raise TypeError(
            "volumes must be iterable several times (a list, or an object with __iter__), "
            f"got {type(volumes).__name__}"
        )


def no_voxels() -> ValueError:
    """Return the error of a fit whose volumes have no voxel that counts."""
    return ValueError(
        "volumes must hold at least one voxel to fit to, got none: all are masked, ignored or "
        "invalid"
    )


class Stream:
    """The volumes of a fit, which are checked each time they are read.

    Args:
        volumes: See `Calibrator.fit_stream`.
        reading: How predictions are read.
        class_dim: Axis of the classes in predictions.
        ignore_index: Voxels with this target are left out.
        nan_policy: ``"raise"`` or ``"omit"``, for voxels without valid values.
    """

    def __init__(
        self,
        volumes: Volumes,
        reading: PredictionReading,
        class_dim: int,
        ignore_index: int | None,
        nan_policy: str,
    ) -> None:
        self._volumes = volumes
        self._reading = reading
        self._class_dim = class_dim
        self._ignore_index = ignore_index
        self._nan_policy = nan_policy
        self._num_classes: int | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes, known after the first pass."""
        assert self._num_classes is not None
        return self._num_classes

    def __iter__(self) -> Iterator[FitVolume]:
        for number, item in enumerate(self._volumes):
            if not isinstance(item, tuple) or len(item) not in (2, 3):
                raise TypeError(
                    "volumes must give (preds, target) or (preds, target, mask), got "
                    f"{type(item).__name__}"
                )
            volume = read_volume(
                *item,
                reading=self._reading,
                class_dim=self._class_dim,
                ignore_index=self._ignore_index,
                nan_policy=self._nan_policy,
            )
            if self._num_classes is None:
                self._num_classes = volume.num_classes
                if self._reading.from_logits and not self._reading.multilabel:
                    warn_of_logits(to_tensor(item[0], "preds"), self._class_dim, stacklevel=4)
            if volume.num_classes != self._num_classes:
                raise ValueError(
                    f"volumes must agree in their number of classes, got {self._num_classes} in "
                    f"volume 0 and {volume.num_classes} in volume {number}"
                )
            yield volume
        if self._num_classes is None:
            raise ValueError("volumes must hold at least one volume, got none")
