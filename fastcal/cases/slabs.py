"""A case that is larger than the memory it may take, combined slab by slab."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastcal.cases.combine import Combined, Wanted, combine
from fastcal.cases.files import CaseContent
from fastcal.cases.pipeline import ReadAhead
from fastcal.cases.scratch import Place, ScratchVolume
from fastcal.cases.slab_labels import SlabLabels, StreamedLabels, WholeLabels
from fastcal.cases.slab_segments import SegmentWindows, floor_bytes, of_slabs
from fastcal.cases.source import SlabSource, Source
from fastcal.core.doors.bounds import MIB, size
from fastcal.core.errors import DataError
from fastcal.core.memory import resident_bytes, return_freed_blocks
from fastcal.data import nifti

if TYPE_CHECKING:
    from fastcal.cases.files import CaseFiles
    from fastcal.cases.reference import LabelMap, LabelMaps
    from fastcal.cases.source import Member
    from fastcal.data.predictions import Probabilities, Stack
    from fastcal.data.stored import Cut
    from fastcal.segments import SegmentScores
    from fastcal.segments.scores import SegmentTotals

SPARE = 24 * MIB
"""Memory that is left for what nobody counts, such as the files of the other threads."""

_LABEL_BYTES = 6
"""What a label map takes per voxel while it is read and checked: three times 16 bits."""

_REGION_BYTES = 40
"""What the masks of regions take per voxel while they are made, distances in 64 bits included."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the slabs of a case lie."""

    shape: tuple[int, ...]
    """``(C, X, Y, Z)``."""
    axis: int
    """The axis of space, 0 to 2, along which slabs follow one another."""
    backwards: bool
    cuts: Sequence[Cut]
    """In the order of the files."""

    def place(self, cut: Cut) -> Place:
        """Where a slab lies in the volume ``[X, Y, Z]``."""
        extent = self.shape[1 + self.axis]
        start, stop = (extent - cut[1], extent - cut[0]) if self.backwards else cut
        place = [slice(0, n) for n in self.shape[1:]]
        place[self.axis] = slice(start, stop)
        return place[0], place[1], place[2]


