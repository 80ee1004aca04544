"""The metrics of a state by name, as numbers for a JSON file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from fastcal.calibration.statistics import CalibrationStatistics


def calibration_summary(
    statistics: CalibrationStatistics, *, reduction: Literal["pooled", "case"] = "pooled"
) -> dict[str, Any]:
    """Return the calibration metrics of a state by name.

    Parameters
    ----------
    statistics
        A state with top-label and classwise bins.
    reduction
        ``"pooled"`` over all voxels, or ``"case"`` for the mean over cases.

    Returns
    -------
    dict
        ``ECE``, ``MCE``, ``Brier``, ``NLL``, ``accuracy``, ``classwise_ECE`` (class index to its
        one-vs-rest error), ``classwise_ECE_mean`` over the defined classes, ``Dice`` (class index
        to its overlap), ``Dice_foreground_mean`` over the defined ones but the background,
        ``n_voxels``, ``n_invalid``. Fractions, not percentages; NLL in nats; Brier summed over
        classes. With fine cells (``fine_bins``) also ``adaptive_ECE``, ``TACE`` (threshold
        0.01), ``AUROC``, ``AURC`` and ``E_AURC`` of the confidence.

    Examples
    --------
    >>> import torch, fastcal
    >>> statistics = fastcal.CalibrationStatistics(2)
    >>> probs = torch.tensor([[0.75, 0.25], [0.25, 0.75]])[None]  # [B, C, *S]
    >>> statistics.update(probs, torch.tensor([[0, 1]]))
    >>> calibration_summary(statistics)["ECE"]
    0.25
    """
    classwise = statistics.classwise_ece(reduction=reduction).tolist()
    dice = statistics.dice(reduction=reduction).tolist()
    found = {
        "ECE": statistics.ece(reduction=reduction),
        "MCE": statistics.ece(norm="max", reduction=reduction),
        "classwise_ECE": {str(k): error for k, error in enumerate(classwise)},
        "classwise_ECE_mean": _mean_of_defined(classwise),
        "Dice": {str(k): overlap for k, overlap in enumerate(dice)},
        "Dice_foreground_mean": _mean_of_defined(dice if statistics.multilabel else dice[1:]),
        "Brier": statistics.brier(reduction=reduction),
        "NLL": statistics.nll(reduction=reduction),
        "accuracy": statistics.accuracy(reduction=reduction),
        "n_voxels": int(statistics.n_voxels),
        "n_invalid": int(statistics.n_invalid),
    }
    if statistics.fine_bins:
        found |= {
            "adaptive_ECE": statistics.adaptive_ece(reduction=reduction),
            "TACE": statistics.tace(reduction=reduction),
            "AUROC": statistics.auroc(reduction=reduction, kind="top-label"),
            "AURC": statistics.aurc(reduction=reduction),
            "E_AURC": statistics.e_aurc(reduction=reduction),
        }
    return found


def region_summaries(
    statistics: CalibrationStatistics, *, reduction: Literal["pooled", "case"] = "pooled"
) -> dict[str, dict[str, Any]]:
    """Return the `calibration_summary` of every region, by name."""
    return {
        name: calibration_summary(statistics.region(name), reduction=reduction)
        for name in statistics.regions
    }


def _mean_of_defined(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
