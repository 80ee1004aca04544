"""Filtered Dice of the cases of a prediction folder, from its uncertainty maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcal.cases.labels import LabelScheme
from fastcal.cases.loop import ProgressOption
from fastcal.cases.pipeline import read_ahead
from fastcal.cases.reference import LabelMap, LabelMaps, check_same_grid, find_label_maps
from fastcal.cases.told import told
from fastcal.core.arrays import Floats
from fastcal.core.errors import DataError
from fastcal.core.likelihood import largest_entropy
from fastcal.data import description, images
from fastcal.quality.filtered import FilteredDice, filtered_dice
from fastcal.scores import Draws
from fastcal.scores.estimates import mean_of_rows

LARGEST = {"entropy", "expected_entropy", "mutual_information"}
"""Maps in nats."""


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
            largest that there is, the logarithm of the number of classes, or ln 2 for every label
            group, since theirs are summed; others must lie in [0, 1], such as ``disagreement``.
            ``confidence`` is turned.
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
    volume = images.read(path)
    check_same_grid(path, volume.shape, volume, reference.grid, expected=reference.path)
    if volume.channels not in (1, len(scheme.foreground)):
        raise DataError(
            path,
            f"must have one value per voxel or {len(scheme.foreground)}, one per structure, got "
            f"{volume.channels}",
        )
    values = volume.data.astype(np.float64).reshape(*volume.shape[:3], -1)
    if maps in LARGEST:
        values = values / largest_entropy(scheme.num_classes, multilabel=scheme.multilabel)
    if maps == "confidence":
        values = 1.0 - values
    if not np.isfinite(values).all() or values.min() < -1e-6:
        raise DataError(path, "must hold finite numbers of at least 0, got NaN or others")
    return np.maximum(values, 0.0)
