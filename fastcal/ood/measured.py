"""What detectors measure of cases: scores of their segments, their images, their features."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastcal.cases.loop import ProgressOption
from fastcal.cases.pipeline import read_ahead
from fastcal.cases.told import told
from fastcal.core.arrays import Floats
from fastcal.core.errors import DataError
from fastcal.data.dataset import Case, image_cases
from fastcal.data.nifti import Volume
from fastcal.models.device import choose_device
from fastcal.models.features import bottleneck_features
from fastcal.models.network import SegmentationNetwork
from fastcal.models.run import Run, member_weights, weights_file
from fastcal.ood.histogram import intensity_histogram
from fastcal.scores import ScoreTable, read_table
from fastcal.scores.files import scored_files

ENDING = ".nii.gz"
_BATCH_SIZES = {2: 16, 3: 2}
"""Slices or windows per forward pass, by the number of axes, as in prediction."""


@dataclass(frozen=True, slots=True)
class CaseFolder:
    """Cases on disk, by whatever is known of them.

    Raises:
        ValueError: Nothing is given, or networks without images.
    """

    predictions: str | Path | None = None
    """Prediction folder with its ``segments.json``."""
    images: str | Path | None = None
    """Folder of ``CASE_0000.nii.gz``."""

    def __post_init__(self) -> None:
        if self.predictions is None and self.images is None:
            raise ValueError("predictions must be given or else images, got neither")

    @property
    def files(self) -> list[Path]:
        """Every file that may be read, for the check that none is overwritten."""
        found = [] if self.predictions is None else scored_files(self.predictions)
        if self.images is not None and Path(self.images).is_dir():
            found += Path(self.images).iterdir()
        return found


@dataclass(frozen=True)
class Networks:
    """Members of a run whose features are taken.

    Args:
        run: Folder of the run.
        members: Numbers of its members; None for all that are finished.
        device: Where they run; None for a GPU if there is one.
        trust: Packages that networks may be imported from.

    Raises:
        DataError: The run or a member cannot be read.
        UntrustedNetworkError: A network is not built in, nor of a trusted package.
        ValueError: A network has no deepest block, or there is no such member.
    """

    run: str | Path
    members: Sequence[int] | None = None
    device: torch.device | str | None = None
    trust: Collection[str] = ()
    opened: Run = field(init=False)
    loaded: tuple[SegmentationNetwork, ...] = field(init=False)
    digests: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        run, place = Run.open(self.run), choose_device(self.device)
        files = [weights_file(folder) for folder in run.chosen(self.members)]
        networks = tuple(member_weights(file).build(self.trust).to(place).eval() for file in files)
        for file, network in zip(files, networks, strict=True):
            if network.bottleneck is None:
                raise DataError(file, "the network must be a UNet to tell its deepest block")
        digests = tuple(hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files)
        for name, value in (("opened", run), ("loaded", networks), ("digests", digests)):
            object.__setattr__(self, name, value)

    def prepared(self, case: Case, image: NDArray[np.float32], like: Volume) -> torch.Tensor:
        """Return what the networks see of a case.

        Args:
            case: The case, for messages.
            image: Its image as it was read.
            like: Where it lies.

        Raises:
            DataError: It has other channels than the run, or cannot be preprocessed.
        """
        wanted = len(self.opened.channel_names)
        if len(image) != wanted:
            raise DataError(
                case.images[0], f"the number of channels must be {wanted}, got {len(image)}"
            )
        try:
            return self.opened.preprocessing.apply(image, like)
        except ValueError as error:
            raise DataError(case.images[0], str(error)) from error

    def features(self, images: torch.Tensor) -> Floats:
        """Return the features ``[M, F]`` of what `prepared` gives."""
        found = [
            bottleneck_features(
                network,
                images,
                patch=self.opened.patch,
                batch_size=_BATCH_SIZES[network.dims],
            )
            for network in self.loaded
        ]
        return np.asarray(torch.stack(found).numpy(), np.float64)


@dataclass(frozen=True)
class Measured:
    """Values of cases by score: ``[n]``, or features ``[n, M, F]``."""

    cases: tuple[str, ...]
    values: dict[str, Floats]


def measure(
    folder: CaseFolder,
    scores: Collection[str],
    *,
    networks: Networks | None = None,
    n_bins: int = 64,
    structures: Collection[str] | None = None,
    progress: ProgressOption = False,
) -> Measured:
    """Measure the cases of a folder.

    Args:
        folder: Where they are. With predictions and images, the cases that have both.
        scores: Names of the scores.
        networks: For ``"mahalanobis"``.
        n_bins: Of ``"histogram"``.
        structures: Whose scores are averaged; None for all.
        progress: True prints one line per image to stderr; a function is called with a
            `Progress`.

    Raises:
        DataError: A file is missing or damaged, or has no such score or structure.
        ValueError: A score needs predictions, images or networks that are not given.
    """
    from_images = [name for name in scores if name in ("histogram", "mahalanobis")]
    of_segments = [name for name in scores if name not in from_images]
    if of_segments and folder.predictions is None:
        raise ValueError(f"predictions must be given for {', '.join(of_segments)}, got None")
    if from_images and folder.images is None:
        raise ValueError(f"images must be given for {', '.join(from_images)}, got None")
    if "mahalanobis" in scores and networks is None:
        raise ValueError("networks must be given for mahalanobis, got None")
    table = None
    if folder.predictions is not None and of_segments:
        table = _chosen(read_table(folder.predictions), structures, folder.predictions)
    images = {}
    if folder.images is not None and from_images:
        ending = ENDING if networks is None else networks.opened.file_ending
        images = {case.name: case for case in image_cases(folder.images, ending)}
    cases = tuple(images) if table is None else table.cases_present
    if table is not None and from_images:
        cases = tuple(case for case in cases if case in images)
        if not cases:
            raise DataError(
                str(folder.images), f"has no images of the cases of {folder.predictions}"
            )
    values: dict[str, Floats] = {}
    if table is not None:
        by_case = {case: _rows(table, case) for case in cases}
        for name in of_segments:
            column = _column(table, name, str(folder.predictions))
            values[name] = np.array([_mean(column[rows]) for rows in by_case.values()])
    found: dict[str, list[Floats]] = {name: [] for name in from_images}
    shown = cases if from_images else ()
    ahead = read_ahead(shown, lambda case: images[case].load())
    for _, (case, (image, _, like)) in zip(told(shown, progress), ahead, strict=True):
        if "histogram" in found:
            found["histogram"].append(_histogram(images[case], image, n_bins))
        if networks is not None and "mahalanobis" in found:
            prepared = networks.prepared(images[case], image, like)
            found["mahalanobis"].append(networks.features(prepared))
    for name, arrays in found.items():
        values[name] = _stacked(arrays, name, str(folder.images))
    return Measured(cases, values)


def _chosen(
    table: ScoreTable, structures: Collection[str] | None, source: str | Path
) -> ScoreTable:
    for name in structures or ():
        if name not in table.structures:
            raise DataError(
                source,
                f"structures must be among {', '.join(table.structures_present)}, got {name!r}",
            )
    return table if structures is None else table.without(set(table.structures) - set(structures))


def _column(table: ScoreTable, name: str, source: str) -> Floats:
    try:
        return table.matrix([name])[:, 0]
    except ValueError as error:
        raise DataError(source, str(error)) from error


def _rows(table: ScoreTable, case: str) -> Any:
    return np.flatnonzero(np.array([one == case for one in table.cases], bool))


def _mean(values: Floats) -> float:
    """Mean over the structures that were predicted; NaN where none was."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _histogram(case: Case, image: NDArray[np.float32], n_bins: int) -> Floats:
    try:
        return intensity_histogram(image, n_bins=n_bins)
    except ValueError as error:
        raise DataError(case.images[0], str(error)) from error


def _stacked(arrays: Sequence[Floats], name: str, source: str) -> Floats:
    if len({array.shape for array in arrays}) > 1:
        raise DataError(source, f"images must have one number of channels for {name}, got several")
    stacked: Floats = np.stack(arrays)
    return stacked


def run_files(run: str | Path | None) -> list[Path]:
    """Return the files of a run folder, for the check that none is overwritten."""
    return [] if run is None else [path for path in Path(run).rglob("*") if path.is_file()]
