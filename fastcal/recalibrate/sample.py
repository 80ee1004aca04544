"""A sample of voxels of bounded size, stratified by class, from which fits start."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastcal.recalibrate.stream import no_voxels
from fastcal.recalibrate.volumes import Check, FitVolume, Slab

SAMPLE_VALUES = 1 << 20
"""The most logits that a sample holds: 8 MB, or 131,000 voxels with eight classes."""

VISITED = 1 << 15
"""Positions of a volume that a sparse sample visits."""

_RANGE = 1 << 31
_STRIDE = 1 << 40
"""Between the positions of two volumes, which have fewer voxels than that."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Voxels that were drawn, each with the number of voxels that it stands for."""

    logits: Tensor
    """Float64 ``[C, n]``."""
    target: Tensor
    """Class indices ``[n]``, or float64 ``[C, n]`` for Bernoulli variables."""
    weight: Tensor
    """Inverse of the probability of being drawn, float64 ``[n]``; 1 if all voxels were drawn."""


class Sampler:
    """Draws a sample, which keeps voxels whose position hashes below the threshold of their class.

    The threshold of a class is halved when the class gets too large, so that rare classes are kept
    whole while a background of millions is thinned. The hash makes the choice repeatable, and
    independent of how volumes are cut into blocks. One sampler that draws from all volumes, and one
    for each of them, merged, choose the same.

    Args:
        values: The most logits to hold.
        sparse: Visit only `VISITED` voxels of a volume, one in each of as many equal stretches.
            This takes less time than reading all voxels, and is enough for a starting point.
        volume: Number of the first volume.
        thresholds: The `thresholds` of a sampler that this one is going to be merged into, which
            would leave out whatever is above them.
    """

    def __init__(
        self,
        values: int = SAMPLE_VALUES,
        *,
        sparse: bool = False,
        volume: int = 0,
        thresholds: Tensor | None = None,
    ) -> None:
        self._values, self._sparse = values, sparse
        self._volume = volume
        empty = torch.empty(0, dtype=torch.int64)
        self._thresholds = empty if thresholds is None else thresholds.clone()
        self._logits: list[Tensor] = []
        self._target: list[Tensor] = []
        self._stratum: list[Tensor] = []
        self._hash: list[Tensor] = []
        self._weight: list[Tensor] = []
        self._held = 0

    def add(self, volume: FitVolume) -> None:
        """Draw from one more volume. Bad voxels are skipped here; the pass reports them."""
        strata = volume.num_classes + (1 if volume.reading.multilabel else 0)
        if not len(self._thresholds):
            self._thresholds = torch.full((strata,), _RANGE, dtype=torch.int64)
        check = Check(volume)
        if self._sparse and volume.n_positions > VISITED:
            spread = _spread(volume.n_positions, self._volume * _STRIDE)
            share = volume.n_positions / VISITED
            positions = self._volume * _STRIDE + spread
            self._draw(volume, check, volume.scattered(spread), positions, share)
        else:
            start = self._volume * _STRIDE
            for slab in volume.slabs():
                positions = torch.arange(start, start + slab.n_voxels)
                self._draw(volume, check, slab, positions, 1.0)
                start += slab.n_voxels
        self._volume += 1

    @property
    def thresholds(self) -> Tensor:
        """Hashes of each class that are kept; empty before the first volume."""
        return self._thresholds.clone()

    def merge(self, other: Sampler, num_classes: int) -> None:
        """Add what ``other`` has drawn from volumes that come after those of this one."""
        if not len(other._thresholds):
            return
        if not len(self._thresholds):
            self._thresholds = torch.full_like(other._thresholds, _RANGE)
        self._thresholds = torch.minimum(self._thresholds, other._thresholds)
        self._logits += other._logits
        self._target += other._target
        self._stratum += other._stratum
        self._hash += other._hash
        self._weight += other._weight
        self._held += other._held
        if self._held * num_classes > 2 * self._values:
            self._thin(num_classes)

    def _draw(
        self, volume: FitVolume, check: Check, slab: Slab, positions: Tensor, share: float
    ) -> None:
        """Draw from a slab, in which each voxel stands for ``share`` voxels."""
        kept = check.kept(slab)
        target = slab.target.long()
        stratum = _first_class(target) if volume.reading.multilabel else target[0]
        stratum = torch.where(kept, stratum, 0)
        hashes = _hashed(positions).to(target.device)
        drawn = (kept & (hashes < self._thresholds.to(target.device)[stratum])).nonzero()[:, 0]
        if not len(drawn):
            return
        block = volume.block(slab, drawn)
        self._logits.append(volume.reading.logits(block.values, volume.dtype).cpu())
        self._target.append(block.target.cpu())
        self._stratum.append(stratum[drawn].cpu())
        self._hash.append(hashes[drawn].cpu())
        self._weight.append(torch.full((len(drawn),), share, dtype=torch.float64))
        self._held += len(drawn)
        if self._held * volume.num_classes > 2 * self._values:
            self._thin(volume.num_classes)

    def close(self, num_classes: int) -> Sample:
        """Return the sample.

        Raises:
            ValueError: No voxel was drawn.
        """
        if not self._logits:
            raise no_voxels()
        self._thin(num_classes)
        weight = self._weight[0] * (_RANGE / self._thresholds.double())[self._stratum[0]]
        return Sample(self._logits[0], self._target[0], weight)

    def _thin(self, num_classes: int) -> None:
        logits, target = torch.cat(self._logits, -1), torch.cat(self._target, -1)
        stratum, hashes = torch.cat(self._stratum), torch.cat(self._hash)
        weight = torch.cat(self._weight)
        share = max(1, self._values // num_classes // len(self._thresholds))
        for number in range(len(self._thresholds)):
            own = hashes[stratum == number]
            while int((own < self._thresholds[number]).sum()) > share:
                self._thresholds[number] //= 2
        kept = hashes < self._thresholds[stratum]
        self._logits, self._target = [logits[:, kept]], [target[..., kept]]
        self._stratum, self._hash = [stratum[kept]], [hashes[kept]]
        self._weight = [weight[kept]]
        self._held = int(kept.sum())


def _first_class(target: Tensor) -> Tensor:
    """Return the lowest class that is present; C where none is."""
    present = target == 1
    return torch.where(present.any(0), present.int().argmax(0), len(target))


def _spread(count: int, seed: int) -> Tensor:
    """Choose `VISITED` of ``count`` positions, a random one in each of as many equal stretches."""
    stretch = torch.arange(VISITED)
    start = stretch * count // VISITED
    length = (stretch + 1) * count // VISITED - start
    return start + _hashed(stretch + seed) % length


def _hashed(positions: Tensor) -> Tensor:
    """Hash each position to 31 bits by the mixer of splitmix64 (Steele et al., OOPSLA 2014)."""
    x = (positions + 1) * -0x61C8864680B583EB
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * -0x6B2FB644ECCEEE15
    return (x ^ (x >> 31)) & (_RANGE - 1)
