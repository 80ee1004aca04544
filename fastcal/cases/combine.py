"""One case: members streamed through the accumulator, checked, counted against its labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcal import CalibrationStatistics, EnsembleAccumulator, EnsembleStatistics
from fastcal.cases.labels import LabelScheme
from fastcal.cases.reference import check_same_grid, find_label_maps, read_labels
from fastcal.cases.region_rules import RegionRule, case_regions
from fastcal.core.errors import DataError
from fastcal.core.problem import Activation
from fastcal.core.region_bits import Regions
from fastcal.data import nifti
from fastcal.data.nifti import Geometry


@dataclass(frozen=True, slots=True)
class Member:
    """What one member says about a case."""

    values: Tensor
    """Logits or probabilities ``[1, C, X, Y, Z]``, any strides."""
    like: Geometry | None
    """Where they lie, if their file tells."""
    source: Path
    """What an error names."""
    weight: float = 1.0
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class Estimator:
    """How members are read, averaged and counted; see `fastcal.ensemble_statistics`."""

    maps: tuple[str, ...]
    scheme: LabelScheme
    from_logits: bool
    activation: Activation = "softmax"
    space: Literal["prob", "logit"] = "prob"
    n_bins: int = 15
    closed: Literal["right", "left"] = "right"
    fine_bins: int = 0
    regions: tuple[RegionRule, ...] = ()

    def accumulator(self) -> EnsembleAccumulator:
        """Return an empty accumulator; a combination it cannot do is a ValueError."""
        return EnsembleAccumulator(
            tuple(dict.fromkeys(("label", *self.maps))),
            from_logits=self.from_logits,
            activation=self.activation,
            multilabel=self.scheme.multilabel,
            space=self.space,
        )

    def statistics(self) -> CalibrationStatistics:
        """Return the empty state that the cases of a run are added to."""
        return CalibrationStatistics(
            self.scheme.num_classes,
            self.n_bins,
            self.closed,
            multilabel=self.scheme.multilabel,
            fine_bins=self.fine_bins,
            regions=[rule.name for rule in self.regions],
        )


@dataclass(frozen=True, slots=True)
class References:
    """Label maps of a folder, by case, read in a scheme."""

    folder: Path
    paths: dict[str, Path]
    scheme: LabelScheme

    @classmethod
    def find(cls, folder: str | Path, scheme: LabelScheme) -> References:
        return cls(Path(folder), find_label_maps(Path(folder)), scheme)

    def require(self, cases: Sequence[str]) -> None:
        """Raise a `DataError` for the first case without labels."""
        for case in cases:
            if case not in self.paths:
                raise DataError(self.folder, f"no label map of case {case}")

    def geometry(self, case: str) -> Geometry:
        """Return the geometry of a case's labels."""
        self.require([case])
        return nifti.geometry(self.paths[case])

    def read(self, case: str, like: Geometry, source: Path) -> NDArray[Any]:
        """Read the labels ``[X, Y, Z]`` of a case on the grid ``like``, that of ``source``."""
        self.require([case])
        path = self.paths[case]
        labels, volume = read_labels(path)
        check_same_grid(path, labels.shape, volume.affine, like, expected=source)
        self.scheme.check(labels, path)
        return labels


