"""The volumes of a fit, which are read once in every pass."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar, runtime_checkable

from fastcal.core.arrays import to_tensor
from fastcal.core.sums_to_one import warn_of_logits
from fastcal.recalibrate.volumes import FitVolume, PredictionReading, Volumes, read_volume

T = TypeVar("T")


class _Addable(Protocol):
    def __add__(self, other: Self, /) -> Self: ...


Sum = TypeVar("Sum", bound=_Addable)


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

    def fold(self, read: Callable[[int, FitVolume], T], take: Callable[[T], None]) -> None:
        """Read every volume once, and take what is made of each, in their order.

        Args:
            read: Makes something of a volume and its number. Volumes may be read by other
                processes, so that it can be pickled and changes nothing.
            take: Takes what it made.

        Raises:
            TypeError, ValueError: A volume does not fit, or there is none.
        """
        reader = _Reader(
            read,
            self._reading,
            self._class_dim,
            self._ignore_index,
            self._nan_policy,
            first=self._num_classes is None,
        )
        numbers = iter(range(sys.maxsize))

        def checked(found: tuple[int, T]) -> None:
            number_of_classes, made = found
            number = next(numbers)
            if self._num_classes is None:
                self._num_classes = number_of_classes
            if number_of_classes != self._num_classes:
                raise ValueError(
                    f"volumes must agree in their number of classes, got {self._num_classes} in "
                    f"volume 0 and {number_of_classes} in volume {number}"
                )
            take(made)

        if isinstance(self._volumes, FoldedElsewhere):
            self._volumes.fold(reader, checked)
        else:
            for number, item in enumerate(self._volumes):
                checked(reader(number, item))
        if self._num_classes is None:
            raise ValueError("volumes must hold at least one volume, got none")

    def sum(self, read: Callable[[int, FitVolume], Sum]) -> Sum:
        """Read every volume once, and add up what is made of each, in their order."""
        sums: list[Sum] = []
        self.fold(read, lambda one: sums.append(sums.pop() + one if sums else one))
        return sums[0]


@runtime_checkable
class FoldedElsewhere(Protocol):
    """Volumes that know how to be read themselves, such as by the workers of a cluster."""

    def fold(self, read: Callable[[int, tuple[Any, ...]], T], take: Callable[[T], None]) -> None:
        """Read every volume once with its number, and take what is made of each in their order."""


@dataclass(frozen=True, slots=True)
class _Reader(Generic[T]):
    """Checks a volume before it is read; returns its number of classes too."""

    read: Callable[[int, FitVolume], T]
    reading: PredictionReading
    class_dim: int
    ignore_index: int | None
    nan_policy: str
    first: bool
    """Whether this is the first pass."""

    def __call__(self, number: int, item: tuple[Any, ...]) -> tuple[int, T]:
        if not isinstance(item, tuple) or len(item) not in (2, 3):
            raise TypeError(
                "volumes must give (preds, target) or (preds, target, mask), got "
                f"{type(item).__name__}"
            )
        volume = read_volume(
            *item,
            reading=self.reading,
            class_dim=self.class_dim,
            ignore_index=self.ignore_index,
            nan_policy=self.nan_policy,
        )
        if self.first and number == 0 and self.reading.from_logits and not self.reading.multilabel:
            warn_of_logits(to_tensor(item[0], "preds"), self.class_dim, stacklevel=4)
        return volume.num_classes, self.read(number, volume)
