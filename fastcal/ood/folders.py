"""Detection of unlike cases for folders: fit to cases like the training's, then judge others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastcal.cases.loop import ProgressOption
from fastcal.core.atomic import write_json
from fastcal.core.doors import bounded
from fastcal.core.errors import DataError
from fastcal.core.places import check_out_file, check_results
from fastcal.ood.detector import FEATURES, OODDetector, Verdict
from fastcal.ood.file import Detectors, detector_files, opened
from fastcal.ood.histogram import MOST_BINS
from fastcal.ood.mahalanobis import Covariance
from fastcal.ood.measured import CaseFolder, Measured, Networks, measure, run_files
from fastcal.scores import read_table
from fastcal.scores.outputs import write_csv

OF_SEGMENTS = ("binary_entropy", "mutual_information", "pairwise_dice")
"""Scores of segments that are used where none is named and the folder has them."""


_NAMES = ("ood.csv", "ood.json")
"""Files that `predict_ood` writes."""


@dataclass(frozen=True, slots=True)
class JudgedCase:
    """A case, and what each detector says of it."""

    case: str
    flagged: tuple[str, ...]
    """Scores beyond their threshold."""
    scores: dict[str, float]
    p_values: dict[str, float]
    """Share of the training cases that are at least as unlike, by score."""


def fit_ood(
    out: str | Path,
    *,
    predictions: str | Path | None = None,
    images: str | Path | None = None,
    run: str | Path | None = None,
    scores: Sequence[str] = (),
    false_positive_rate: float = 0.05,
    structures: Collection[str] | None = None,
    covariance: Covariance = "ledoit-wolf",
    n_bins: int = 64,
    members: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    trust: Collection[str] = (),
    progress: ProgressOption = False,
) -> Detectors:
    """Fit detectors to cases like those of the training that the networks did not see.

    Args:
        out: The JSON file to write, whole or not at all.
        predictions: Prediction folder with its ``segments.json``.
        images: Folder of ``CASE_0000.nii.gz``, for histograms and features.
        run: Run folder whose networks give features.
        scores: Scores to use; by default the paper's segment entropy, mutual information, pairwise
            Dice, ``"histogram"`` and ``"mahalanobis"``, as far as what is given has them.
        false_positive_rate: Share of cases like these that may be flagged, for each score.
        structures: Whose scores are averaged; None for all but the background.
        covariance: Of features, see `OODDetector`.
        n_bins: Of the intensity histograms.
        members: Numbers of the members whose features are taken; None for all.
        device: Where the networks run.
        trust: Packages that networks may be imported from.
        progress: True prints one line per image to stderr; a function is called with a
            `Progress`.

    Returns:
        The detectors by score.

    Raises:
        DataError: A file is missing or damaged, or there are too few cases; ``out`` is an input.
        TypeError, ValueError: A setting is out of range, or a score needs what is not given.

    Example:
        >>> fitted = fit_ood("ood.json", predictions="validation")  # doctest: +SKIP
        >>> fitted.by_score["binary_entropy"].threshold_  # doctest: +SKIP
        0.21
    """
    bounded(n_bins, "n_bins", MOST_BINS, least=2)
    for name in scores or OF_SEGMENTS:
        OODDetector(name, false_positive_rate=false_positive_rate, covariance=covariance)
    folder = CaseFolder(predictions, images)
    check_out_file(Path(out), [*folder.files, *run_files(run)])
    made = {
        name: OODDetector(name, false_positive_rate=false_positive_rate, covariance=covariance)
        for name in scores or _available(folder, run)
    }
    networks = None if run is None else Networks(run, members, device, trust)
    if structures is None and folder.predictions is not None and not made.keys() <= FEATURES.keys():
        # Named, so that cases of other structures are refused and not judged by these.
        structures = read_table(folder.predictions).structures_present
    found = measure(
        folder, made, networks=networks, n_bins=n_bins, structures=structures, progress=progress
    )
    for name, detector in made.items():
        try:
            detector.fit(found.values[name])
        except ValueError as error:
            raise DataError(_source(name, folder), f"{name}: {error}") from error
    fitted = Detectors(
        made,
        n_bins,
        None if structures is None else tuple(structures),
        networks.digests if networks is not None and "mahalanobis" in made else None,
    )
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    fitted.save(out)
    return fitted


def predict_ood(
    detectors: Detectors | str | Path,
    out: str | Path | None = None,
    *,
    predictions: str | Path | None = None,
    images: str | Path | None = None,
    run: str | Path | None = None,
    members: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    trust: Collection[str] = (),
    progress: ProgressOption = False,
) -> list[JudgedCase]:
    """Judge cases, the most unlike first.

    Args:
        detectors: What `fit_ood` made, or its file.
        out: A folder for ``ood.csv`` and ``ood.json``; None writes nothing.
        predictions: Prediction folder with its ``segments.json``.
        images: Folder of ``CASE_0000.nii.gz``.
        run: Run folder of the networks that the detectors were fitted with.
        members: Numbers of the members, as in the fit.
        device: Where the networks run.
        trust: Packages that networks may be imported from.
        progress: True prints one line per image to stderr; a function is called with a
            `Progress`.

    Returns:
        The cases: those that more detectors flag first, then by their mean p-value.

    Raises:
        DataError: A file is missing or damaged, or the networks are others than those of the fit;
            ``out`` would overwrite an input, or holds other data.
        TypeError, ValueError: A setting is out of range, or a score needs what is not given.

    Example:
        >>> predict_ood("ood.json", predictions="predicted")[0].flagged  # doctest: +SKIP
        ('binary_entropy', 'pairwise_dice')
    """
    folder = CaseFolder(predictions, images)
    if out is not None:
        read = [*detector_files(detectors), *folder.files, *run_files(run)]
        check_results(Path(out), _NAMES, read)
    fitted = opened(detectors)
    networks = open_networks(fitted, run, members, device, trust)
    judged = judge(fitted, folder, networks=networks, progress=progress)
    rows = _rows(*judged)
    if out is not None:
        _write(Path(out), fitted, rows)
    return rows


def judge(
    fitted: Detectors,
    folder: CaseFolder,
    *,
    networks: Networks | None = None,
    progress: ProgressOption = False,
) -> tuple[Measured, dict[str, Verdict]]:
    """Measure the cases of a folder for fitted detectors, and judge them.

    Raises:
        DataError, ValueError: See `predict_ood`.
    """
    found = measure(
        folder,
        fitted.by_score,
        networks=networks,
        n_bins=fitted.n_bins,
        structures=fitted.structures,
        progress=progress,
    )
    verdicts = {}
    for name, detector in fitted.by_score.items():
        try:
            verdicts[name] = detector.judge(found.values[name])
        except ValueError as error:
            raise DataError(_source(name, folder), f"{name}: {error}") from error
    return found, verdicts


def _available(folder: CaseFolder, run: str | Path | None) -> list[str]:
    names: list[str] = []
    if folder.predictions is not None:
        table = read_table(folder.predictions)
        names += [
            name
            for name in OF_SEGMENTS
            if name in table.scores and not np.isnan(table.scores[name]).all()
        ]
        if not names and folder.images is None:
            raise DataError(folder.predictions, f"has none of the scores {', '.join(OF_SEGMENTS)}")
    if folder.images is not None:
        names += ["histogram"] if run is None else list(FEATURES)
    return names


def open_networks(
    fitted: Detectors,
    run: str | Path | None,
    members: Sequence[int] | None,
    device: torch.device | str | None,
    trust: Collection[str],
) -> Networks | None:
    """Load the networks that fitted detectors need; None where they need none.

    Raises:
        DataError: They are others than those of the fit, or cannot be read.
        ValueError: No run is given.
    """
    if "mahalanobis" not in fitted.by_score:
        return None
    if run is None:
        raise ValueError("run must be given for mahalanobis, got None")
    networks = Networks(run, members, device, trust)
    fitted.check_networks(networks.digests, run)
    return networks


def _source(name: str, folder: CaseFolder) -> str:
    return str(folder.images if name in FEATURES else folder.predictions)


def _rows(found: Measured, verdicts: dict[str, Verdict]) -> list[JudgedCase]:
    rows = [
        JudgedCase(
            case,
            tuple(name for name, verdict in verdicts.items() if verdict.flagged[number]),
            {name: float(verdict.score[number]) for name, verdict in verdicts.items()},
            {name: float(verdict.p_value[number]) for name, verdict in verdicts.items()},
        )
        for number, case in enumerate(found.cases)
    ]
    return sorted(
        rows,
        key=lambda row: (-len(row.flagged), float(np.mean(list(row.p_values.values()))), row.case),
    )


def _write(out: Path, fitted: Detectors, rows: list[JudgedCase]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "ood.csv", [_flat(row) for row in rows])
    thresholds = {
        name: {
            "threshold": one.threshold_,
            "false_positive_rate": one.false_positive_rate,
        }
        for name, one in fitted.by_score.items()
    }
    content = {"version": 1, "detectors": thresholds, "cases": [asdict(row) for row in rows]}
    write_json(out / "ood.json", content)


def _flat(row: JudgedCase) -> dict[str, Any]:
    flat: dict[str, Any] = {"case": row.case, "flagged": " ".join(row.flagged)}
    for name, value in row.scores.items():
        flat |= {name: value, f"{name}_p": row.p_values[name]}
    return flat
