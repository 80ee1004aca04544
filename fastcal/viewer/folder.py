"""A prediction folder as a viewer sees it: its cases in order, and the layers of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from fastcal.cases import record, segments
from fastcal.cases.labels import LabelScheme
from fastcal.cases.overlap import overlap
from fastcal.cases.reference import check_same_grid, find_label_maps
from fastcal.core.doors import MissingFileError, read_json
from fastcal.core.errors import DataError
from fastcal.data import checks, description
from fastcal.data.predictions import PredictionFolder
from fastcal.viewer.files import Confined, find_images, find_maps
from fastcal.viewer.layers import (
    Frame,
    Layer,
    ShownCase,
    error_layer,
    map_layer,
    probability_layer,
)

_HIGHEST = 65_535
"""Of the labels: the page is sent them in 16 bits."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the list of cases. NaN stands for what is not known."""

    case: str
    uncertainty: float
    """Mean binary entropy of the predicted structures, from ``segments.json``."""
    quality: float
    """Mean predicted Dice of the structures, from ``quality.json``."""


class _Structure(BaseModel):
    case: str
    dice: float


class _Quality(BaseModel):
    structures: list[_Structure]


class ViewedFolder:
    """The cases of a prediction folder that have an image.

    Args:
        out: What ``fastcal predict``, ``ensemble`` or ``recalibrate apply``, or nnU-Net, wrote.
        images: Folder of the images, ``CASE_0000.nii.gz`` or ``CASE.nii.gz``.
        labels: Folder of reference label maps.
        dataset_json: nnU-Net's ``dataset.json`` with the names of labels; by default the one in or
            above ``out``, then ``labels``.
        quality: The ``quality.json`` that ``fastcal quality predict`` wrote.

    Raises:
        DataError: A folder does not exist or has no cases, or a file cannot be read.
    """

    def __init__(
        self,
        out: str | Path,
        images: str | Path,
        labels: str | Path | None = None,
        *,
        dataset_json: str | Path | None = None,
        quality: str | Path | None = None,
    ) -> None:
        self.out, self.images = Path(out), Path(images)
        self.labels = None if labels is None else Path(labels)
        given = [self.out, self.images, *([] if self.labels is None else [self.labels])]
        self._files = Confined(given)
        self._predictions = find_label_maps(self.out)
        self._images = find_images(self.images)
        self._references = {} if self.labels is None else find_label_maps(self.labels)
        self.cases = [case for case in self._predictions if case in self._images]
        """Names of the cases, sorted."""
        if not self.cases:
            raise DataError(self.images, f"has no image of any of the cases in {self.out}")
        near = [self.out, *([] if self.labels is None else [self.labels])]
        described = Path(dataset_json) if dataset_json else description.find(*near)
        self._described = None if described is None else description.read(described)
        listed = None if quality is None else Path(quality)
        self._beside = [path for path in (described, listed) if path is not None]
        self._beside.append(self.out / f"{segments.SEGMENTS}.json")
        self._uncertainty = _uncertainty_of(self.out)
        self._quality = {} if listed is None else _quality_of(listed)

    @property
    def rows(self) -> list[Row]:
        """The list of cases: by predicted quality, else by uncertainty, else by name."""
        rows = [
            Row(case, self._uncertainty.get(case, math.nan), self._quality.get(case, math.nan))
            for case in self.cases
        ]
        if self._quality:
            return sorted(rows, key=lambda row: _last(row.quality))
        return sorted(rows, key=lambda row: _last(-row.uncertainty))

    @property
    def inputs(self) -> list[Path]:
        """Every file that may be read, for the check that none is overwritten."""
        found = [*self._predictions.values(), *self._references.values(), *self._beside]
        found += [path for paths in self._images.values() for path in paths]
        return found + [path for case in self.cases for path in find_maps(self.out, case).values()]

    def check_case(self, case: str) -> None:
        """Refuse a case that cannot be shown.

        Raises:
            DataError: It has no prediction or no image.
        """
        if case not in self._predictions:
            raise DataError(self.out, f"has no prediction of case {case}")
        if case not in self._images:
            raise DataError(self.images, f"has no image of case {case}")

    def paths(self, case: str) -> dict[str, list[Path]]:
        """Return the files of a case for other programs.

        Returns:
            Lists under ``"image"``, ``"prediction"``, ``"reference"`` and ``"map"``.

        Raises:
            DataError: A file leads out of the folders, or the case cannot be shown.
        """
        self.check_case(case)
        found = {
            "image": list(self._images[case]),
            "prediction": [self._predictions[case]],
            "reference": [self._references[case]] if case in self._references else [],
            "map": list(find_maps(self.out, case).values()),
        }
        for path in (path for paths in found.values() for path in paths):
            self._files.check(path)
        return found

    def open(self, case: str) -> ShownCase:
        """Return the layers of a case. Images and maps are read when they are looked at.

        Raises:
            DataError: The case cannot be shown, or its files do not lie on one grid.
        """
        self.check_case(case)
        path = self._predictions[case]
        grid = self._files.geometry(path)
        x, y, z = grid.shape
        reader = _Reader(self._files, Frame(grid.affine, (x, y, z)), path)
        names = self._label_names
        prediction = Layer("prediction", "Prediction", "labels", reader.labels(path), names=names)
        num_classes = self._num_classes(prediction)
        if not names:
            found = sorted(set(np.unique(prediction.voxels).tolist()) - {0})
            names.update({int(value): f"label {value}" for value in found})
        layers = [*self._image_layers(case, reader), prediction]
        if case in self._references:
            source = self._references[case]
            reference = Layer(
                "reference", "Reference", "labels", reader.labels(source), names=names
            )
            layers += [reference, error_layer(prediction, reference, self._ignored)]
        for name, file in find_maps(self.out, case).items():
            layers += self._map_layers(name, file, reader, num_classes)
        if not any(layer.key.startswith("mean/") for layer in layers):
            layers += self._probability_layers(case, reader)
        return ShownCase(case, reader.frame, tuple(layers), self._members)

    def dice(self, case: str) -> float:
        """Return the mean Dice of a case's structures; NaN where it has no reference.

        Raises:
            DataError: A file cannot be read, or does not lie on the grid of the other.
        """
        self.check_case(case)
        if case not in self._references:
            return math.nan
        predicted = self._files.read(self._predictions[case])
        reference = self._files.read(self._references[case])
        check_same_grid(
            self._references[case],
            reference.data.shape,
            reference,
            predicted,
            expected=self._predictions[case],
        )
        labels = [
            _labels(path, volume.data)
            for path, volume in (
                (self._predictions[case], predicted),
                (self._references[case], reference),
            )
        ]
        kept = None if self._ignored is None else labels[1] != self._ignored
        return _foreground_dice(labels[0], labels[1], kept, self._groups(labels))

    @property
    def _label_names(self) -> dict[int, str]:
        if self._described is None:
            return {}
        return {value: name for name, value in self._described.labels.items() if value != 0}

    @property
    def _ignored(self) -> int | None:
        return None if self._described is None else self._described.ignore_label

    @property
    def _members(self) -> int | None:
        try:
            content: dict[str, Any] = read_json(self.out / record.FILE, dict[str, Any])
        except MissingFileError:  # nnU-Net's folders have none
            return None
        lists = (content.get(name) for name in ("weights", "members", "folders"))
        return next((len(one) for one in lists if isinstance(one, list) and one), None)

    def _num_classes(self, prediction: Layer) -> int:
        if self._described is not None:
            return self._described.num_classes
        return int(prediction.voxels.max(initial=1)) + 1

    def _groups(self, labels: list[NDArray[Any]]) -> list[tuple[int, ...]]:
        if self._described is not None:
            return list(LabelScheme.of(self._described).foreground.values())
        present = sorted({int(value) for one in labels for value in np.unique(one)} - {0})
        return [(value,) for value in present]

    def _image_layers(self, case: str, reader: _Reader) -> list[Layer]:
        files = self._images[case]
        names = () if self._described is None else self._described.channel_names
        if len(files) > 1:
            reads = [reader.values(path) for path in files]
        else:
            channels = self._files.geometry(files[0]).channels
            reads = [reader.values(files[0], channel) for channel in range(channels)]
        return [
            Layer(
                f"image/{number}",
                names[number] if number < len(names) else f"Channel {number}",
                "image",
                read,
            )
            for number, read in enumerate(reads)
        ]

    def _map_layers(self, name: str, path: Path, reader: _Reader, num_classes: int) -> list[Layer]:
        channels = self._files.geometry(path).channels
        if channels == 1:
            groups = self._described is not None and self._described.label_groups is not None
            return [map_layer(name, reader.values(path), num_classes, multilabel=groups)]
        titles = self._channel_titles(channels)
        if name == "mean":
            return [
                probability_layer(number, titles[number], reader.values(path, number), key=name)
                for number in range(channels)
            ]
        return [
            Layer(
                f"{name}/{number}",
                f"{name} of {titles[number]}",
                "map",
                reader.values(path, number),
            )
            for number in range(channels)
        ]

    def _probability_layers(self, case: str, reader: _Reader) -> list[Layer]:
        files = [self.out / f"{case}{ending}" for ending in (".npz", ".npy")]
        path = next((path for path in files if path.exists() or path.is_symlink()), None)
        if path is None:
            return []
        for one in (path, self.out / f"{case}.pkl"):
            self._files.check(one)
        folder = PredictionFolder(self.out, description=self._described)

        @cache
        def read() -> NDArray[Any]:
            found = folder.probabilities(case)
            check_same_grid(
                found.source, found.data.shape[1:], None, reader.grid, expected=reader.source
            )
            return found.data

        channels = len(read()) if self._described is None else self._described.num_classes

        def channel(number: int) -> Callable[[], NDArray[Any]]:
            return lambda: reader.frame.voxels(np.asarray(read()[number], np.float32))

        titles = self._channel_titles(channels)
        return [
            probability_layer(number, titles[number], channel(number)) for number in range(channels)
        ]

    def _channel_titles(self, channels: int) -> list[str]:
        if self._described is None:
            names: list[str] = []
        else:
            names = list(self._described.labels)
            if self._described.label_groups is not None:
                names = names[1:]
        return [names[n] if n < len(names) else f"class {n}" for n in range(channels)]


