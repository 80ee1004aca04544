"""The labels of a case whose members are read slab by slab: likewise, or read as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fastcal.cases.reference import LabelMap, checked_labels
from fastcal.data import nifti

if TYPE_CHECKING:
    from pathlib import Path

    from fastcal.cases.labels import LabelScheme
    from fastcal.cases.scratch import Place
    from fastcal.data.nifti import Geometry
    from fastcal.data.stored import Cut, Stored


class SlabLabels(Protocol):
    """Labels that are given part by part."""

    @property
    def fixed_bytes(self) -> int:
        """Memory that reading takes beside the slabs."""

    @property
    def voxel_bytes(self) -> int:
        """Memory of a voxel of a slab while it is read and checked."""

    def parts(self, cuts: Sequence[Cut], places: Sequence[Place]) -> Iterator[LabelMap]:
        """Give the labels of slabs that follow one another and cover the volume.

        Args:
            cuts: Where they lie along the slowest axis of the files.
            places: Where they lie in the volume ``[X, Y, Z]``.

        Raises:
            DataError: The file cannot be read, or a label is out of range.
        """


@dataclass(frozen=True)
class WholeLabels:
    """Labels that are in memory."""

    labels: LabelMap
    fixed_bytes: int = 0
    voxel_bytes: int = 0

    def parts(self, cuts: Sequence[Cut], places: Sequence[Place]) -> Iterator[LabelMap]:
        """Give the labels of slabs."""
        del cuts
        return map(self.labels.part, places)


@dataclass(frozen=True)
class StreamedLabels:
    """Labels of a NIfTI file, of which one slab is in memory at a time.

    Args:
        path: The file.
        stored: Its voxels, ``[1, Z, Y, X]``.
        grid: Where they lie.
        scheme: What they mean.
    """

    path: Path
    stored: Stored
    grid: Geometry
    scheme: LabelScheme

    @classmethod
    def open(cls, path: Path, scheme: LabelScheme) -> StreamedLabels:
        """Open a file, of which nothing but the header is read.

        Raises:
            DataError: The header cannot be read.
        """
        return cls(path, *nifti.stored(path), scheme)

    @property
    def fixed_bytes(self) -> int:
        """Memory that reading takes beside the slabs."""
        return self.stored.fixed_bytes

    @property
    def voxel_bytes(self) -> int:
        """Memory of a voxel: as it is read, turned, rounded and compared."""
        return 4 * self.stored.dtype.itemsize + 8

    def parts(self, cuts: Sequence[Cut], places: Sequence[Place]) -> Iterator[LabelMap]:
        """Give the labels of slabs."""
        del places
        for slab in self.stored.slabs(cuts):
            labels = checked_labels(self.path, slab[0].transpose(), self.scheme)
            yield LabelMap(labels, self.scheme.kept(labels), self.grid, self.path, self.scheme)
            del slab, labels
