"""A dataset in nnU-Net's raw layout: ``imagesTr/CASE_0000.nii.gz``, ``labelsTr/CASE.nii.gz``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcal.core.errors import DataError
from fastcal.data import checks, images, listing, nifti
from fastcal.data import description as dataset_json
from fastcal.data.description import Description

_CHANNEL_FILE = re.compile(r"(?P<case>.+)_(?P<channel>[0-9]{4})", re.DOTALL)


@dataclass(frozen=True)
class Case:
    """One case: a file per channel, and the reference label map where there is one.

    A single image file may hold all channels along its fourth axis, as in the Decathlon.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None

    def load(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any] | None, nifti.Volume]:
        """Read image and label.

        Returns:
            The image, float32 ``[Ch, X, Y, Z]``; the label map, integers ``[X, Y, Z]``, or None;
            and the first channel as it was read, whose geometry output files take.

        Raises:
            DataError: A file is missing or unreadable, channels or label map differ in shape or
                affine, or a label is not an integer.
        """
        like, *others = _channels(self.images)
        for path, volume in zip(self.images[1:], others, strict=False):
            checks.check_place(path, volume, self.images[0], like)
        labels = None
        if self.label is not None:
            volume = _one_channel(self.label)
            checks.check_place(self.label, volume, self.images[0], like)
            labels = checks.integers(self.label, volume.data)
        with np.errstate(over="ignore"):  # infinities are refused by whoever computes with them
            image = np.stack([volume.data for volume in (like, *others)], dtype=np.float32)
        return image, labels, like


