"""The files of one case: probabilities, uncertainty maps, statistics, and its labels, last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastcal.core.problem import MAPS
from fastcal.data import nifti, predictions

if TYPE_CHECKING:
    from fastcal import EnsembleStatistics
    from fastcal.cases.labels import LabelScheme
    from fastcal.data.nifti import Geometry

DTYPES = ("float32", "uint8", "uint16")
STATISTICS = "calibration"
"""Name of the files with statistics, and of the folder with those of each case."""


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """Where the files of a case go, and whether they are all there.

    ``FOLDER/CASE.nii.gz`` the labels, ``FOLDER/<map>/CASE.nii.gz`` each map, ``FOLDER/CASE.npz``
    nnU-Net's probabilities, ``FOLDER/calibration/CASE.npz`` the case's statistics.
    """

    folder: Path
    maps: tuple[str, ...]
    dtype: str = "float32"
    file_ending: str = ".nii.gz"
    save_probabilities: bool = False
    statistics: bool = False

    def __post_init__(self) -> None:
        for name in self.maps:
            if name not in MAPS:
                raise ValueError(f"maps: got {name!r}, expected any of {', '.join(MAPS)}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: got {self.dtype!r}, expected one of {', '.join(DTYPES)}")

    @property
    def needed_maps(self) -> tuple[str, ...]:
        """The maps that the files are made from."""
        return (*self.written_maps, *(("mean",) if self.save_probabilities else ()))

    @property
    def written_maps(self) -> tuple[str, ...]:
        """The maps that get a folder; the labels lie at the top in any case."""
        return tuple(name for name in dict.fromkeys(self.maps) if name != "label")

    def labels_of(self, case: str) -> Path:
        return self.folder / f"{case}{self.file_ending}"

    def map_of(self, case: str, name: str) -> Path:
        return self.folder / name / f"{case}{self.file_ending}"

    def probabilities_of(self, case: str) -> Path:
        return self.folder / f"{case}.npz"

    def statistics_of(self, case: str) -> Path:
        return self.folder / STATISTICS / f"{case}.npz"

    def of(self, case: str) -> list[Path]:
        """Return every file of a case in the order of writing."""
        files = [self.probabilities_of(case)] if self.save_probabilities else []
        files += [self.map_of(case, name) for name in self.written_maps]
        files += [self.statistics_of(case)] if self.statistics else []
        return [*files, self.labels_of(case)]

    def finished(self, case: str) -> bool:
        """Whether a case has every file asked for."""
        return all(path.exists() for path in reversed(self.of(case)))

    def forget(self, cases: Sequence[str]) -> None:
        """Make cases unfinished: without its labels a case is computed again."""
        for case in cases:
            self.labels_of(case).unlink(missing_ok=True)

    def make_folders(self) -> None:
        """Create the folders of all files."""
        for path in self.of("any"):
            path.parent.mkdir(parents=True, exist_ok=True)

    def write(
        self,
        case: str,
        results: EnsembleStatistics,
        scheme: LabelScheme,
        like: Geometry,
        *,
        activation: str,
    ) -> None:
        """Write the files of a case, each whole or not at all, its labels last.

        Parameters
        ----------
        case
            Case name.
        results
            Maps of one batch item, ``[1, *S]`` or ``[1, C, *S]``, and the counts of this case.
        scheme
            How classes become label values.
        like
            Geometry of the files.
        activation
            Noted in the npz: ``"sigmoid"`` where the classes need not sum to one.

        Raises
        ------
        OSError
            The disk's own error; the file being written is removed.
        """
        # A case that is done again is unfinished from here on.
        self.forget([case])
        if self.save_probabilities:
            path = self.probabilities_of(case)
            predictions.write_npz(path, _array(results.mean), activation=activation)
        for name in self.written_maps:
            values = _array(getattr(results, name))
            if values.ndim == 4:
                values = np.moveaxis(values, 0, -1)
            nifti.write(self.map_of(case, name), values, like, dtype=self.dtype)
        if results.calibration is not None:
            results.calibration.save(self.statistics_of(case))
        labels = scheme.segmentation(_array(results.label))
        nifti.write(self.labels_of(case), labels, like, dtype="int")


def _array(values: Any) -> NDArray[Any]:
    """The one batch item of a map, as NumPy."""
    array: NDArray[Any] = values[0].cpu().numpy()
    return array
