"""How well scores tell unlike cases from those like the training's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastcal.calibration import ranking
from fastcal.cases.loop import ProgressOption
from fastcal.core.arrays import Floats
from fastcal.core.atomic import write_json
from fastcal.core.places import check_results
from fastcal.ood.detector import OODDetector, Verdict, unlike_end
from fastcal.ood.file import Detectors, detector_files, opened
from fastcal.ood.folders import judge, open_networks
from fastcal.ood.measured import CaseFolder, run_files
from fastcal.scores import Draws, Estimate
from fastcal.scores.cells import Order
from fastcal.scores.estimates import as_json
from fastcal.scores.outputs import write_csv

_NAMES = ("ood_scores.json", "ood_scores.csv")
TITLES = {
    "auroc": "AUROC",
    "aupr": "AUPR",
    "fpr95": "FPR95",
    "false_positives": "false positives",
    "true_positives": "true positives",
}
"""Measures by name: three of the order, and two at the threshold that was fitted."""


def ood_measures(
    unlikeness: Any,
    is_ood: Any,
    *,
    flagged: Any = None,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Return how well a score tells unlike cases from others, with intervals over cases.

    Args:
        unlikeness: ``[n]``, high where unlike; infinity is allowed, NaN is not.
        is_ood: ``[n]``, True for the cases that are out of distribution, which are to be found.
        flagged: ``[n]``, True beyond a threshold; None leaves out the measures at the threshold.
        level: Confidence level of the intervals, between 0 and 1.
        n_resamples: Sets of cases drawn with replacement.
        seed: Of the draws.

    Returns:
        ``auroc``; ``aupr``, the average precision; ``fpr95``, the share of the others that are
        flagged where 95 % of the unlike cases are; with ``flagged`` also ``false_positives`` and
        ``true_positives``, shares of the others and of the unlike cases. With cases of one kind
        alone, they are NaN and say why.

    Raises:
        TypeError, ValueError: An argument does not fit.

    Example:
        >>> found = ood_measures([0.1, 0.2, 0.3, 0.4], [False, True, False, True])
        >>> found["auroc"].value, round(found["aupr"].value, 3), found["fpr95"].value
        (0.75, 0.833, 0.5)
    """
    values = np.asarray(unlikeness, np.float64)
    truth = _mask(is_ood, "is_ood", values.shape)
    if values.ndim != 1 or np.isnan(values).any():
        raise ValueError(
            f"unlikeness must be numbers along one axis without NaN, got shape {values.shape}"
        )
    draws = Draws(level, n_resamples, seed)
    order, hits = Order.of(values), truth.astype(np.float64)
    cases = [str(number) for number in range(len(values))]
    one_class = None
    if truth.all() or not truth.any():
        one_class = f"every case is {'out of' if truth.any() else 'in'} distribution"
    if not len(truth):
        one_class = "there are no cases"

    def of_cells(read: Callable[[Floats], Floats]) -> Estimate:
        return draws.estimate(lambda w: read(order.cells(hits, w)), cases, one_class)

    found = {
        "auroc": of_cells(ranking.auroc),
        "aupr": of_cells(ranking.average_precision),
        "fpr95": of_cells(lambda cells: ranking.false_positive_rate(cells, 0.95)),
    }
    if flagged is not None:
        chosen = _mask(flagged, "flagged", values.shape)
        for name, group in (("false_positives", ~truth), ("true_positives", truth)):
            found[name] = _share(chosen, group, draws, cases)
    return found


def evaluate_ood(
    detectors: Detectors | str | Path,
    inside: CaseFolder,
    outside: CaseFolder,
    out: str | Path | None = None,
    *,
    run: str | Path | None = None,
    members: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    trust: Collection[str] = (),
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
    progress: ProgressOption = False,
) -> dict[str, dict[str, Estimate]]:
    """Measure how well fitted detectors tell two folders of cases apart.

    Args:
        detectors: What `fit_ood` made, or its file.
        inside: Cases like the training's, other than those that the detectors were fitted to.
        outside: Cases that are to be found.
        out: A folder for ``ood_scores.json`` and ``ood_scores.csv``; None writes nothing.
        run: Run folder of the networks that the detectors were fitted with.
        members: Numbers of the members, as in the fit.
        device: Where the networks run.
        trust: Packages that networks may be imported from.
        level: Confidence level of the intervals over cases.
        n_resamples: Sets of cases drawn with replacement.
        seed: Of the draws.
        progress: True prints one line per image to stderr; a function is called with a
            `Progress`.

    Returns:
        The measures of `ood_measures` by score.

    Raises:
        DataError, TypeError, ValueError: See `predict_ood`.

    Example:
        >>> found = evaluate_ood(
        ...     "ood.json", CaseFolder("predicted"), CaseFolder("promise12")
        ... )  # doctest: +SKIP
        >>> print(found["binary_entropy"]["auroc"])  # doctest: +SKIP
        0.940 [0.871, 0.986]
    """
    Draws(level, n_resamples, seed)
    if out is not None:
        read = [*detector_files(detectors), *inside.files, *outside.files, *run_files(run)]
        check_results(Path(out), _NAMES, read)
    fitted = opened(detectors)
    networks = open_networks(fitted, run, members, device, trust)
    parts = [
        judge(fitted, folder, networks=networks, progress=progress) for folder in (inside, outside)
    ]
    counts = [len(measured.cases) for measured, _ in parts]
    is_ood = np.repeat([False, True], counts)
    found = {
        name: ood_measures(
            np.concatenate([_unlikeness(detector, verdicts[name]) for _, verdicts in parts]),
            is_ood,
            flagged=np.concatenate([verdicts[name].flagged for _, verdicts in parts]),
            level=level,
            n_resamples=n_resamples,
            seed=seed,
        )
        for name, detector in fitted.by_score.items()
    }
    if out is not None:
        _write(Path(out), found, counts)
    return found


def _unlikeness(detector: OODDetector, verdict: Verdict) -> Floats:
    turned = verdict.score if unlike_end(detector.score) == "high" else -verdict.score
    return np.where(np.isnan(turned), np.inf, turned)


def _share(
    chosen: NDArray[np.bool_], group: NDArray[np.bool_], draws: Draws, cases: Sequence[str]
) -> Estimate:
    def read(weights: Floats) -> Floats:
        among = weights[:, group]
        total = among.sum(1)
        with np.errstate(invalid="ignore"):
            found: Floats = (among @ chosen[group].astype(np.float64)) / total
        return found

    return draws.estimate(read, cases, None if group.any() else "there are no such cases")


def _mask(given: Any, name: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    mask = np.asarray(given)
    if mask.dtype != np.bool_ and mask.size:
        raise TypeError(f"{name} must be True or False for each case, got {mask.dtype}")
    if mask.shape != shape:
        raise ValueError(f"{name} must have the shape of unlikeness, {shape}, got {mask.shape}")
    return mask.astype(bool)


def _write(out: Path, found: dict[str, dict[str, Estimate]], counts: Sequence[int]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "score": score,
            "measure": name,
            "value": one.value,
            "low": one.low,
            "high": one.high,
            "n": one.to_json()["n"],
            "reason": one.reason,
        }
        for score, measures in found.items()
        for name, one in measures.items()
    ]
    content = {
        "version": 1,
        "n_inside": counts[0],
        "n_outside": counts[1],
        "measures": {score: as_json(measures) for score, measures in found.items()},
    }
    write_json(out / "ood_scores.json", content)
    write_csv(out / "ood_scores.csv", rows)
