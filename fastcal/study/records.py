"""What is kept of a case after its members were streamed: integers, overlaps, distances, scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from fastcal import CalibrationStatistics
from fastcal.core import atomic
from fastcal.core.arrays import Floats, Integers
from fastcal.core.doors import Npz, open_npz, parse_json, validated
from fastcal.core.errors import DataError
from fastcal.study.subsets import Subset


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """Everything that later stages read of a case, for each of S ensembles and K structures."""

    key: str
    """Digest of everything that the numbers depend on."""
    rows: Integers
    """``[S, 1 + R, W]``, the rows of the calibration statistics."""
    dice: Floats
    """``[S, K]``, NaN where neither reference nor prediction has the structure."""
    hd95: Floats
    """``[S, K]`` in mm, NaN where one of the two lacks the structure, or where not computed."""
    scores: dict[str, Floats]
    """``[T, K]`` by name, of the T ensembles that are scored."""
    inputs: str = ""
    """Digest of the files of the case; empty in records that were made before there was one."""

    def write(self, path: Path) -> None:
        """Write the record, whole or not at all."""
        names = list(self.scores)
        about = json.dumps({"key": self.key, "scores": names, "inputs": self.inputs})
        stacked = np.array([self.scores[name] for name in names])
        with atomic.atomic_path(path) as temporary:
            np.savez_compressed(
                temporary,
                about=np.array(about),
                rows=self.rows,
                dice=self.dice,
                hd95=self.hd95,
                scores=stacked,
            )

    @classmethod
    def read(cls, path: Path) -> CaseRecord:
        """Read a record.

        Raises:
            DataError: The file is missing, damaged or something else.
        """
        with open_npz(path) as arrays:
            about = _about(path, arrays)
            stacked = arrays.array("scores", kinds="f")
            return cls(
                about.key,
                arrays.array("rows", kinds="i"),
                arrays.array("dice", kinds="f"),
                arrays.array("hd95", kinds="f"),
                dict(zip(about.scores, stacked, strict=True)),
                about.inputs,
            )


class About(BaseModel):
    """What a record says of itself."""

    key: str
    scores: list[str]
    inputs: str = ""


def _about(path: Path, arrays: Npz) -> About:
    found: About = validated(path, parse_json(arrays.text("about")), About)
    return found


def is_current(path: Path, key: str, inputs: str) -> bool:
    """Whether a record is there and was made with these settings; a damaged one is made again.

    Args:
        path: The file.
        key: Digest of the settings.
        inputs: Digest of the files of the case, as they are now.
    """
    if not path.exists():
        return False
    try:
        with open_npz(path) as arrays:
            about = _about(path, arrays)
            return about.key == key and about.inputs in ("", inputs)
    except DataError:
        return False


@dataclass(frozen=True)
class Streamed:
    """The records of all cases of a set, for the ensembles of a run.

    Raises:
        DataError: The rows are not those of the settings.
    """

    folder: Path
    cases: tuple[str, ...]
    structures: tuple[str, ...]
    subsets: tuple[Subset, ...]
    scored: tuple[Subset, ...]
    settings: dict[str, Any]
    """Arguments of `CalibrationStatistics`."""
    records: tuple[CaseRecord, ...]

    def statistics(self, subset: Subset) -> CalibrationStatistics:
        """Return the calibration of an ensemble over all cases, with the regions."""
        place = self.subsets.index(subset)
        found = CalibrationStatistics(**self.settings)
        for case, record in zip(self.cases, self.records, strict=True):
            one = CalibrationStatistics(**self.settings)
            rows = record.rows[place]
            try:
                one.load_state_dict(
                    {
                        "settings": one.settings.arguments(),
                        "total": rows,
                        "case_ids": [case],
                        "case_rows": rows[None],
                    }
                )
            except ValueError as error:
                raise DataError(self.folder / f"{case}.npz", str(error)) from error
            found.merge(one)
        return found

    def of_size(self, size: int) -> tuple[Subset, ...]:
        """Return the ensembles of a size."""
        return tuple(subset for subset in self.subsets if subset.size == size)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of ensembles, ascending."""
        return tuple(sorted({subset.size for subset in self.subsets}))

    def dice(self, subset: Subset) -> Floats:
        """Return the Dice of an ensemble, ``[cases, K]``."""
        place = self.subsets.index(subset)
        return np.array([record.dice[place] for record in self.records])

    def hd95(self, subset: Subset) -> Floats:
        """Return the 95 % Hausdorff distances of an ensemble in mm, ``[cases, K]``."""
        place = self.subsets.index(subset)
        return np.array([record.hd95[place] for record in self.records])

    @property
    def score_names(self) -> tuple[str, ...]:
        """Names of the scores of segments."""
        return tuple(self.records[0].scores)

    def score(self, subset: Subset, name: str) -> Floats:
        """Return a score of the segments of an ensemble, ``[cases, K]``."""
        place = self.scored.index(subset)
        return np.array([record.scores[name][place] for record in self.records])


def read_records(folder: Path, cases: Sequence[str]) -> tuple[CaseRecord, ...]:
    """Read the records of cases.

    Raises:
        DataError: One is missing or damaged.
    """
    return tuple(CaseRecord.read(folder / f"{case}.npz") for case in cases)
