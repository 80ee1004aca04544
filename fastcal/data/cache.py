"""Preprocessed cases on disk, each in files that can be mapped into memory.

::

    FOLDER/settings.json            what the cases were made with
    FOLDER/CASE.image.npy           float32 [N, Ch, *P]
    FOLDER/CASE.label.npy           uint8 or int32 [N, *P]
    FOLDER/CASE.foreground.npy      int64: voxels of each class in turn, indices into [N, *P]
    FOLDER/CASE.json                the sources and sizes of these files; written last

A case is there when its CASE.json is, and its sources are still those named in it.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastcal.core import atomic
from fastcal.core.errors import DataError
from fastcal.data import checks

if TYPE_CHECKING:
    import numpy.typing as npt

    from fastcal.data.dataset import Case, Dataset
    from fastcal.data.preprocess import Preprocessing

FORMAT = 1
ARRAYS = ("image", "label", "foreground")

# nnU-Net keeps as many: enough to choose patches by, and small beside the case.
FOREGROUND_VOXELS = 10_000


@dataclass(frozen=True, slots=True)
class Entry:
    """A preprocessed case."""

    image: Tensor
    """float32 ``[N, Ch, *P]``."""
    label: Tensor
    """uint8 (int32 above 255) ``[N, *P]``."""
    foreground: list[Tensor]
    """Voxels of each class but the background, int64 indices into ``[N, *P]``; a random choice of
    `FOREGROUND_VOXELS` where there are more."""
    digest: str
    """Of the contents of the source files."""


class CaseCache:
    """The preprocessed cases of a dataset under one set of settings.

    Any number of processes may read and fill it at once: files appear whole, and two that make
    the same case write the same bytes.
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
        self.settings_digest = _digest(json.dumps(settings, sort_keys=True).encode())
        self.folder = folder / self.settings_digest
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "settings.json").exists():
            atomic.write_json(self.folder / "settings.json", settings)

    def find(self, case: Case) -> Entry | None:
        """The case if it is there, and its sources did not change since.

        Raises:
            DataError: a source file is missing.
        """
        described = self._described(case)
        if described is None:
            return None
        stats = [_stat(path) for path in _sources(case)]
        if described["sources"] != stats:
            # Copied or touched files have other times; their contents decide.
            if described["digest"] != _digest_of_files(case):
                return None
            atomic.write_json(self._path(case, "json"), described | {"sources": stats})
        try:
            return self._mapped(case, described)
        except (OSError, ValueError):
            return None

    def make(self, case: Case) -> Entry:
        """Preprocess a case and keep it.

        Raises:
            DataError: its files cannot be used; `Dataset.case_problems` tells all that is wrong.
            OSError: the disk's own error.
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
        described = {
            "sources": stats,
            "digest": _digest_of_files(case),
            "bytes": {name: self._path(case, f"{name}.npy").stat().st_size for name in ARRAYS},
            "foreground": [len(voxels) for voxels in foreground],
        }
        if stats != [_stat(path) for path in _sources(case)]:
            raise DataError(case.images[0], "it or another file of its case changed meanwhile")
        atomic.write_json(self._path(case, "json"), described)
        return self._mapped(case, described)

    def _mapped(self, case: Case, described: dict[str, Any]) -> Entry:
        image, label, foreground = (
            torch.from_numpy(np.load(self._path(case, f"{name}.npy"), mmap_mode="c"))
            for name in ARRAYS
        )
        counts = described["foreground"]
        return Entry(image, label, list(torch.split(foreground, counts)), described["digest"])

    def _described(self, case: Case) -> dict[str, Any] | None:
        try:
            described: dict[str, Any] = json.loads(self._path(case, "json").read_text("utf-8"))
            sizes = {name: self._path(case, f"{name}.npy").stat().st_size for name in ARRAYS}
            return described if described["bytes"] == sizes else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _path(self, case: Case, ending: str) -> Path:
        return self.folder / f"{case.name}.{ending}"


def _save(path: Path, array: npt.NDArray[Any]) -> None:
    """As `numpy.save`, whose error on a full disk has neither the disk's reason nor the file."""
    array = np.ascontiguousarray(array)
    with atomic.atomic_path(path) as temporary, temporary.open("wb") as stream:
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(array.reshape(-1).view(np.uint8).data)


def _sources(case: Case) -> list[Path]:
    return [*case.images, *([] if case.label is None else [case.label])]


def _stat(path: Path) -> list[Any]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    return [path.name, stat.st_size, stat.st_mtime_ns]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _digest_of_files(case: Case) -> str:
    digest = hashlib.sha256()
    for path in _sources(case):
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _foreground(
    labels: npt.NDArray[Any], num_classes: int, name: str
) -> list[npt.NDArray[np.int64]]:
    """Voxels of classes 1, 2, ..., flat; a random choice of them that the name settles."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    chosen = []
    for value in range(1, num_classes):
        voxels = np.flatnonzero(labels == value)
        if len(voxels) > FOREGROUND_VOXELS:
            voxels = np.sort(random.choice(voxels, FOREGROUND_VOXELS, replace=False))
        chosen.append(voxels)
    return chosen
