"""The volumes of a fit, read as often as it passes over them."""

from __future__ import annotations

from collections.abc import Iterator

from fastcal.recalibrate.volumes import FitVolume, PredictionReading, Volumes, read_volume


def check_volumes(volumes: Volumes) -> None:
    """Raise a TypeError for what can be iterated over only once."""
    if isinstance(volumes, Iterator):
        raise TypeError(
            "volumes must be iterable several times (a list, or an object with __iter__), "
            f"got {type(volumes).__name__}"
        )


def no_voxels() -> ValueError:
    """The error of a fit that found no voxel in its volumes."""
    return ValueError("no voxel is left to fit to: all are masked, ignored or invalid")


class Stream:
    """The volumes of a fit, checked each time they are read."""

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
        """C, once a pass was made."""
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
            if volume.num_classes != self._num_classes:
                raise ValueError(
                    f"volumes must have one number of classes: {self._num_classes} in the first, "
                    f"{volume.num_classes} in volume {number}"
                )
            yield volume
        if self._num_classes is None:
            raise ValueError("volumes must hold at least one volume, got none")