class Slabs:
    """Combines cases in a bounded memory; the results are bit-identical to those of whole cases.

    Members are read slab by slab, along the slowest axis of their files, and go through the same
    pass as whole ones. Statistics of slabs are integers that add up. Maps go to files without a
    name as they come, and from there, plane by plane, into the files of the case.

    Args:
        source: Gives the members.
        wanted: What is computed.
        files: Where the files of a case go.
        memory: The most bytes that the process may take.

    Raises:
        ValueError: The source has no slabs, or the format of the label maps is read as a whole.
    """

    def __init__(self, source: Source, wanted: Wanted, files: CaseFiles, memory: int) -> None:
        if not isinstance(source, SlabSource):
            raise ValueError(
                f"memory must be None for a source that reads whole cases, got {memory}"
            )
        if not files.written.file_ending.endswith(nifti.ENDINGS):
            raise ValueError(
                f"memory must be None for label maps in {files.written.file_ending} files, which "
                f"are written as a whole, got {memory}"
            )
        if wanted.segments is not None and wanted.segments.component_voxels is not None:
            _load_scipy()  # its memory counts as that of the program
        return_freed_blocks()
        self._source: SlabSource = source
        self._wanted, self._files, self._memory = wanted, files, memory

    def combine(self, case: str, references: LabelMaps | None) -> CaseContent:
        """Combine a case.

        Args:
            case: Its name.
            references: The labels of all cases, or None.

        Raises:
            DataError: See `fastcal.cases.combine.combine`; or files lie along different axes, or
                the case needs more memory than there may be.
        """
        stacks = self._source.stacks(case)
        labels = None if references is None else self._labels(case, references, stacks[0])
        layout, room = self._layout(stacks, labels)
        run = _Run(self, case, layout, stacks, labels)
        return run.content(room)

    def _labels(self, case: str, references: LabelMaps, stack: Stack) -> SlabLabels:
        """Open the labels of a case, or read them where they are needed as a whole."""
        about, extents = stack.about, stack.shape[1:]
        like = about.like or references.geometry(case, extents, about.source)
        references.check_place(case, like, about.source)
        path, rules = references.paths[case], self._wanted.counted.rules
        if not rules and path.name.endswith(nifti.ENDINGS) and stack.view.in_order:
            return StreamedLabels.open(path, references.scheme)
        of_voxel = _REGION_BYTES if rules else _LABEL_BYTES
        self._require(stack, resident_bytes() + math.prod(extents) * of_voxel, labels=True)
        reference = references.read(case, like, about.source)
        return WholeLabels(reference.with_regions(rules))

    def _layout(self, stacks: Sequence[Stack], labels: SlabLabels | None) -> tuple[_Layout, int]:
        """Cut a case into slabs that fit the memory, and say how much of it there is."""
        first = stacks[0]
        for stack in stacks[1:]:
            if stack.shape != first.shape:
                raise DataError(
                    stack.about.source,
                    f"shape {stack.shape[1:]} differs from {first.shape[1:]} of "
                    f"{first.about.source}",
                )
            if (stack.view.axis, stack.view.backwards) != (first.view.axis, first.view.backwards):
                raise DataError(
                    stack.about.source,
                    f"lies along other axes than {first.about.source}, so that the two can be read "
                    "only as a whole, without a bound of the memory",
                )
        extent = first.extent
        plane = math.prod(first.shape[1:]) // max(extent, 1)
        row = plane * (self._voxel_bytes(stacks) + (0 if labels is None else labels.voxel_bytes))
        fixed = sum(stack.stored.fixed_bytes for stack in stacks) + SPARE
        fixed += 0 if labels is None else labels.fixed_bytes
        used = resident_bytes()
        room = self._memory - used - fixed
        least = row
        if self._wanted.segments is not None:
            least = max(least, floor_bytes(first.shape[1:], first.shape[0], self._wanted.segments))
        self._require(first, used + fixed + least, labels=labels is not None)
        thickness = max(1, min(extent, room // max(row, 1)))
        cuts = [(at, min(at + thickness, extent)) for at in range(0, extent, thickness)]
        shape, view = first.shape, first.view
        return _Layout(shape, view.axis, view.backwards, cuts or [(0, 0)]), room

    def _require(self, stack: Stack, needed: int, *, labels: bool) -> None:
        """Refuse a case that needs more memory than there may be."""
        if needed > self._memory:
            held = " with its labels" if labels else ""
            raise DataError(
                stack.about.source,
                f"memory must be at least {size(needed)} for this case{held}, got "
                f"{size(self._memory)}",
            )

    def _voxel_bytes(self, stacks: Sequence[Stack]) -> int:
        """What a voxel of a slab takes at most, while it is read, combined and counted."""
        item = max(stack.stored.dtype.itemsize for stack in stacks)
        real = max(item, 4)
        classes = stacks[0].shape[0]
        # Two slabs are read ahead, of which one may be converted; sums, votes, the mean and the
        # label groups of the target take a number per class.
        of_class = 3 * item + real * (2 + 2 * (self._wanted.segments is not None)) + 4
        return (classes * of_class + 10 * real + 24) * 5 // 4

    def pieces(self, stacks: Sequence[Stack], cuts: Sequence[Cut]) -> Iterator[Probabilities]:
        """Give what is read: of each slab, that of every file."""
        readers = [stack.pieces(cuts) for stack in stacks]
        for _ in cuts:
            for reader in readers:
                # No name: the piece must be gone when it was used.
                yield next(reader)

    def slab(
        self,
        case: str,
        pieces: Iterator[Probabilities],
        reference: LabelMap | None,
        extents: tuple[int, ...],
        again: Any,
    ) -> Combined:
        """Combine one slab."""
        wanted = self._wanted
        if wanted.segments is not None:
            maps = (*wanted.maps, "entropy")
            wanted = replace(wanted, maps=maps, segments=of_slabs(wanted.segments))
        return combine(
            case,
            self._source.members(case, pieces),
            self._source.reading,
            wanted,
            reference=reference,
            again=again,
            extents=extents,
        )

    @property
    def source(self) -> SlabSource:
        """Gives the members."""
        return self._source

    @property
    def wanted(self) -> Wanted:
        """What is computed."""
        return self._wanted

    @property
    def folder(self) -> Path:
        """Where files without a name lie: on the disk that the maps are written to."""
        return self._files.folder

    @property
    def saved_maps(self) -> tuple[str, ...]:
        """The maps that are written, or needed for the scores of segments."""
        written = self._files.written
        scored = ("entropy",) if self._wanted.segments is not None else ()
        mean = ("mean",) if written.save_probabilities else ()
        return tuple(dict.fromkeys([*written.map_folders, *mean, *scored]))


class _Run:
    """One case on its way through its slabs."""

    def __init__(
        self,
        slabs: Slabs,
        case: str,
        layout: _Layout,
        stacks: Sequence[Stack],
        labels: SlabLabels | None,
    ) -> None:
        self._slabs, self._case, self._layout = slabs, case, layout
        self._stacks, self._labels = stacks, labels
        self._volumes: dict[str, ScratchVolume] = {}
        self._totals: SegmentTotals | None = None
        self._statistics: Any = None
        self._like: Any = None

    def content(self, room: int) -> CaseContent:
        """Combine slab after slab, and return what the files of the case hold."""
        layout, case = self._layout, self._case
        with ReadAhead([case], self._read) as ahead:
            pieces, places = ahead.of(case), [layout.place(cut) for cut in layout.cuts]
            labels = None if self._labels is None else self._labels.parts(layout.cuts, places)
            for place in places:
                part = None if labels is None else next(labels)
                self._take(place, self._combined(part, pieces))
        scores = self._scores(room)
        volumes = self._volumes
        reading = self._slabs.source.reading
        mean: NDArray[Any] | ScratchVolume = volumes.get("mean", np.empty((0, 0, 0, 0)))
        return CaseContent(
            volumes, mean, volumes["label"], self._statistics, scores, self._like, reading
        )

    def _read(self, case: str) -> Iterator[Probabilities]:
        del case
        return self._slabs.pieces(self._stacks, self._layout.cuts)

    def _combined(self, part: LabelMap | None, pieces: Iterator[Probabilities]) -> Combined:
        shape = self._layout.shape[1:]
        return self._slabs.slab(self._case, pieces, part, shape, self._again)

    def _again(self) -> Iterator[Member]:
        """Give the members of every slab once more."""
        pieces = self._read(self._case)
        for _ in self._layout.cuts:
            yield from self._slabs.source.members(self._case, pieces)

    def _take(self, place: Place, combined: Combined) -> None:
        """Keep the results of a slab."""
        results, scheme = combined.statistics, self._slabs.source.reading.scheme
        self._like = combined.like
        for name in self._slabs.saved_maps:
            self._put(name, place, _channels_last(getattr(results, name)))
        labels = _channels_last(results.label)
        if results.segments is not None:
            assert results.segments.totals is not None
            found = results.segments.totals
            self._totals = found if self._totals is None else self._totals.added(found)
            self._put("classes", place, labels)
        whole = np.moveaxis(labels, -1, 0) if labels.ndim == 4 else labels
        self._put("label", place, scheme.segmentation(whole))
        if self._statistics is None:
            self._statistics = results.calibration
        else:
            self._statistics.merge(results.calibration)

    def _put(self, name: str, place: Place, values: NDArray[Any]) -> None:
        if name not in self._volumes:
            shape = (*self._layout.shape[1:], *values.shape[3:])
            self._volumes[name] = ScratchVolume(self._slabs.folder, shape, values.dtype)
        self._volumes[name].put(place, values)

    def _scores(self, room: int) -> SegmentScores | None:
        settings = self._slabs.wanted.segments
        if settings is None or self._totals is None:
            return None
        windows = SegmentWindows(
            self._volumes["classes"],
            self._volumes["entropy"],
            self._layout.shape[0],
            self._slabs.source.reading.scheme.multilabel,
            settings,
            room,
        )
        return windows.scores(self._totals)


def _load_scipy() -> None:
    try:
        from scipy import ndimage  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "memory needs SciPy for the components of segments: pip install 'fastcal[report]', or "
            "segments=False (--no-segments)"
        ) from error


def _channels_last(values: Any) -> NDArray[Any]:
    """Return the only batch item of a map as ``[X, Y, Z]`` or ``[X, Y, Z, C]``."""
    array: NDArray[Any] = values[0].cpu().numpy()
    return np.moveaxis(array, 0, -1) if array.ndim == 4 else array
