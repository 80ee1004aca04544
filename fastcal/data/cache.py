"""Preprocessed cases on disk, in files that can be mapped into memory.

::

    FOLDER/settings.json            settings with which the cases were made
    FOLDER/CASE.image.npy           float32 [N, Ch, *P]
    FOLDER/CASE.label.npy           uint8 or int32 [N, *P]
    FOLDER/CASE.foreground.npy      int64 indices into [N, *P] of the voxels of each class in turn
    FOLDER/CASE.json                sources and digests of these files; written last

A case is valid when its CASE.json exists, its sources are still those named there, and its arrays
are still those that were written. Otherwise it is made again.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastcal.core import atomic
from fastcal.core.doors import open_regular, read_json, read_npy
from fastcal.core.errors import DataError
from fastcal.data import checks, images
from fastcal.data.affines import affine_rule

if TYPE_CHECKING:
    import numpy.typing as npt

    from fastcal.data.dataset import Case, Dataset
    from fastcal.data.preprocess import Preprocessing

FORMAT = 1
ARRAYS = ("image", "label", "foreground")

# As many as nnU-Net keeps: enough to choose patches by, and small compared with the case.
FOREGROUND_VOXELS = 10_000


@dataclass(frozen=True, slots=True)
class Entry:
    """A preprocessed case."""

    image: Tensor
    """float32 ``[N, Ch, *P]``."""
    label: Tensor
    """uint8 (int32 above 255) ``[N, *P]``."""
    foreground: list[Tensor]
    """Voxels of each class except for the background, as int64 indices into ``[N, *P]``; a random
    choice of `FOREGROUND_VOXELS` where there are more."""
    digest: str
    """Digest of the contents of the source files."""


@dataclass(frozen=True, slots=True)
class Description:
    """The contents of CASE.json."""

    sources: list[tuple[str, int, int]]
    """Name, bytes and time of the last change (ns) of each source file."""
    digest: str
    """Digest of the contents of the source files."""
    arrays: dict[str, str]
    """SHA-256 of the file of each array."""
    foreground: list[int]
    """Number of voxels kept of each class except for the background."""


class CaseCache:
    """The preprocessed cases of a dataset under one set of settings.

    Any number of processes may read and fill the cache at the same time, because files appear
    whole, and processes that make the same case write the same bytes.

    Args:
        folder: Folder of caches; each set of settings has its own folder in it.
        dataset: The dataset of the cases.
        preprocessing: How the cases are preprocessed.
    """

    def __init__(self, folder: Path, dataset: Dataset, preprocessing: Preprocessing) -> None:
        self._dataset = dataset
        self._preprocessing = preprocessing
        settings = {
            "format": FORMAT,
            "dataset": dataset.name,
            "channel_names": dataset.channel_names,
            "labels": dataset.labels,
            "ignore_label": dataset.ignore_label,
            "preprocessing": preprocessing.to_json(),
        }
        if affine_rule() != "auto":
            settings["affine"] = affine_rule()
        self.settings_digest = _digest(json.dumps(settings, sort_keys=True).encode())
        self.folder = folder / self.settings_digest
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "settings.json").exists():
            atomic.write_json(self.folder / "settings.json", settings)

    def find(self, case: Case, *, verify: bool = True) -> Entry | None:
        """Return the case if it is there, undamaged, and made from its sources as they are now.

        Args:
            case: The case.
            verify: Compare the arrays with their digests, which reads them once. False is for
                processes whose parent has just done so.

        Returns:
            None where the case must be made.

        Raises:
            DataError: A source file is missing.
        """
        stats = [_stat(path) for path in _sources(case)]
        try:
            described: Description = read_json(self._path(case, "json"), Description)
            if verify and described.arrays != self._digests(case):
                return None
            found = self._mapped(case, described)
        except (OSError, ValueError):  # no entry, or a damaged one
            return None
        if described.sources != stats:
            # Files that were copied or touched have other times, so their contents decide.
            if described.digest != _digest_of_files(case):
                return None
            self._describe(case, replace(described, sources=stats))
        return found

    def make(self, case: Case) -> Entry:
        """Preprocess a case and keep it.

        Raises:
            DataError: Its files cannot be used; `Dataset.case_problems` lists all that is wrong.
            OSError: The disk reports an error.
        """
        stats = [_stat(path) for path in _sources(case)]
        image, label, like = case.load()
        if label is None or case.label is None:
            raise DataError(case.images[0], "has no label")
        allowed = self._dataset.description.label_values
        checks.check_count(case.images[0], len(image), len(self._dataset.channel_names))
        checks.check_values(case.label, label, np.array(allowed))
        try:
            images = self._preprocessing.apply(image, like, crop=True).numpy()
            labels = self._preprocessing.apply_label(label, like, crop=True).numpy()
        except ValueError as error:
            raise DataError(case.images[0], str(error)) from error
        if self._preprocessing.crop_to_nonzero:
            box: Any = (..., *self._preprocessing.nonzero_box(image, label, like))
            images, labels = images[box], labels[box]
        labels = labels.astype(np.uint8 if max(allowed) < 256 else np.int32)
        foreground = _foreground(labels, self._dataset.num_classes, case.name)
        arrays = (images, labels, np.concatenate([*foreground, np.empty(0, np.int64)]))
        self._path(case, "json").unlink(missing_ok=True)
        for name, array in zip(ARRAYS, arrays, strict=True):
            _save(self._path(case, f"{name}.npy"), array)
        described = Description(
            sources=stats,
            digest=_digest_of_files(case),
            arrays=self._digests(case),
            foreground=[len(voxels) for voxels in foreground],
        )
        if stats != [_stat(path) for path in _sources(case)]:
            raise DataError(case.images[0], "this or another file of the case changed while read")
        self._describe(case, described)
        return self._mapped(case, described)

    def _mapped(self, case: Case, described: Description) -> Entry:
        image, label, foreground = (
            torch.from_numpy(read_npy(self._path(case, f"{name}.npy"))) for name in ARRAYS
        )
        if sum(described.foreground) != len(foreground):
            raise DataError(self._path(case, "json"), "does not describe the foreground beside it")
        voxels = list(torch.split(foreground, described.foreground))
        return Entry(image, label, voxels, described.digest)

    def _digests(self, case: Case) -> dict[str, str]:
        return {name: _sha256(self._path(case, f"{name}.npy")) for name in ARRAYS}

    def _describe(self, case: Case, described: Description) -> None:
        atomic.write_json(self._path(case, "json"), asdict(described))

    def _path(self, case: Case, ending: str) -> Path:
        return self.folder / f"{case.name}.{ending}"


def _save(path: Path, array: npt.NDArray[Any]) -> None:
    """Save as `numpy.save` does, whose error on a full disk names neither reason nor file."""
    array = np.ascontiguousarray(array)
    with atomic.atomic_path(path) as temporary, temporary.open("wb") as stream:
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(array.reshape(-1).view(np.uint8).data)


def _sources(case: Case) -> list[Path]:
    named = [*case.images, *([] if case.label is None else [case.label])]
    return [part for path in named for part in images.parts(path)]


def _stat(path: Path) -> tuple[str, int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    return path.name, stat.st_size, stat.st_mtime_ns


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _digest_of_files(case: Case) -> str:
    digest = hashlib.sha256()
    for path in _sources(case):
        digest.update(bytes.fromhex(_sha256(path)))
    return digest.hexdigest()[:16]


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with open_regular(path) as file:
        while piece := file.stream.read(1 << 20):
            found.update(piece)
    return found.hexdigest()


def _foreground(
    labels: npt.NDArray[Any], num_classes: int, name: str
) -> list[npt.NDArray[np.int64]]:
    """Return flat indices of voxels of classes 1, 2, ...; the name seeds the random choice."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    chosen = []
    for value in range(1, num_classes):
        voxels = np.flatnonzero(labels == value)
        if len(voxels) > FOREGROUND_VOXELS:
            voxels = np.sort(random.choice(voxels, FOREGROUND_VOXELS, replace=False))
        chosen.append(voxels)
    return chosen
