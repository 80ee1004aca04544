"""The metrics of a state by name, as numbers for a JSON file and for tables."""

from __future__ import annotations

from typing import Any, get_args

from fastcal.calibration import values
from fastcal.calibration.metrics import METRICS, Measure, Reduction
from fastcal.calibration.reader import MetricReader
from fastcal.calibration.statistics import CalibrationStatistics
from fastcal.core.arguments import choice


def calibration_summary(
    statistics: CalibrationStatistics, *, reduction: Reduction = "pooled"
) -> dict[str, Any]:
    """Return the calibration metrics of a state by name.

    Args:
        statistics: What was counted.
        reduction: ``"pooled"`` over all voxels, or ``"case"`` for the mean over cases.

    Returns:
        Every metric of `fastcal.calibration.METRICS` that has a key there and whose words were
        kept: ``ECE``, ``MCE``, ``Brier``, ``NLL``, ``accuracy``, ...; with ``fine_bins`` also
        ``adaptive_ECE``, ``TACE`` (threshold 0.01), ``AUROC``, ``AURC`` and ``E_AURC`` of the
        confidence. ``classwise_ECE`` and ``Dice`` hold one number for each class, by its index;
        ``classwise_ECE_mean`` is the mean over the classes that are defined, and
        ``Dice_foreground_mean`` is that mean without the background. ``n_voxels`` and ``n_invalid``
        are counts. Errors are fractions, not percentages; NLL is in nats; Brier is summed over
        classes.

    Raises:
        ValueError: There are no case ids for ``reduction="case"``.

    Example:
        >>> import torch, fastcal
        >>> statistics = fastcal.CalibrationStatistics(2)
        >>> probs = torch.tensor([[0.75, 0.25], [0.25, 0.75]])[None]  # [B, C, *S]
        >>> statistics.update(probs, torch.tensor([[0, 1]]))
        >>> calibration_summary(statistics)["ECE"]
        0.25
    """
    found: dict[str, Any] = {}
    for name in shown_metrics(statistics):
        metric = METRICS[name]
        if metric.class_key:
            of_classes = statistics.per_class(name, reduction).tolist()
            found[metric.class_key] = {str(k): value for k, value in enumerate(of_classes)}
        found[metric.key] = shown_value(statistics, name, reduction)
    return found | {"n_voxels": statistics.n_voxels, "n_invalid": statistics.n_invalid}


def region_summaries(
    statistics: CalibrationStatistics, *, reduction: Reduction = "pooled"
) -> dict[str, dict[str, Any]]:
    """Return the `calibration_summary` of every region, by name.

    Raises:
        ValueError: ``reduction`` is neither ``"pooled"`` nor ``"case"``.
    """
    choice(reduction, "reduction", get_args(Reduction))
    return {
        name: calibration_summary(statistics.region(name), reduction=reduction)
        for name in statistics.regions
    }


def shown_metrics(statistics: MetricReader) -> tuple[str, ...]:
    """Return the names of the metrics that tables can have of these statistics."""
    return tuple(
        name for name, metric in METRICS.items() if metric.key and metric.kept(statistics.settings)
    )


def shown_value(statistics: MetricReader, name: str, reduction: Reduction) -> float:
    """Return a metric as the one number that tables show.

    Raises:
        ValueError: The words needed were not kept, or there are no cases.
    """
    metric = METRICS[name]
    if not metric.per_class:
        return statistics.measure(Measure(name, kind=metric.kind), reduction)
    of_classes = statistics.per_class(name, reduction).tolist()
    background = metric.foreground and not statistics.settings.multilabel
    return values.mean_of_defined(of_classes[1:] if background else of_classes)
