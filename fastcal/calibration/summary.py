"""The metrics of a state by name: for JSON files, for tables, at a prompt and in a notebook."""

from __future__ import annotations

from typing import Any, Protocol, get_args

from fastcal.calibration.metrics import METRICS, Measure, Reduction
from fastcal.calibration.reader import MetricReader
from fastcal.core.arguments import choice
from fastcal.core.shown import Rows, as_html, as_text, counted

_SHOWN = ("ece", "nll", "brier", "dice")


class _WithRegions(Protocol):
    @property
    def regions(self) -> tuple[str, ...]: ...

    def region(self, name: str) -> MetricReader: ...


def calibration_summary(
    statistics: MetricReader, *, reduction: Reduction = "pooled"
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
    statistics: _WithRegions, *, reduction: Reduction = "pooled"
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
    return statistics.measure(Measure(name, kind=METRICS[name].kind), reduction)


class DescribedReader(MetricReader):
    """Calibration statistics that can be shown."""

    def summary(self, reduction: Reduction = "pooled") -> dict[str, Any]:
        """Return every metric that was kept by its name in ``calibration.json``.

        Args:
            reduction: ``"pooled"`` over all voxels, or ``"case"`` for the mean over cases.

        Returns:
            See `fastcal.calibration.calibration_summary`.

        Raises:
            ValueError: There are no case ids for ``reduction="case"``.

        Example:
            >>> import torch
            >>> from fastcal import CalibrationStatistics
            >>> statistics = CalibrationStatistics(2)
            >>> statistics.update(torch.tensor([[[0.75], [0.25]]]), torch.tensor([[0]]))
            >>> statistics.summary()["ECE"], statistics.summary()["n_voxels"]
            (0.25, 1)
        """
        return calibration_summary(self, reduction=reduction)

    def __repr__(self) -> str:
        return as_text(self._heading, self._rows())

    def _repr_html_(self) -> str:
        return as_html(self._heading, self._rows())

    @property
    def _heading(self) -> str:
        given = self.settings.arguments()
        usual = type(self.settings)(given["num_classes"]).arguments()
        named = (
            f"{name}={value!r}"
            for name, value in given.items()
            if name == "num_classes" or value != usual[name]
        )
        return f"{type(self).__name__}({', '.join(named)})"

    def _rows(self) -> Rows:
        try:
            n_voxels, cases = self.n_voxels, len(self.case_ids)
        except ValueError as error:  # bad data are told when they are first read, as here
            return [("cannot be read", str(error))]
        invalid = f" ({self.n_invalid:,} invalid left out)" if self.n_invalid else ""
        rows = [("voxels", f"{n_voxels:,}{invalid}"), ("cases", f"{cases:,}" if cases else "none")]
        if not n_voxels:
            return rows
        for name in _SHOWN:
            metric = METRICS[name]
            if metric.kept(self.settings):
                rows.append((metric.title, self._shown(name)))
        if regions := self.settings.regions:
            rows.append((counted(len(regions), "region"), ", ".join(regions)))
        return rows

    def _shown(self, name: str) -> str:
        metric = METRICS[name]
        if metric.reduction == "pooled":
            return metric.text(self.measure(name))
        of = "foreground" if not self.settings.multilabel else "all classes"
        try:
            return f"{metric.text(self.measure(name, 'case'))} ({of}, mean over cases)"
        except ValueError:  # counted without case ids, or some of it
            return f"{metric.text(self.measure(name, 'pooled'))} ({of}, pooled voxels)"
