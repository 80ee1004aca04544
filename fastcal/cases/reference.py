"""Label maps on disk: which cases a folder has, reading them, comparing their geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcal.cases.region_rules import RegionRule, case_regions
from fastcal.core.errors import DataError
from fastcal.core.region_bits import Regions
from fastcal.data import checks, images, listing

if TYPE_CHECKING:
    from fastcal.cases.labels import LabelScheme
    from fastcal.data.nifti import Geometry, Volume


@dataclass(frozen=True, slots=True)
class LabelMap:
    """The labels of one case, checked against a scheme."""

    labels: NDArray[Any]
    """Integers ``[X, Y, Z]``."""
    kept: NDArray[np.bool_] | None
    """The voxels that count ``[X, Y, Z]``, or None where all of them do."""
    grid: Geometry
    path: Path
    scheme: LabelScheme
    held: Regions | None = None
    """Masks of regions ``[X, Y, Z]`` that were made before, if any."""

    def part(self, place: tuple[slice, slice, slice]) -> LabelMap:
        """Return the labels of a part of the volume; the grid stays that of the whole."""
        kept = None if self.kept is None else self.kept[place]
        held = None if self.held is None else Regions(self.held.bits[place], self.held.names)
        return replace(self, labels=self.labels[place], kept=kept, held=held)

    def with_regions(self, rules: Sequence[RegionRule]) -> LabelMap:
        """Return the labels with the masks of regions, which depend on the whole volume."""
        if not rules:
            return self
        return replace(
            self, held=case_regions(rules, self.labels, self.kept, self.grid.affine, None)
        )

    def check_grid(self, like: Geometry, source: Path) -> None:
        """Raise a `DataError` if the labels do not lie on a grid.

        Args:
            like: The grid they must lie on.
            source: The file of that grid, which an error names.
        """
        check_same_grid(self.path, self.grid.shape, self.grid, like, expected=source)

    def target(self, device: torch.device | str = "cpu") -> Tensor:
        """Return what probabilities are compared with: ``[1, *S]``, ``[1, C, *S]`` for groups."""
        return torch.from_numpy(self.scheme.target(self.labels))[None].to(device)

    def mask(self, device: torch.device | str = "cpu") -> Tensor | None:
        """Return `kept` with a batch axis of one, ``[1, *S]``."""
        return None if self.kept is None else torch.from_numpy(self.kept)[None].to(device)

    def regions(
        self,
        rules: Sequence[RegionRule],
        device: torch.device | str = "cpu",
        prediction: NDArray[Any] | None = None,
    ) -> Regions | None:
        """Return the regions of the case with a batch axis of one, or None without rules."""
        found = self.held
        if found is None:
            found = case_regions(rules, self.labels, self.kept, self.grid.affine, prediction)
        return None if found is None else Regions(found.bits[None].to(device), found.names)


@dataclass(frozen=True, slots=True)
class LabelMaps:
    """Label maps of a folder, by case, read in a scheme."""

    folder: Path
    paths: dict[str, Path]
    scheme: LabelScheme

    @classmethod
    def find(cls, folder: str | Path, scheme: LabelScheme) -> LabelMaps:
        """Find the label maps at the top of a folder.

        Raises:
            DataError: The folder is missing, or holds no label maps.
        """
        return cls(Path(folder), find_label_maps(Path(folder)), scheme)

    def require(self, cases: Sequence[str]) -> None:
        """Raise a `DataError` for the first case without a label map."""
        for case in cases:
            if case not in self.paths:
                raise DataError(self.folder, f"no label map of case {case}")

    def geometry(self, case: str, shape: tuple[int, ...], source: Path) -> Geometry:
        """Return the geometry of a case's labels, for the numbers of a file that has none.

        Args:
            case: Name of the case.
            shape: ``(X, Y, Z)`` of the numbers.
            source: Their file, which an error names.

        Raises:
            DataError: There are no labels of this case, or their shape differs.
        """
        self.require([case])
        like = images.geometry(self.paths[case])
        check_same_grid(source, shape, None, like, expected=self.paths[case])
        return like

    def read(self, case: str, like: Geometry | None = None, source: Path | None = None) -> LabelMap:
        """Read the labels of a case.

        Args:
            case: Name of the case.
            like: The grid they must lie on; None for any.
            source: The file of that grid, which an error names.

        Raises:
            DataError: There are none, or they cannot be read, lie elsewhere or are out of range.
        """
        self.require([case])
        path = self.paths[case]
        if like is not None and source is not None:
            # Before memory is taken for voxels that do not fit.
            check_same_grid(path, images.geometry(path).shape, None, like, expected=source)
        labels, volume = read_labels(path)
        if like is not None and source is not None:
            check_same_grid(path, labels.shape, volume, like, expected=source)
        self.scheme.check(labels, path)
        return LabelMap(labels, self.scheme.kept(labels), volume.grid, path, self.scheme)

    def check_place(self, case: str, like: Geometry, source: Path) -> None:
        """Compare where the labels of a case lie with another grid, by their header.

        Args:
            case: Name of the case.
            like: The grid they must lie on.
            source: The file of that grid, which an error names.

        Raises:
            DataError: There are none, they have more than three axes or lie elsewhere.
        """
        self.require([case])
        path = self.paths[case]
        here = images.geometry(path)
        _check_axes(path, here)
        check_same_grid(path, here.shape, here, like, expected=source)


def find_label_maps(folder: Path) -> dict[str, Path]:
    """Return the label map of every case at the top of a folder, by case name, sorted.

    They are the files of formats that say where they lie (NIfTI, NRRD, MetaImage). Only in a
    folder without any of these are pictures and TIFF stacks label maps; elsewhere they are figures.

    Raises:
        DataError: The folder is missing, has no image of a known format, or two of one case.
    """
    if not folder.is_dir():
        raise DataError(folder, "no such folder")
    files = [(path, images.ending_of(path.name)) for path in listing.entries(folder)]
    endings = {path: ending for path, ending in files if ending is not None}
    located = {path: ending for path, ending in endings.items() if ending in images.LOCATED}
    found = listing.by_case(
        ((path.name.removesuffix(end), path) for path, end in (located or endings).items()),
        "label map",
    )
    if not found:
        listed = ", ".join(f"*{ending}" for ending in images.ENDINGS)
        raise DataError(folder, f"no label maps ({listed}) in this folder")
    return found


def read_labels(path: Path) -> tuple[NDArray[Any], Volume]:
    """Read a label map: integers ``[X, Y, Z]`` in nibabel's order, and the volume they came in.

    Raises:
        DataError: The file cannot be read, or holds numbers that are not integers.
    """
    volume = images.read(path)
    _check_axes(path, volume)
    return checks.integers(path, volume.data), volume


def checked_labels(path: Path, voxels: NDArray[Any], scheme: LabelScheme) -> NDArray[Any]:
    """Return the labels of a part of a label map ``[X, Y, Z]`` as integers.

    Raises:
        DataError: They are no integers, or out of range.
    """
    labels = checks.integers(path, voxels)
    scheme.check(labels, path)
    return labels


def _check_axes(path: Path, found: Geometry) -> None:
    if found.channels > 1:
        shape = (*found.shape, found.channels)
        raise DataError(path, f"a label map must have three axes, got shape {_times(shape)}")


def check_extents(path: Path, image: Path) -> None:
    """Compare the extents of two images by their headers, before memory is taken for voxels.

    A compressed file of 2 MB may hold gigabytes.

    Raises:
        DataError: They differ, or a header cannot be read; the message names ``path``.
    """
    like = images.geometry(image)
    check_same_grid(path, images.geometry(path).shape, None, like, expected=image)


def check_same_grid(
    path: Path,
    shape: tuple[int, ...],
    place: Geometry | None,
    like: Geometry,
    *,
    expected: Path,
) -> None:
    """Raise a `DataError` naming ``path`` if it does not lie on the grid ``like`` of ``expected``.

    Geometries agree when no corner of the volume moves by more than a tenth of a voxel; see
    `fastcal.data.nifti.Geometry.agrees`. One that is None is not compared.
    """
    if tuple(shape[:3]) != tuple(like.shape[:3]):
        raise DataError(
            path, f"shape {_times(shape[:3])} differs from {_times(like.shape[:3])} of {expected}"
        )
    if place is not None and not like.agrees(place):
        raise DataError(path, f"its affine differs from that of {expected}")


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
