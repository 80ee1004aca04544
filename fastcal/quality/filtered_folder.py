"""Filtered Dice of the cases of a prediction folder, from its uncertainty maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcal.cases.labels import LabelScheme
from fastcal.cases.loop import ProgressOption
from fastcal.cases.pipeline import read_ahead
from fastcal.cases.reference import LabelMap, LabelMaps, find_label_maps
from fastcal.cases.told import told
from fastcal.core.arrays import Floats
from fastcal.core.errors import DataError
from fastcal.data import description, nifti
from fastcal.data.affines import same_place
from fastcal.quality.filtered import FilteredDice, filtered_dice
from fastcal.scores import Draws
from fastcal.scores.estimates import mean_of_rows

LARGEST = {"entropy", "expected_entropy", "mutual_information"}
"""Maps in nats, which are at most the logarithm of the number of classes."""


@dataclass(frozen=True, slots=True)
class FilteredCurves:
    """Filtered Dice of every case with one structure."""

    structure: str
    cases: tuple[str, ...]
    curves: tuple[FilteredDice, ...]

    def mean(self, draws: Draws) -> dict[str, Any]:
        """Return the mean curves, areas and score with intervals over cases."""
        names = ("dice", "filtered_true_positives", "filtered_true_negatives")
        found: dict[str, Any] = {
            "n_cases": len(self.cases),
            "score": mean_of_rows(
                np.array([one.score for one in self.curves]), self.cases, draws
            ).to_json(),
            "thresholds": self.curves[0].thresholds,
        }
        for number, name in enumerate(names):
            each = np.array([getattr(one, name) for one in self.curves])
            areas = np.array([one.areas[number] for one in self.curves])
            bands = [mean_of_rows(column, self.cases, draws) for column in each.T]
            found[name] = {
                "area": mean_of_rows(areas, self.cases, draws).to_json(),
                "mean": [one.value for one in bands],
                "low": [one.low for one in bands],
                "high": [one.high for one in bands],
            }
        return found


def map_folder(folder: str | Path, maps: str) -> Path:
    """Return the folder of a map in a prediction folder.

    Raises:
        DataError: It is not there.
        ValueError: The name leads elsewhere.
    """
    if maps in ("", ".", "..") or Path(maps).name != maps:
        raise ValueError(f"maps must be names of folders in {folder}, got {maps!r}")
    place = Path(folder) / maps
    if not place.is_dir():
        raise DataError(place, f"no such folder: predict with --map {maps}")
    return place


def filtered_curves(
    folder: str | Path,
    labels: str | Path,
    *,
    maps: str = "entropy",
    dataset_json: str | Path | None = None,
    n_thresholds: int = 40,
    progress: ProgressOption = False,
) -> list[FilteredCurves]:
    """Compute the curves of every structure of every case that has a reference.

    Args:
        folder: Predicted label maps, and a folder of the name of the map inside.
        labels: Folder of reference label maps.
        maps: Name of the uncertainty map. Entropies and mutual information are divided by the
            logarithm of the number of classes (by ln 2 for label groups); others must lie in
            [0, 1], such as ``disagreement``. ``confidence`` is turned.
        dataset_json: nnU-Net's ``dataset.json``; by default the one in or above ``folder``, then
            ``labels``.
        n_thresholds: Steps of the thresholds.
        progress: True prints one line per case to stderr; a function is called with a `Progress`.

    Raises:
        DataError: There is no ``dataset.json``, no such map, or a file cannot be read.
    """
    folder, labels = Path(folder), Path(labels)
    described = Path(dataset_json) if dataset_json else description.find(folder, labels)
    if described is None:
        raise DataError(folder, f"no dataset.json in or above it, nor {labels}")
    scheme = LabelScheme.read(described)
    place = map_folder(folder, maps)
    references = LabelMaps(labels, find_label_maps(labels), scheme)
    predictions = LabelMaps(folder, find_label_maps(folder), scheme)
    files = find_label_maps(place)
    cases = [case for case in predictions.paths if case in references.paths]
    if not cases:
        raise DataError(folder, f"no case that {labels} has too")
    for case in cases:
        if case not in files:
            raise DataError(place, f"no map of case {case}, which {folder} and {labels} have")
    found: dict[str, list[FilteredDice]] = {key: [] for key in scheme.foreground}

    def read(case: str) -> tuple[LabelMap, LabelMap, Floats]:
        reference = references.read(case)
        prediction = predictions.read(case, reference.grid, reference.path)
        return reference, prediction, _uncertainty(files[case], maps, scheme, reference)

    reported = told(cases, progress, step=f"filtered Dice by {maps}")
    for _, (_, (reference, prediction, values)) in zip(
        reported, read_ahead(cases, read), strict=True
    ):
        for number, (key, group) in enumerate(scheme.foreground.items()):
            found[key].append(
                filtered_dice(
                    values[..., min(number, values.shape[-1] - 1)],
                    np.isin(prediction.labels, group),
                    np.isin(reference.labels, group),
                    kept=reference.kept,
                    n_thresholds=n_thresholds,
                )
            )
    return [
        FilteredCurves(scheme.names.get(key, key), tuple(cases), tuple(curves))
        for key, curves in found.items()
    ]


def _uncertainty(path: Path, maps: str, scheme: LabelScheme, reference: LabelMap) -> Floats:
    """Read a map ``[X, Y, Z, C or 1]``, scaled to [0, 1]."""
    volume = nifti.read(path)
    grid = reference.grid
    if tuple(volume.shape[:3]) != tuple(grid.shape[:3]) or not same_place(
        grid.affine, volume.affine, tuple(grid.shape)
    ):
        raise DataError(path, f"does not lie on the grid of {reference.path}")
    values = volume.data.astype(np.float64).reshape(*volume.shape[:3], -1)
    if maps in LARGEST:
        values = values / math.log(2 if scheme.multilabel else scheme.num_classes)
    if maps == "confidence":
        values = 1.0 - values
    if not np.isfinite(values).all() or values.min() < -1e-6:
        raise DataError(path, "must hold finite numbers of at least 0, got NaN or others")
    return np.maximum(values, 0.0)
