"""A sample of voxels of bounded size, stratified by class, from which fits start."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastcal.recalibrate.stream import no_voxels
from fastcal.recalibrate.volumes import Check, Volume

SAMPLE_VALUES = 1 << 20
"""Logits a sample holds at most: 8 MB, 131,000 voxels at eight classes."""

_RANGE = 1 << 31


@dataclass(frozen=True, slots=True)
class Sample:
    """Voxels drawn, each with the number of voxels that it stands for."""

    logits: Tensor
    """float64 [C, n]"""
    target: Tensor
    """[n], or float64 [C, n] for Bernoullis."""
    weight: Tensor
    """float64 [n], the inverse of the probability of being drawn; 1 where all were."""


class Sampler:
    """Keeps voxels whose position hashes below the threshold of their class.

    A class that gets too large halves its threshold, so that rare classes are kept whole while a
    background of millions is thinned. The hash makes the choice repeatable, and independent of
    how volumes are cut into blocks.
    """

    def __init__(self, values: int = SAMPLE_VALUES) -> None:
        self._values = values
        self._position = 0
        self._thresholds = torch.empty(0, dtype=torch.int64)
        self._logits: list[Tensor] = []
        self._target: list[Tensor] = []
        self._stratum: list[Tensor] = []
        self._hash: list[Tensor] = []
        self._held = 0

    def add(self, volume: Volume) -> None:
        """Draw from one more volume; bad voxels are left to the pass to complain about."""
        strata = volume.num_classes + (1 if volume.reading.multilabel else 0)
        if not len(self._thresholds):
            self._thresholds = torch.full((strata,), _RANGE, dtype=torch.int64)
        check = Check(volume)
        for slab in volume.slabs():
            kept = check.kept(slab)
            target = slab.target.long()
            stratum = _first_class(target) if volume.reading.multilabel else target[0]
            stratum = torch.where(kept, stratum, 0)
            start = self._position + slab.start
            hashes = _hashed(start, len(kept)).to(target.device)
            drawn = (kept & (hashes < self._thresholds.to(target.device)[stratum])).nonzero()[:, 0]
            if not len(drawn):
                continue
            block = volume.block(slab, drawn)
            self._logits.append(volume.reading.logits(block.values, volume.dtype).cpu())
            self._target.append(block.target.cpu())
            self._stratum.append(stratum[drawn].cpu())
            self._hash.append(hashes[drawn].cpu())
            self._held += len(drawn)
            if self._held * volume.num_classes > 2 * self._values:
                self._thin(volume.num_classes)
        self._position += volume.n_positions

    def close(self, num_classes: int) -> Sample:
        """The sample."""
        if not self._logits:
            raise no_voxels()
        self._thin(num_classes)
        weight = (_RANGE / self._thresholds.double())[self._stratum[0]]
        return Sample(self._logits[0], self._target[0], weight)

    def _thin(self, num_classes: int) -> None:
        logits, target = torch.cat(self._logits, -1), torch.cat(self._target, -1)
        stratum, hashes = torch.cat(self._stratum), torch.cat(self._hash)
        share = max(1, self._values // num_classes // len(self._thresholds))
        for number in range(len(self._thresholds)):
            own = hashes[stratum == number]
            while int((own < self._thresholds[number]).sum()) > share:
                self._thresholds[number] //= 2
        kept = hashes < self._thresholds[stratum]
        self._logits, self._target = [logits[:, kept]], [target[..., kept]]
        self._stratum, self._hash = [stratum[kept]], [hashes[kept]]
        self._held = int(kept.sum())


def _first_class(target: Tensor) -> Tensor:
    """The lowest class that is present; C where none is."""
    present = target == 1
    return torch.where(present.any(0), present.int().argmax(0), len(target))


def _hashed(start: int, count: int) -> Tensor:
    """31 bits for each position (the mixer of splitmix64; Steele et al., OOPSLA 2014)."""
    x = torch.arange(start + 1, start + 1 + count, dtype=torch.int64) * -0x61C8864680B583EB
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * -0x6B2FB644ECCEEE15
    return (x ^ (x >> 31)) & (_RANGE - 1)