def combine(
    members: Callable[[], Iterator[Member]],
    *,
    estimator: Estimator,
    case: str,
    references: References | None,
) -> tuple[EnsembleStatistics, Geometry]:
    """Stream the members of a case through one accumulator.

    Parameters
    ----------
    members
        Starts an iteration over the members; it is started again only to find the member that
        held a NaN.
    estimator
        How to read, average and count them.
    case
        Name under which the statistics are counted.
    references
        Labels to count against, or None.

    Returns
    -------
    tuple
        Maps ``[1, *S]`` and ``[1, C, *S]`` with the statistics of this case, and the geometry of
        the first member that has one, else of the labels.

    Raises
    ------
    DataError
        A member with another shape, affine or class count than the first, with a voxel that is
        NaN, or with a probability outside [0, 1]; no geometry; labels that do not fit. The
        message names the file.
    """
    accumulator = estimator.accumulator()
    first: _First | None = None
    for member in members():
        estimator.scheme.check_channels(member.values.shape[1], member.source)
        first = _First.of(member) if first is None else first.checked(member)
        values = member.values.to(first.real)
        accumulator.update(values, weight=member.weight, temperature=member.temperature)
        # Else this one would stay in memory while the next is read.
        del member, values
    if first is None:
        raise ValueError("members: got none, expected at least one")
    like = first.like or _geometry_of_labels(first, references, case)
    target, mask, regions = _target(first, references, case, like, estimator)
    batch, classes, *voxels = first.shape
    label_shape = (batch, classes, *voxels) if estimator.scheme.multilabel else (batch, *voxels)
    labels = torch.empty(label_shape, dtype=torch.int16, device=first.device)
    results = accumulator.finalize(
        target,
        mask=mask,
        n_bins=estimator.n_bins,
        closed=estimator.closed,
        case_id=None if target is None else [case],
        nan_policy="omit",
        fine_bins=0 if target is None else estimator.fine_bins,
        regions=regions,
        out={"label": labels},
    )
    if bool((labels < 0).any()):
        raise _culprit(members, estimator, first.source)
    return results, like


@dataclass(frozen=True, slots=True)
class _First:
    """What is kept of the first member to compare the others with; not its values."""

    shape: torch.Size
    real: torch.dtype
    """Every member is read as this: versions of nnU-Net differ in the type they save."""
    device: torch.device
    like: Geometry | None
    source: Path

    @classmethod
    def of(cls, member: Member) -> _First:
        values = member.values
        real = torch.float64 if values.dtype == torch.float64 else torch.float32
        return cls(values.shape, real, values.device, member.like, member.source)

    def checked(self, member: Member) -> _First:
        """Compare a later member; its geometry is taken where there was none."""
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
                member.like.affine,
                self.like,
                expected=self.source,
            )
        return self


def _geometry_of_labels(first: _First, references: References | None, case: str) -> Geometry:
    if references is None:
        raise DataError(
            first.source, "no geometry: expected CASE.nii.gz or CASE.pkl beside it, or labels"
        )
    like = references.geometry(case)
    check_same_grid(
        first.source, tuple(first.shape[2:]), None, like, expected=references.paths[case]
    )
    return like


def _target(
    first: _First,
    references: References | None,
    case: str,
    like: Geometry,
    estimator: Estimator,
) -> tuple[Tensor | None, Tensor | None, Regions | None]:
    """What to count against, with its mask, each with a batch axis of one, and its regions."""
    if references is None:
        return None, None, None
    labels = references.read(case, like, first.source)
    target = torch.from_numpy(references.scheme.target(labels))[None].to(first.device)
    kept = references.scheme.kept(labels)
    mask = None if kept is None else torch.from_numpy(kept)[None].to(first.device)
    regions = case_regions(estimator.regions, labels, kept, like.affine)
    if regions is not None:
        regions = Regions(regions.bits[None].to(first.device), regions.names)
    return target, mask, regions


def _culprit(
    members: Callable[[], Iterator[Member]], estimator: Estimator, first: Path
) -> DataError:
    """Find the member that made a voxel invalid."""
    for member in members():
        values = member.values
        # -inf is a legal logit: probability 0.
        bad = values.isnan() | (values == float("inf"))
        if bool(bad.any()):
            return DataError(member.source, f"{int(bad.sum())} values are NaN or infinite")
        if not estimator.from_logits:
            low, high = float(values.min()), float(values.max())
            if low < -1e-3 or high > 1 + 1e-3:
                return DataError(
                    member.source,
                    f"probabilities from {low:.4g} to {high:.4g}, expected 0 to 1; logits need "
                    "from_logits",
                )
    return DataError(first, "the mean of the members is not a number in some voxels")
