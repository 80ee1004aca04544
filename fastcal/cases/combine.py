"""One case: members streamed through the accumulator, checked, counted against the labels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fastcal import EnsembleStatistics, SegmentSettings
from fastcal.cases.reference import LabelMap, check_same_grid
from fastcal.cases.segments import settings
from fastcal.cases.settings import Counted, MemberReading, Written
from fastcal.cases.source import Member
from fastcal.core.errors import DataError, DataWarning
from fastcal.core.predictions import Predictions, memory_order
from fastcal.data import properties
from fastcal.data.nifti import Geometry


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is computed of a case."""

    counted: Counted
    maps: tuple[str, ...]
    segments: SegmentSettings | None

    @classmethod
    def of(cls, counted: Counted, written: Written) -> Wanted:
        """Return what the files of a run are made from."""
        return cls(counted, written.computed_maps, settings() if written.segments else None)


@dataclass(frozen=True, slots=True)
class Combined:
    """The results of a case."""

    statistics: EnsembleStatistics
    """Maps ``[1, *S]`` and ``[1, C, *S]``, and the statistics of this case."""
    like: Geometry
    """The geometry of the first member that has one, else that of the labels."""


def combine(
    case: str,
    members: Iterator[Member],
    reading: MemberReading,
    wanted: Wanted,
    *,
    reference: LabelMap | None,
    again: Callable[[], Iterator[Member]],
    extents: tuple[int, ...] | None = None,
) -> Combined:
    """Stream the members of a case, or of a slab of it, through one accumulator.

    Args:
        case: Name under which the statistics are counted.
        members: The members.
        reading: What their numbers mean.
        wanted: What is computed.
        reference: Labels to count against, of the same slab, or None.
        again: Gives the members once more, to find the one that held a NaN.
        extents: ``(X, Y, Z)`` of the whole volume, if the members are of a slab.

    Returns:
        Maps and statistics of this case, with the geometry of the whole volume.

    Raises:
        DataError: A member differs from the first in shape, affine or number of classes, or has a
            voxel that is NaN or a probability outside [0, 1]; there is no geometry; the labels do
            not fit. The message names the file.
    """
    counted = wanted.counted
    accumulator = reading.accumulator(wanted.maps, segments=wanted.segments or False)
    first: _First | None = None
    for member in members:
        reading.scheme.check_channels(member.values.shape[1], member.source)
        if first is None:
            first = _First.of(member)
            if reference is not None and first.like is not None:
                # Before time is spent on members that the labels do not fit.
                reference.check_grid(first.like, first.source)
        else:
            first = first.checked(member)
        values = member.values.to(first.real)
        accumulator.update(values, weight=member.weight, temperature=member.temperature)
        # Otherwise this member would stay in memory while the next is read.
        del member, values
    if first is None:
        raise ValueError(f"members of case {case} must be at least one, got none")
    shape = tuple(first.shape[2:]) if extents is None else extents
    like = first.like or _geometry_of_labels(first.source, shape, reference)
    if reference is not None:
        reference.check_grid(like, first.source)
    multilabel = reading.scheme.multilabel
    labels = first.predictions(multilabel=multilabel).empty(torch.int16, classes=multilabel)
    results = accumulator.finalize(
        None if reference is None else reference.target(first.device),
        mask=None if reference is None else reference.mask(first.device),
        n_bins=counted.n_bins,
        closed=counted.closed,
        case_id=None if reference is None else [case],
        nan_policy="omit",
        fine_bins=0 if reference is None else counted.fine_bins,
        regions=None if reference is None else reference.regions(counted.rules, first.device),
        out={"label": labels},
    )
    if bool((labels < 0).any()):
        raise _culprit(again(), first.source, reading)
    return Combined(results, like)


@dataclass(frozen=True, slots=True)
class _First:
    """What is kept of the first member to compare the others with; not its values."""

    shape: torch.Size
    real: torch.dtype
    """Every member is read as this type: versions of nnU-Net differ in the type they save."""
    device: torch.device
    order: tuple[int, ...] | None
    """How its axes lie in memory."""
    like: Geometry | None
    source: Path

    @classmethod
    def of(cls, member: Member) -> _First:
        values = member.values
        real = torch.float64 if values.dtype == torch.float64 else torch.float32
        order = memory_order(values)
        return cls(values.shape, real, values.device, order, member.like, member.source)

    def predictions(self, *, multilabel: bool) -> Predictions:
        """What all members have in common."""
        return Predictions(self.shape, self.device, self.real, 1, multilabel, order=self.order)

    def checked(self, member: Member) -> _First:
        """Compare a later member; take its geometry if there was none."""
        if member.values.shape != self.shape:
            raise DataError(
                member.source,
                f"shape {tuple(member.values.shape[2:])} differs from "
                f"{tuple(self.shape[2:])} of {self.source}",
            )
        if self.like is None:
            return replace(self, like=member.like)
        if member.like is not None:
            check_same_grid(
                member.source,
                member.like.shape,
                member.like,
                self.like,
                expected=self.source,
            )
        return self


def _geometry_of_labels(
    source: Path, shape: tuple[int, ...], reference: LabelMap | None
) -> Geometry:
    if reference is not None:
        check_same_grid(source, shape, None, reference.grid, expected=reference.path)
        return reference.grid
    pickled = source.with_suffix(".pkl")
    if not pickled.is_file():
        raise DataError(
            source, "no geometry: there must be CASE.nii.gz or CASE.pkl beside it, or labels"
        )
    # Pictures have no place in the world. nnU-Net notes the size of their voxels alone, and makes
    # it 999 across the only slice.
    noted = properties.read(pickled).spacing or (1.0, 1.0, 1.0)
    spacing = [size if extent > 1 else 1.0 for size, extent in zip(noted, shape, strict=True)]
    message = (
        f"says no geometry; files get voxels of {' x '.join(f'{size:g}' for size in spacing)} mm "
        "along the axes of the world"
    )
    warnings.warn(DataWarning(pickled, message), stacklevel=2)
    return Geometry.from_affine(np.diag([*spacing, 1.0]), shape)


def _culprit(members: Iterator[Member], first: Path, reading: MemberReading) -> DataError:
    """Find the member that made a voxel invalid."""
    for member in members:
        values = member.values
        # -inf is a legal logit: probability 0.
        bad = values.isnan() | (values == float("inf"))
        if bool(bad.any()):
            return DataError(member.source, f"{int(bad.sum())} values are NaN or infinite")
        if not reading.from_logits:
            low, high = float(values.min()), float(values.max())
            if low < -1e-3 or high > 1 + 1e-3:
                return DataError(
                    member.source,
                    f"probabilities must be from 0 to 1, got {low:.4g} to {high:.4g}; logits need "
                    "from_logits",
                )
    return DataError(first, "the mean of the members is not a number in some voxels")
