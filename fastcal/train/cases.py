"""The prepared cases of a run, and the sources of the batches drawn from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from fastcal.data.dataset import Dataset
from fastcal.data.prepared import PreparedCases, prepare_cases
from fastcal.data.preprocess import Preprocessing
from fastcal.train.batches import BatchSource
from fastcal.train.recipe import Recipe
from fastcal.train.splits import Split, resolve_split


@dataclass(frozen=True, slots=True)
class RunCases:
    """Prepared cases to train on and to validate on."""

    train: PreparedCases
    val: PreparedCases
    fingerprint: str
    """Identifies the contents of all cases and how they were preprocessed."""

    def source(self, recipe: Recipe, number: int) -> BatchSource:
        """Return the source of a member's batches."""
        sampling = recipe.config.sampling
        return BatchSource(
            self.train,
            batch_size=sampling.batch_size,
            patch=recipe.patch,
            oversample=sampling.oversample,
            augmentation=recipe.config.augmentation,
            seed=recipe.seed,
            member=number,
            device=recipe.device,
        )

    def class_counts(self, num_classes: int) -> tuple[int, ...]:
        """Count the voxels of each class in the training set."""
        counts = torch.zeros(num_classes, dtype=torch.int64)
        for label in self.train.labels:
            found = torch.bincount(label.flatten().cpu(), minlength=num_classes)
            counts += found[:num_classes]
        return tuple(counts.tolist())


@dataclass(frozen=True, slots=True)
class CaseFolder:
    """Where a process of a run finds its cases."""

    dataset: Path
    split: dict[str, list[str]]
    preprocessing: Preprocessing
    cache: Path
    verified: bool = False
    """Whether another process has just compared the cached files with their digests."""

    def load(
        self, device: torch.device, *, progress: Callable[[str], None] | None = None
    ) -> RunCases:
        """Prepare the cases, or find them prepared.

        They go onto the GPU if they take less than half of its free memory.

        Args:
            device: Where training runs.
            progress: Called with a line to show, every few seconds.

        Raises:
            DataError: Names everything that is wrong with any of the cases.
        """
        dataset = Dataset.open(self.dataset)
        split: Split = resolve_split(dataset, self.split)
        prepared = prepare_cases(
            dataset,
            [*split.train, *split.val],
            self.preprocessing,
            self.cache,
            verify=not self.verified,
            progress=progress,
        )
        fingerprint = prepared.fingerprint
        if device.type == "cuda" and prepared.nbytes < torch.cuda.mem_get_info(device)[0] // 2:
            place = device
        else:
            place = prepared.device
        train, val = (prepared.select(self.split[part]).to(place) for part in ("train", "val"))
        return RunCases(train, val, fingerprint)