@dataclass(frozen=True)
class Dataset:
    """A folder with ``dataset.json``, ``imagesTr`` and ``labelsTr``."""

    folder: Path
    description: Description
    cases: list[Case]
    """Sorted by name."""

    @classmethod
    def open(cls, folder: str | Path) -> Dataset:
        """Open a dataset and list its cases, without reading an image.

        Raises:
            DataError: There is no folder, no usable ``dataset.json``, or no case.

        Example:
            >>> Dataset.open("Dataset004_Hippocampus").num_classes  # doctest: +SKIP
            3
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError(folder, "no such folder")
        description = dataset_json.read(folder / "dataset.json")
        return cls(folder, description, _cases(folder, description))

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.description.name

    @property
    def channel_names(self) -> list[str]:
        """Names of the channels of an image."""
        return list(self.description.channel_names)

    @property
    def labels(self) -> dict[str, int]:
        """Values of the labels by name, background 0 first, without the ignore label."""
        return self.description.labels

    @property
    def num_classes(self) -> int:
        """Channels of a probability map: one per label, or one per label group."""
        return self.description.num_classes

    @property
    def ignore_label(self) -> int | None:
        """Value of voxels that were left unannotated; None if there is none."""
        return self.description.ignore_label

    @property
    def label_groups(self) -> tuple[dataset_json.LabelGroup, ...] | None:
        """Label values of each channel, where channels stand for groups (nnU-Net's regions)."""
        return self.description.label_groups

    @property
    def regions_class_order(self) -> tuple[int, ...] | None:
        """Value that each label group writes into a label map, in nnU-Net's order."""
        return self.description.regions_class_order

    @property
    def file_ending(self) -> str:
        """Ending of image files, such as ``.nii.gz``."""
        return self.description.file_ending

    def split(self, train: int, val: int, test: int) -> tuple[list[Case], list[Case], list[Case]]:
        """Take the first ``train`` cases by name, the next ``val`` and the next ``test``.

        Raises:
            ValueError: A count is negative, or the counts sum to more cases than there are.
        """
        counts = (train, val, test)
        if min(counts) < 0 or sum(counts) > len(self.cases):
            checks.complain(self.folder, self.left_over())  # it may be why cases are missing
            raise ValueError(
                "split must hold counts (train, val and test) of at least 0 that sum to at most "
                f"{len(self.cases)}, the number of cases, got {train}, {val} and {test}"
            )
        first, second = train, train + val
        return self.cases[:first], self.cases[first:second], self.cases[second : second + test]

    def problems(self) -> list[DataError]:
        """List every problem of every file, in the order of the cases; reads all voxels."""
        return list(self._problems())

    def validate(self) -> None:
        """Read every file, and report all problems at once.

        Every case must have a file per channel and a label map. They must be readable and agree in
        shape and affine. Labels must be integers that ``dataset.json`` declares, and no file may be
        left over.

        Raises:
            DataError: Names the one bad file, or the folder and then every bad file in turn;
                `problems` lists them one by one.
        """
        checks.complain(self.folder, self.problems())

    def case_problems(self, case: Case) -> list[DataError]:
        """List every problem of the files of one case; reads all their voxels."""
        return list(self._case_problems(case))

    def left_over(self) -> list[DataError]:
        """List files that belong to no case: surplus channels, and label maps without image."""
        return list(self._left_over())

    def _problems(self) -> Iterator[DataError]:
        yield from self._left_over()
        for case in self.cases:
            yield from self._case_problems(case)

    def _case_problems(self, case: Case) -> Iterator[DataError]:
        allowed = np.array(self.description.label_values)
        first: tuple[Path, nifti.Volume] | None = None
        for path in (*case.images, case.label):
            if path is None:
                continue
            try:
                if case.images == (path,):
                    volumes = _channels(case.images)
                    checks.check_count(path, len(volumes), len(self.channel_names))
                else:
                    volumes = [_one_channel(path)]
                if first is None:
                    first = path, volumes[0]
                else:
                    checks.check_place(path, volumes[0], *first)
                for volume in volumes:
                    if path == case.label:
                        checks.check_values(path, checks.integers(path, volume.data), allowed)
                    else:
                        checks.check_finite(path, volume.data)
            except DataError as error:
                yield error

    def _left_over(self) -> Iterator[DataError]:
        if self.description.listed_cases is not None or self.description.dataset is not None:
            return
        known = {case.name for case in self.cases}
        channels = len(self.channel_names)
        for _, files in sorted(_channel_files(self.folder / "imagesTr", self.file_ending).items()):
            for channel, path in sorted(files.items()):
                if channel >= channels:
                    yield DataError(path, f"is a channel beyond the {channels} of dataset.json")
        for path in sorted(listing.entries(self.folder / "labelsTr", self.file_ending)):
            if path.name.removesuffix(self.file_ending) not in known:
                yield DataError(path, "is a label map without an image")
            try:
                _check_once(path, self.file_ending, "label map of a case")
            except DataError as error:
                yield error


def image_cases(folder: str | Path, file_ending: str = ".nii.gz") -> list[Case]:
    """List the cases of a folder of images (``CASE_0000.nii.gz``), sorted by name, without labels.

    The highest channel number of a case determines how many channels it has.

    Args:
        folder: The folder.
        file_ending: Ending of the images.

    Raises:
        DataError: There is no such folder, no image in it, or an image without a channel number
            in its name.

    Example:
        >>> [case.name for case in image_cases("Dataset001_Mine/imagesTs")]  # doctest: +SKIP
        ['heart_032', 'heart_033']
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(folder, "no such folder")
    cases = _channel_files(folder, file_ending)
    if not cases:
        raise DataError(folder, f"has no images named CASE_0000{file_ending}")
    return [
        Case(name, _expected(folder, name, max(files) + 1, file_ending), None)
        for name, files in sorted(cases.items())
    ]


def _cases(folder: Path, description: Description) -> list[Case]:
    """Find the training cases: listed by ``dataset.json`` itself, or by the files in the folder."""
    if description.dataset is not None:
        return [Case(name, one.images, one.label) for name, one in description.dataset.items()]
    files, labels, ending = folder / "imagesTr", folder / "labelsTr", description.file_ending
    names = description.listed_cases
    if names is None:
        names = tuple(sorted(_channel_files(files, ending)))
    if not names:
        raise DataError(files, f"has no images that end in {ending}")
    channels = len(description.channel_names)
    cases = [
        Case(name, _expected(files, name, channels, ending), labels / f"{name}{ending}")
        for name in names
    ]
    for case in cases:
        if not any(path.exists() for path in case.images):
            raise DataError(folder / "dataset.json", f"lists {case.name}, which has no image")
    return cases


def _channel_files(folder: Path, ending: str) -> dict[str, dict[int, Path]]:
    """Return files by case name and channel number.

    Raises:
        DataError: A file is named otherwise; skipping it would silently lose a case.
    """
    cases: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in listing.entries(folder, ending):
        match = _CHANNEL_FILE.fullmatch(path.name.removesuffix(ending))
        if match is None:
            raise DataError(
                path, f"must be named like CASE_0000{ending}, got a name without a channel number"
            )
        _check_once(path, ending, f"image of case {match['case']}")
        cases[match["case"]][int(match["channel"])] = path
    return cases


def _check_once(path: Path, ending: str, what: str) -> None:
    """Refuse a file that is there in another format, too; beside volumes, pictures are figures."""
    others = images.LOCATED if ending in images.LOCATED else images.ENDINGS
    listing.check_once(path, ending, others, what)


def _expected(folder: Path, name: str, channels: int, ending: str) -> tuple[Path, ...]:
    whole, first = folder / f"{name}{ending}", folder / f"{name}_0000{ending}"
    if whole.is_file() and not first.is_file():
        return (whole,)
    if channels > 1 and not (folder / f"{name}_0001{ending}").exists() and _has_channels(first):
        return (first,)
    return tuple(folder / f"{name}_{channel:04d}{ending}" for channel in range(channels))


def _has_channels(path: Path) -> bool:
    """Whether one file holds several channels, as a picture in colour does."""
    try:
        return images.geometry(path).channels > 1
    except DataError:
        return False


def _channels(files: tuple[Path, ...]) -> list[nifti.Volume]:
    """Read one volume per channel, from one file each or all from a single file."""
    if len(files) > 1:
        return [_one_channel(path) for path in files]
    volume = images.read(files[0])
    if volume.data.ndim < 4:
        return [volume]
    return [
        replace(volume, data=volume.data[..., channel], channels=1)
        for channel in range(volume.data.shape[3])
    ]


def _one_channel(path: Path) -> nifti.Volume:
    volume = images.read(path)
    if volume.data.ndim > 3:
        raise DataError(path, f"must hold one 3-D volume, got shape {volume.data.shape}")
    return volume
