"""Scores of segments whose volume is read back from disk part by part."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastcal.core.segment_problem import SegmentProblem, SegmentWords
from fastcal.segments.component_windows import ComponentCounter
from fastcal.segments.interior import interior
from fastcal.segments.measure import label_bytes, scores_of, segment_sums
from fastcal.segments.patches import patch_maxima

if TYPE_CHECKING:
    from fastcal.cases.scratch import ScratchVolume
    from fastcal.segments import SegmentScores, SegmentSettings
    from fastcal.segments.scores import SegmentTotals

VOXEL_BYTES = 96
"""What a voxel of a window takes: running sums of patches in 64 bits, distances, components."""


def of_slabs(settings: SegmentSettings) -> SegmentSettings:
    """Return the settings of a pass over a slab, which leaves out what slabs cannot know."""
    return replace(settings, interior_voxels=0, interior_mm=None, patch=1, component_voxels=None)


def halo(settings: SegmentSettings) -> int:
    """How many voxels around a window its scores depend on."""
    return max(settings.patch, math.floor(settings.interior_voxels) + 1)


def floor_bytes(shape: tuple[int, ...], classes: int, settings: SegmentSettings) -> int:
    """Memory that the smallest window takes."""
    around = 2 * halo(settings) + 1
    window = shape[0] * min(around, shape[1]) * min(around, shape[2])
    return VOXEL_BYTES * max(window, shape[0] * shape[1]) + 24 * classes * shape[0] * shape[1]


@dataclass(frozen=True, slots=True)
class SegmentWindows:
    """A volume that is complete, for the scores that depend on neighbours."""

    label: ScratchVolume
    """int16 ``[X, Y, Z]``, or ``[X, Y, Z, C]`` of 0 and 1 for label groups."""
    entropy: ScratchVolume
    """``[X, Y, Z]``."""
    classes: int
    multilabel: bool
    settings: SegmentSettings
    memory: int
    """Bytes that a window may take."""

    def scores(self, totals: SegmentTotals) -> SegmentScores:
        """Complete what was counted slab by slab, and compute the scores."""
        sums = totals.sums.clone()
        words = SegmentWords
        inner = [words.INTERIOR, words.INTERIOR_ENTROPY, words.INTERIOR_ENTROPY + 1]
        sums[..., inner] = 0
        largest = torch.full((1, self.classes), torch.nan, dtype=torch.float64)
        for found, patches in self._windows():
            sums[..., inner] += found[..., inner]
            largest = torch.fmax(largest, patches)
        components = self._components()
        whole = replace(totals, sums=sums, patches=largest, components=components)
        return scores_of(whole, self.settings)

    def _windows(self) -> list[tuple[Tensor, Tensor]]:
        around = halo(self.settings)
        extents = self.entropy.shape
        room = math.isqrt(max(1, self.memory // (VOXEL_BYTES * extents[0])))
        step = max(1, room - 2 * around)
        return [
            self._window(y, z, step, around)
            for z in range(0, extents[2], step)
            for y in range(0, extents[1], step)
        ]

    def _window(self, y: int, z: int, step: int, around: int) -> tuple[Tensor, Tensor]:
        """Return the words and the largest patches of what lies in a window."""
        places, cores = [], []
        for start, extent in ((y, self.entropy.shape[1]), (z, self.entropy.shape[2])):
            stop = min(start + step, extent)
            first, last = max(0, start - around), min(stop + around, extent)
            places.append(slice(first, last))
            cores.append(slice(start - first, stop - first))
        entropy = torch.from_numpy(self.entropy.part(*places))[None]
        label = torch.from_numpy(self.label.part(*places))
        label = label.movedim(-1, 0) if self.multilabel else label
        steps = self.settings.steps(3)
        volumes = label if self.multilabel else label[None]
        classes = 2 if self.multilabel else self.classes
        inside = interior(label_bytes(volumes, classes), self.settings.depth, steps)
        # Around the window nothing is counted.
        counted = torch.full_like(label, -1)
        core: Any = (..., *cores)
        counted[core] = label[core]
        shape = (1, self.classes, *entropy.shape[1:])
        problem = SegmentProblem(
            mean=torch.zeros(1, dtype=entropy.dtype).expand(shape),
            label=counted[None],
            entropy=entropy,
            mutual_information=None,
            votes=None,
            interior=inside[None] if self.multilabel else inside,
            ignore_index=-1,
            multilabel=self.multilabel,
            binary=False,
            clip=False,
        )
        narrow = label_bytes(counted[None], classes)
        patches = patch_maxima(entropy, narrow, self.classes, self.settings.patch)
        return segment_sums(problem), patches

    def _components(self) -> Tensor | None:
        smallest = self.settings.component_voxels
        if smallest is None:
            return None
        counters = [ComponentCounter() for _ in range(self.classes)]
        extents = self.label.shape
        room = self.memory // (VOXEL_BYTES * extents[0] * extents[1])
        step = max(1, min(room, extents[2]))
        for z in range(0, extents[2], step):
            window = self.label.part(slice(0, extents[1]), slice(z, min(z + step, extents[2])))
            for k, counter in enumerate(counters):
                counter.add(window[..., k] == 1 if self.multilabel else window == k)
        return torch.tensor([[counter.count(smallest) for counter in counters]])
