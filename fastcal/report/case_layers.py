"""Reading what the pictures of a case are made from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcal.cases.reference import LabelMap, LabelMaps, check_same_grid
from fastcal.core.errors import DataError
from fastcal.data import images, listing
from fastcal.data.dataset import image_cases
from fastcal.report.folders import Source
from fastcal.report.segment_entropy import entropy_of
from fastcal.report.slices import Layers


@dataclass(frozen=True)
class FolderLayers:
    """Reads the layers of a case from its folders."""

    references: LabelMaps
    sources: Mapping[str, Source]
    """By the title of the model."""
    images: Mapping[str, Path]
    """File of the first channel by case; empty where there are no images."""

    def __call__(self, case: str) -> Layers:
        """Read a case.

        Raises:
            DataError: A file is missing or damaged, or lies on another grid.
        """
        reference = self.references.read(case)
        predictions, entropies = {}, {}
        for title, source in self.sources.items():
            read = source.labels.read(case, reference.grid, reference.path)
            predictions[title] = np.asarray(read.labels)
            entropy = _entropy(source, case, reference)
            if entropy is not None:
                entropies[title] = entropy
        return Layers(
            self._image(case, reference),
            np.asarray(reference.labels),
            reference.grid.affine,
            predictions,
            entropies,
            reference.kept,
        )

    def _image(self, case: str, reference: LabelMap) -> NDArray[Any] | None:
        if not self.images:
            return None
        path = self.images[case]
        volume = images.read(path)
        data = volume.data if volume.data.ndim == 3 else volume.data[..., 0]
        check_same_grid(path, data.shape, volume, reference.grid, expected=reference.path)
        return np.asarray(data)


def _entropy(source: Source, case: str, reference: LabelMap) -> NDArray[Any] | None:
    path = source.entropy_map(case)
    if path is not None:
        volume = images.read(path)
        check_same_grid(path, volume.data.shape, volume, reference.grid, expected=reference.path)
        data = np.asarray(volume.data)
        if data.size != math.prod(data.shape[:3]):
            raise DataError(path, f"must have one value per voxel, got the shape {data.shape}")
        return data.reshape(data.shape[:3])
    if case not in source.saved:
        return None
    found = source.probabilities.probabilities(case)
    if reference.scheme.multilabel:
        # Every channel is a question of its own; the entropy of all answers is their sum.
        each = np.stack([entropy_of([one, 1.0 - one]) for one in found.data])
        return np.asarray(each.sum(0))
    return entropy_of(found.data)


def image_files(folder: str | Path, cases: Sequence[str], ending: str) -> dict[str, Path]:
    """Return the file of the first channel of each case.

    It is ``CASE_0000`` with the ending of the dataset or another one that is known, or ``CASE``
    with such an ending, where one file holds all channels.

    Raises:
        DataError: There is no such folder, or a case has no image; the message names it.
    """
    place = Path(folder)
    if not place.is_dir():
        raise DataError(place, "no such folder")
    for one in (ending, *(other for other in images.ENDINGS if other != ending)):
        whole = {path.name.removesuffix(one): path for path in listing.entries(place, one)}
        if not whole:
            continue
        found = {case: whole[case] for case in cases if case in whole}
        if len(found) < len(cases):
            found = {case.name: case.images[0] for case in image_cases(place, one)} | found
        for case in cases:
            if case not in found:
                raise DataError(place, f"has no image of case {case}")
        return {case: found[case] for case in cases}
    raise DataError(place, f"has no images named CASE_0000{ending}")
