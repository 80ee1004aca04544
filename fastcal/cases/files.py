"""The files of a case: probabilities, uncertainty maps, statistics and, last, its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastcal.cases.case_record import CaseRecord
from fastcal.cases.segments import SEGMENTS, table_of
from fastcal.data import images, nnunet, predictions

if TYPE_CHECKING:
    from fastcal import CalibrationStatistics, EnsembleStatistics, SegmentScores
    from fastcal.cases.settings import MemberReading, Written
    from fastcal.data.coding import Planes
    from fastcal.data.nifti import Geometry

STATISTICS = "calibration"
"""Name of the files with statistics, and of the folder with those of each case."""


def state_file(folder: Path, *, part_id: int = 0, num_parts: int = 1) -> Path:
    """Return where the statistics of all cases of a part go.

    It is ``OUT/calibration.npz``, but ``OUT/calibration/calibration.npz`` beside the probabilities
    of cases: ``nnUNetv2_ensemble`` takes every npz at the top of a folder for a case.

    Args:
        folder: The prediction folder.
        part_id: Number of the part.
        num_parts: Into how many the cases are divided; 1 for the whole.
    """
    part = "" if num_parts == 1 else f".part-{part_id}-of-{num_parts}"
    place = folder / STATISTICS if (folder / nnunet.PLANS).exists() else folder
    return place / f"{STATISTICS}{part}.npz"


def state_places(folder: Path) -> tuple[Path, Path]:
    """Return both folders in which the statistics of all cases may lie; see `state_file`."""
    return folder, folder / STATISTICS


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """Where the files of a case go.

    ``OUT/CASE.nii.gz`` holds the labels, ``OUT/<map>/CASE.nii.gz`` each map, ``OUT/CASE.npz``
    nnU-Net's probabilities with ``OUT/CASE.pkl``, ``OUT/calibration/CASE.npz`` the statistics of
    the case, ``OUT/segments/CASE.json`` the scores of its segments. What it was made from is in
    ``OUT/record/CASE.json``, see `fastcal.cases.case_record`.
    """

    written: Written
    statistics: bool = False
    """Whether cases have statistics."""

    @property
    def folder(self) -> Path:
        """The prediction folder."""
        return Path(self.written.out)

    def labels_of(self, case: str) -> Path:
        """Return the file of a case's labels."""
        return self.folder / f"{case}{self.written.file_ending}"

    def map_of(self, case: str, name: str) -> Path:
        """Return the file of a map."""
        return self.folder / name / f"{case}{self.written.map_ending}"

    def probabilities_of(self, case: str) -> Path:
        """Return the file of a case's mean probabilities."""
        return self.folder / f"{case}.npz"

    def properties_of(self, case: str) -> Path:
        """Return the file that tells nnU-Net where the probabilities of a case lie."""
        return self.folder / f"{case}.pkl"

    def statistics_of(self, case: str) -> Path:
        """Return the file of a case's statistics."""
        return self.folder / STATISTICS / f"{case}.npz"

    def segments_of(self, case: str) -> Path:
        """Return the file of the scores of a case's segments."""
        return self.folder / SEGMENTS / f"{case}.json"

    def of(self, case: str) -> list[Path]:
        """Return every file of a case in the order of writing."""
        files = []
        if self.written.save_probabilities:
            files = [self.probabilities_of(case), self.properties_of(case)]
        files += [self.map_of(case, name) for name in self.written.map_folders]
        files += [self.statistics_of(case)] if self.statistics else []
        files += [self.segments_of(case)] if self.written.segments else []
        return [*files, self.labels_of(case)]

    def forget(self, cases: Sequence[str]) -> None:
        """Make cases unfinished: without its record and its labels a case is computed again."""
        for case in cases:
            CaseRecord.path(self.folder, case).unlink(missing_ok=True)
            self.labels_of(case).unlink(missing_ok=True)

    def remove(self, case: str) -> None:
        """Remove a case, with every file that its record names."""
        known = CaseRecord.read(self.folder, case)
        self.forget([case])
        for name in () if known is None else known.outputs:
            path = self.folder / name
            # A record is data: what it names outside the folder is not touched.
            if path.resolve().is_relative_to(self.folder.resolve()):
                path.unlink(missing_ok=True)

    def check_names(self, cases: Sequence[str]) -> None:
        """Refuse a case whose own statistics would take the place of those of all cases.

        Raises:
            ValueError: There is one.
        """
        if not (self.statistics and self.written.save_probabilities):
            return
        for case in cases:
            if case == STATISTICS or case.startswith(f"{STATISTICS}.part-"):
                raise ValueError(
                    f"cases must have other names than the statistics, got {case!r} ({case}.npz)"
                )

    def make_folders(self) -> None:
        """Create the folders of all files."""
        for path in (*self.of("any"), CaseRecord.path(self.folder, "any")):
            path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, case: str, content: CaseContent) -> None:
        """Write the files of a case, each whole or not at all, its labels last.

        Args:
            case: Name of the case.
            content: What they hold.

        Raises:
            OSError: The error of the disk; the file that was being written is removed.
        """
        # From here on, a case that is done again is unfinished.
        self.forget([case])
        like, reading = content.like, content.reading
        if self.written.save_probabilities:
            path = self.probabilities_of(case)
            predictions.write_npz(path, content.mean, activation=reading.activation)
            ending = self.written.file_ending
            nnunet.write_properties(self.properties_of(case), like, ending)
            nnunet.write_plans(self.folder, like, ending)
        for name in self.written.map_folders:
            path = self.map_of(case, name)
            images.write(path, content.maps[name], like, dtype=self.written.dtype)
        if content.statistics is not None:
            content.statistics.save(self.statistics_of(case))
        if content.segments is not None:
            scores = table_of(case, content.segments, like.spacing, reading.scheme)
            scores.write_json(self.segments_of(case))
        images.write(self.labels_of(case), content.labels, like, dtype="int")


@dataclass(frozen=True, slots=True)
class CaseContent:
    """What the files of a case hold."""

    maps: Mapping[str, NDArray[Any] | Planes]
    """Maps by name, ``[X, Y, Z]`` or ``[X, Y, Z, C]``."""
    mean: NDArray[Any] | Planes
    """``[C, X, Y, Z]``, or planes of ``[X, Y, Z, C]``; empty where it is not saved."""
    labels: NDArray[Any] | Planes
    """The label map ``[X, Y, Z]``."""
    statistics: CalibrationStatistics | None
    segments: SegmentScores | None
    like: Geometry
    reading: MemberReading
    """What the channels stand for."""

    @classmethod
    def of(cls, results: EnsembleStatistics, reading: MemberReading, like: Geometry) -> CaseContent:
        """Return maps and statistics with a batch axis of one as the content of files."""
        maps = {name: _array(values) for name, values in results.maps.items() if name != "label"}
        labels = reading.scheme.segmentation(_array(results.label))
        return cls(
            {
                name: np.moveaxis(values, 0, -1) if values.ndim == 4 else values
                for name, values in maps.items()
            },
            maps.get("mean", np.empty((0, 0, 0, 0))),
            labels,
            results.calibration,
            results.segments,
            like,
            reading,
        )


def _array(values: Any) -> NDArray[Any]:
    """Return the only batch item of a map as NumPy."""
    array: NDArray[Any] = values[0].cpu().numpy()
    return array
