"""All slices of a set of cases, preprocessed once and kept in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fastcal.data import nifti
from fastcal.data.nifti import Geometry
from fastcal.data.preprocess import Preprocessing
from fastcal.errors import DataError
from fastcal.train.config import TrainConfig

if TYPE_CHECKING:
    from fastcal.data.dataset import Case, Dataset

# Spacings this close are equal: headers store them in float32.
SPACING_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class SliceSet:
    """Slices of several cases in one tensor."""

    images: Tensor
    """float32 ``[S, Ch, H, W]``."""
    labels: Tensor
    """uint8 (int32 above 255) ``[S, H, W]``."""
    case: Tensor
    """int64 ``[S]``: index into `names`."""
    names: list[str]

    def __len__(self) -> int:
        return self.images.shape[0]

    def to(self, device: torch.device) -> SliceSet:
        return SliceSet(
            self.images.to(device), self.labels.to(device), self.case.to(device), self.names
        )

    def case_names(self, slices: Tensor) -> list[str]:
        """Names of the cases some slices belong to, each once, in order."""
        indices = self.case.cpu()[slices.cpu()].tolist()
        return [self.names[index] for index in sorted(set(indices))]


def plan_preprocessing(cases: Sequence[Case], config: TrainConfig) -> Preprocessing:
    """Settle what the settings leave to the data: the slice axis and the common size.

    Cases whose header cannot be read have no say; `load_slices` names them.
    """
    geometries: list[Geometry] = []
    problems: list[DataError] = []
    for case in cases:
        try:
            geometries.append(nifti.geometry(case.images[0]))
        except DataError as error:
            problems.append(error)
    if not geometries:
        raise problems[0]
    axis = _coarsest_axis(geometries) if config.slice_axis == "auto" else config.slice_axis
    preprocessing = Preprocessing(axis, config.spacing, None, config.percentiles)
    size = config.size
    if size is None:
        divisor = 2 ** (len(config.widths) - 1)
        planes = [preprocessing.extents(geometry) for geometry in geometries]
        rows, columns = (max(extents) for extents in zip(*planes, strict=True))
        size = (-(-rows // divisor) * divisor, -(-columns // divisor) * divisor)
    return Preprocessing(axis, config.spacing, size, config.percentiles)


def _coarsest_axis(geometries: Sequence[Geometry]) -> int:
    spacings = np.median([geometry.spacing for geometry in geometries], axis=0)
    largest = spacings.max() * (1 - SPACING_TOLERANCE)
    return max(axis for axis in range(3) if spacings[axis] >= largest)


def load_slices(
    dataset: Dataset,
    cases: Sequence[Case],
    preprocessing: Preprocessing,
) -> SliceSet:
    """Read, preprocess and keep every slice of some labelled cases.

    Raises:
        DataError: everything that is wrong with any of the cases, in one line: missing,
            unreadable or mismatching files, NaN in an image, labels that dataset.json does not
            name.
    """
    dtype = torch.uint8 if _largest_label(dataset) < 256 else torch.int32
    images: list[Tensor] = []
    labels: list[Tensor] = []
    problems: list[str] = []
    for case in cases:
        try:
            image, label = _load_case(dataset, case, preprocessing)
        except DataError as error:
            problems.append(str(error))
            continue
        images.append(image)
        labels.append(label.to(dtype))
    if problems:
        raise DataError(
            dataset.folder, f"{len(problems)} cases cannot be used: {'; '.join(problems)}"
        )
    counts = torch.tensor([len(image) for image in images])
    return SliceSet(
        torch.cat(images),
        torch.cat(labels),
        torch.repeat_interleave(torch.arange(len(cases)), counts),
        [case.name for case in cases],
    )


def _load_case(dataset: Dataset, case: Case, preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    image, label, like = case.load()
    if label is None:
        raise DataError(case.images[0], "has no label")
    allowed = {*range(dataset.num_classes), dataset.ignore_label}
    strange = sorted(set(np.unique(label).tolist()) - allowed)
    if strange:
        raise DataError(
            case.label or case.name,
            f"labels {strange[:5]} are not in dataset.json, "
            f"which has classes 0 to {dataset.num_classes - 1}",
        )
    try:
        slices = preprocessing.apply(image, like, crop=True)
    except ValueError as error:
        raise DataError(case.images[0], str(error)) from error
    return slices, preprocessing.apply_label(label, like, crop=True)


def _largest_label(dataset: Dataset) -> int:
    ignored = -1 if dataset.ignore_label is None else dataset.ignore_label
    return max(dataset.num_classes - 1, ignored)
