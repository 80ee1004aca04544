"""Batches of slices or patches: pure functions of the seed, the member and the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fastcal.core.arrays import Integers
from fastcal.data.prepared import PreparedCases
from fastcal.train.augment import augment, source_extents
from fastcal.train.augmentation import AugmentationConfig
from fastcal.train.section import BatchSize, Extents, Section
from fastcal.train.seeds import AUGMENTATION, ORDER, PATCHES, derived_seed


class SamplingConfig(Section):
    """What a batch is made of. The defaults are the paper's: whole slices in random order.

    Example:
        >>> SamplingConfig(batch_size=2, patch=(128, 128, 128), oversample=0.33).batch_size
        2
    """

    batch_size: BatchSize = 32
    patch: Extents | Literal["auto"] | None = None
    """Extents of the patches. None takes whole items, which must then have one size. ``"auto"``
    takes the size of the median case, limited to 128^3 voxels (512^2 in two dimensions)."""
    oversample: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of a batch whose patches are centred on a voxel of a random foreground class (0.33 in
    nnU-Net). Where items are whole slices, slices that hold such a voxel are drawn."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Items to train on."""

    images: Tensor
    """float32 ``[B, Ch, *P]``."""
    labels: Tensor
    """int64 ``[B, *P]``."""
    cases: list[str]
    """The case of each item."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """The items of a step before augmentation, with the margin that rotations need."""

    step: int
    images: Tensor
    labels: Tensor
    cases: list[str]


class BatchSource:
    """A source of batches, drawn from prepared cases.

    An item is a slice in two dimensions and a case in three. Items come in one random order after
    another, regardless of where epochs end, so that every item is seen equally often. The last
    items of a batch, a share of ``oversample``, show a voxel of a random foreground class of their
    case.

    Args:
        prepared: The cases, on the device already (`PreparedCases.to`) or mapped from disk.
        batch_size: Items per batch.
        patch: Extents of the patches. None takes whole items, which must have one size.
        oversample: Share of a batch that must show foreground, in [0, 1].
        augmentation: Augmentation, which runs on the device; None for none.
        seed: The seed of the ensemble.
        member: The number of the member.
        device: Where batches go; None for where the cases are.

    Raises:
        ValueError: There are no cases, the items have several sizes and there is no patch, or the
            patch has another number of axes than the items.

    Example:
        >>> source = BatchSource(
        ...     prepared, batch_size=2, patch=(32, 48, 32), oversample=0.33
        ... )  # doctest: +SKIP
        >>> source.batch(0).images.shape  # doctest: +SKIP
        torch.Size([2, 1, 32, 48, 32])
    """

    def __init__(
        self,
        prepared: PreparedCases,
        *,
        batch_size: int,
        patch: tuple[int, ...] | None = None,
        oversample: float = 0.0,
        augmentation: AugmentationConfig | None = None,
        seed: int = 0,
        member: int = 0,
        device: torch.device | str | None = None,
    ) -> None:
        if len(prepared) == 0:
            raise ValueError("prepared must hold at least one case, got none")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if not 0.0 <= oversample <= 1.0:
            raise ValueError(f"oversample must lie in [0, 1], got {oversample}")
        sizes = sorted({tuple(label.shape[1:]) for label in prepared.labels})
        if patch is None and len(sizes) > 1:
            raise ValueError(
                f"patch must be set where items have several sizes, got None for {len(sizes)} "
                f"sizes from {sizes[0]} to {sizes[-1]} (or set a size of preprocessing)"
            )
        if patch is not None and (len(patch) != len(sizes[0]) or min(patch) < 1):
            raise ValueError(
                f"patch must be {len(sizes[0])} positive extents, one per axis of an item, "
                f"got {patch}"
            )
        self.prepared = prepared
        self.batch_size = batch_size
        self.patch = sizes[0] if patch is None else tuple(patch)
        self.device = prepared.device if device is None else torch.device(device)
        self._whole = patch is None
        self._oversampled = batch_size - round(batch_size * (1.0 - oversample))
        self._augmentation = augmentation or AugmentationConfig()
        self._seed = seed
        self._member = member
        counts = [len(label) for label in prepared.labels]
        self._case_of_item = np.repeat(np.arange(len(counts)), counts)
        self._first_item = np.cumsum([0, *counts])
        self._order: tuple[int, Integers] = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        """Return the number of items: slices in two dimensions, cases in three."""
        return len(self._case_of_item)

    @property
    def resident(self) -> bool:
        """Whether the cases are already on the device of the batches."""
        return self.prepared.device.type == self.device.type

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0: a function of seed, member and step."""
        return self.finish(self.gather(step))

    def gather(self, step: int, *, pin: bool = False) -> Gathered:
        """Cut the items of a step, on the device of the cases and before augmentation.

        Args:
            step: Counted from 0.
            pin: Put them into pinned memory.
        """
        random = np.random.default_rng(derived_seed(self._seed, self._member, PATCHES, step))
        items = self._items(step)
        focus: list[tuple[int, ...] | None] = [None] * self.batch_size
        for place in range(self.batch_size - self._oversampled, self.batch_size):
            items[place], focus[place] = self._foreground(int(items[place]), random)
        extents = self._source_extents(step)
        cases = self._case_of_item[items].tolist()
        names = [self.prepared.names[case] for case in cases]
        if self._whole and self.prepared.stacked is not None:
            index = torch.from_numpy(items).to(self.prepared.device, non_blocking=True)
            images, labels = (part.index_select(0, index) for part in self.prepared.stacked)
            return Gathered(step, images, labels, names)
        like = self.prepared.images[0], self.prepared.labels[0]
        shapes = (self.batch_size, like[0].shape[1], *extents), (self.batch_size, *extents)
        images, labels = (
            torch.zeros(shape, dtype=part.dtype, device=part.device, pin_memory=pin)
            for shape, part in zip(shapes, like, strict=True)
        )
        for place, (item, case) in enumerate(zip(items.tolist(), cases, strict=True)):
            number = item - int(self._first_item[case])
            label = self.prepared.labels[case][number]
            start = self._start(tuple(label.shape), focus[place], random)
            # The margin around the patch holds what a rotation may turn into it.
            start = [s - (q - p) // 2 for s, q, p in zip(start, extents, self.patch, strict=True)]
            target, source = _overlap(start, extents, tuple(label.shape))
            images[place][target] = self.prepared.images[case][number][source]
            labels[place][target] = label[source]
        return Gathered(step, images, labels, names)

    def finish(self, gathered: Gathered) -> Batch:
        """Move what `gather` returned to the device of the batches, and augment it there."""
        images = gathered.images.to(self.device, non_blocking=True)
        labels = gathered.labels.to(self.device, non_blocking=True)
        if self._augmentation.active:
            images, labels = augment(
                images,
                labels,
                self._augmentation,
                seed=self._augmentation_seed(gathered.step),
                patch=self.patch,
            )
        return Batch(images, labels.long(), gathered.cases)

    def _augmentation_seed(self, step: int) -> int:
        return derived_seed(self._seed, self._member, AUGMENTATION, step)

    def _source_extents(self, step: int) -> tuple[int, ...]:
        if self._whole or not self._augmentation.active:
            return self.patch
        return source_extents(
            self._augmentation,
            seed=self._augmentation_seed(step),
            batch=self.batch_size,
            patch=self.patch,
        )

    def _items(self, step: int) -> Integers:
        """Return the items of a step, before any are exchanged for foreground."""
        position, end = step * self.batch_size, (step + 1) * self.batch_size
        chosen = []
        while position < end:
            number, offset = divmod(position, len(self))
            part = self._permutation(number)[offset : offset + end - position]
            chosen.append(part)
            position += len(part)
        return np.concatenate(chosen)

    def _permutation(self, number: int) -> Integers:
        known, order = self._order
        if known != number:
            seed = derived_seed(self._seed, self._member, ORDER, number)
            generator = torch.Generator().manual_seed(seed)
            order = torch.randperm(len(self), generator=generator).numpy()
            self._order = number, order
        return order

    def _foreground(
        self, item: int, random: np.random.Generator
    ) -> tuple[int, tuple[int, ...] | None]:
        """Choose an item of the same case, and a voxel of a random class in it to show."""
        case = int(self._case_of_item[item])
        classes = [voxels for voxels in self.prepared.foreground[case] if len(voxels)]
        if not classes:
            return item, None
        voxels = classes[random.integers(len(classes))]
        flat = int(voxels[random.integers(len(voxels))])
        number, *voxel = np.unravel_index(flat, tuple(self.prepared.labels[case].shape))
        return int(self._first_item[case] + number), tuple(int(place) for place in voxel)

    def _start(
        self,
        extents: tuple[int, ...],
        focus: tuple[int, ...] | None,
        random: np.random.Generator,
    ) -> list[int]:
        """Return where the patch begins in an item; a smaller item lies in its middle."""
        starts = []
        for axis, (extent, wanted) in enumerate(zip(extents, self.patch, strict=True)):
            if extent <= wanted:
                starts.append(-((wanted - extent) // 2))
            elif focus is None:
                starts.append(int(random.integers(extent - wanted + 1)))
            else:
                starts.append(min(max(focus[axis] - wanted // 2, 0), extent - wanted))
        return starts


def _overlap(
    start: Sequence[int], extents: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the part of a box that lies in an item, as indices into the box and the item."""
    target: list[Any] = [...]
    source: list[Any] = [...]
    for first, extent, present in zip(start, extents, shape, strict=True):
        low, high = max(first, 0), min(first + extent, present)
        target.append(slice(low - first, high - first))
        source.append(slice(low, high))
    return tuple(target), tuple(source)