class _Reader:
    """Reads the files of a case on the grid of its prediction."""

    def __init__(self, files: Confined, frame: Frame, source: Path) -> None:
        self.frame, self.source = frame, source
        self._files = files
        self.grid = files.geometry(source)

    def labels(self, path: Path) -> Callable[[], NDArray[Any]]:
        """Return what reads a label map."""

        def read() -> NDArray[Any]:
            return _labels(path, self._read(path, 0))

        return read

    def values(self, path: Path, channel: int = 0) -> Callable[[], NDArray[Any]]:
        """Return what reads a channel of an image or of a map as float32."""

        def read() -> NDArray[Any]:
            with np.errstate(over="ignore"):
                return self._read(path, channel).astype(np.float32)

        return read

    def _read(self, path: Path, channel: int) -> NDArray[Any]:
        volume = self._files.read(path)
        check_same_grid(path, volume.data.shape, volume, self.grid, expected=self.source)
        data = volume.data if volume.data.ndim == 3 else volume.data[..., channel]
        return self.frame.voxels(data)


def _labels(path: Path, data: NDArray[Any]) -> NDArray[Any]:
    """Return labels as integers from 0 to `_HIGHEST`.

    Raises:
        DataError: There are others.
    """
    labels = checks.integers(path, data)
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or high > _HIGHEST:
        raise DataError(
            path, f"must hold labels from 0 to {_HIGHEST}, got {low if low < 0 else high}"
        )
    return labels


def _uncertainty_of(out: Path) -> dict[str, float]:
    """Mean binary entropy of the predicted structures, by case; empty without ``segments.json``."""
    if not (out / f"{segments.SEGMENTS}.json").exists():
        return {}
    return {
        case: _mean(
            [one.get("binary_entropy", math.nan) for key, one in found.items() if key != "0"]
        )
        for case, found in segments.read(out).cases.items()
    }


def _quality_of(path: Path) -> dict[str, float]:
    found: _Quality = read_json(path, _Quality)
    of_case: dict[str, list[float]] = {}
    for one in found.structures:
        of_case.setdefault(one.case, []).append(one.dice)
    return {case: _mean(dice) for case, dice in of_case.items()}


def _foreground_dice(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    kept: NDArray[np.bool_] | None,
    groups: list[tuple[int, ...]],
) -> float:
    masks = ((np.isin(reference, group), np.isin(prediction, group)) for group in groups)
    return _mean([overlap(*pair, kept=kept)["Dice"] for pair in masks])


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _last(value: float) -> float:
    return math.inf if math.isnan(value) else value
