"""Every metric of calibration statistics: one row of data for each.

A row says which function reads the metric and from which words of a state, and how its numbers are
named, printed and described. Python methods, ``calibration.json``, the tables of the command line
and of the report, the figures, `bootstrap` and the table of docs/metrics.md read the rows: a metric
is added by adding its row here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

import numpy as np

from fastcal.calibration import ranking, values
from fastcal.calibration.rows import Kind, Rows, Words
from fastcal.calibration.settings import CalibrationSettings
from fastcal.calibration.values import Floats
from fastcal.core.arguments import flag, real_number, whole_number

Norm = Literal["l1", "l2", "max"]
Reduction = Literal["pooled", "case"]
Direction = Literal["lower", "higher", "zero"]
Unit = Literal["", "%", "nats", "voxels"]

NORMS = get_args(Norm)
KINDS = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Measure:
    """A row of `METRICS` with its options, as one number.

    Args:
        name: The name of the row, and of the method of `CalibrationStatistics`.
        norm: Of the calibration errors: ``"l1"``, ``"l2"`` or ``"max"``.
        debias: Subtract what the noise of the bins' accuracies adds (``norm="l2"`` only).
        min_count: Leave out bins with this many samples or fewer.
        kind: ``"top-label"`` or ``"positive"``; None for what suits the data.
        class_index: Of a metric of classes: which class; None for the mean over those defined.
        threshold: Of ``"classwise_adaptive_ece"`` and ``"tace"``: smaller probabilities are left
            out. None is 0, or 0.01 for ``"tace"``.
        background: Of ``"dice"``: whether the mean over the classes holds class 0. It never is left
            out where every class is a Bernoulli of its own.

    Raises:
        TypeError, ValueError: An option is unknown, or the metric does not have it.

    Example:
        >>> Measure("classwise_ece", norm="max", class_index=2).metric.title
        'Classwise ECE'
    """

    name: str = "ece"
    norm: Norm = "l1"
    debias: bool = False
    min_count: int = 0
    kind: Kind | None = None
    class_index: int | None = None
    threshold: float | None = None
    background: bool = False

    def __post_init__(self) -> None:
        """Check the options against those of the metric."""
        if self.name not in METRICS:
            raise ValueError(f"measure must be one of {tuple(METRICS)}, got {self.name!r}")
        if self.norm not in NORMS:
            raise ValueError(f"norm must be one of {NORMS}, got {self.norm!r}")
        if self.debias and self.norm != "l2":
            raise ValueError(f"norm must be 'l2' for debias=True, got {self.norm!r}")
        if whole_number(self.min_count, "min_count") < 0:
            raise ValueError(f"min_count must be at least 0, got {self.min_count}")
        if self.kind not in (None, *KINDS):
            raise ValueError(f"kind must be one of {KINDS} or None, got {self.kind!r}")
        threshold = self.threshold
        if threshold is not None and not 0 <= real_number(threshold, "threshold") <= 1:
            raise ValueError(f"threshold must lie in [0, 1], got {threshold:g}")
        flag(self.background, "background")
        for option in fields(self)[1:]:
            given = getattr(self, option.name)
            if given != option.default and option.name not in self.metric.options:
                raise ValueError(
                    f"{option.name} must be {option.default!r} for {self.name!r}, which does not "
                    f"have it, got {given!r}"
                )

    @property
    def metric(self) -> Metric:
        """The row of the name."""
        return METRICS[self.name]


Function = Callable[[Rows, Measure], Floats]
"""``[...]`` of rows ``[..., W]``, or ``[..., C]`` for a metric of classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric: how it is read, and how it is shown."""

    title: str
    """At the head of a column."""
    read: Function = field(repr=False)
    words: Words
    """What it reads of a row, beside the counts in front of the histograms."""
    sentence: str
    """For the table of docs/metrics.md."""
    better: Direction = "lower"
    """``"zero"``: signed, the nearer to 0 the better."""
    unit: Unit = ""
    """Errors of unit ``"%"`` are fractions that are printed in per cent."""
    digits: int = 4
    """Behind the decimal point."""
    per_class: bool = False
    """One number for each class; where one number is asked for, it is the mean over the classes
    that are defined."""
    foreground: bool = False
    """That mean leaves out class 0, unless `Measure.background` says otherwise."""
    options: tuple[str, ...] = ()
    """Fields of `Measure` that it has."""
    kind: Kind | None = None
    """`Measure.kind` in tables."""
    reduction: Reduction = "pooled"
    """How it is reduced where nothing else is said, in Python and in the report."""
    key: str = ""
    """Key of the one number in ``calibration.json``; "" leaves it out of every table."""
    class_key: str = ""
    """Key of the numbers of the classes in ``calibration.json``."""
    column: bool = False
    """Has a column in the tables of the command line and of the report."""
    figure: bool = False
    """Has a panel in the report's figure of scores."""

    def kept(self, settings: CalibrationSettings) -> bool:
        """Whether a state of these settings holds the words that tables read it from."""
        if self.words == "counts":
            return True
        nothing = Rows(np.zeros(0, np.int64), settings)
        columns = nothing.columns(self.words, self.kind)
        return bool(columns.stop > columns.start)

    def text(self, value: float | None) -> str:
        """Return a value as it is printed everywhere; a dash for NaN and None.

        Example:
            >>> METRICS["ece"].text(0.01234), METRICS["nll"].text(0.01234)
            ('1.23 %', '0.0123')
        """
        if value is None or math.isnan(value):
            return "-"
        if self.unit == "%":
            return f"{100 * value:.{self.digits}f} %"
        return f"{value:.{self.digits}f}"


def measured(rows: Rows, measure: Measure) -> Floats:
    """Return one number for each row, ``[...]``.

    Raises:
        ValueError: The words needed were not kept, or there is no such class.
    """
    found = measure.metric.read(rows, measure)
    if not measure.metric.per_class:
        return found
    if measure.class_index is None:
        return mean_of_classes(found, measure, rows.settings)
    check_class(measure.class_index, rows.settings.num_classes)
    return found[..., measure.class_index]


def mean_of_classes(of_classes: Floats, measure: Measure, settings: CalibrationSettings) -> Floats:
    """Return the mean over the classes that are defined, ``[...]`` of ``[..., C]``."""
    everything = measure.background or settings.multilabel or not measure.metric.foreground
    return values.mean_over_classes(of_classes if everything else of_classes[..., 1:])


def as_measure(measure: Measure | str) -> Measure:
    """Return ``measure``, made from its name where a name was given."""
    return measure if isinstance(measure, Measure) else Measure(measure)


def check_class(class_index: int, num_classes: int) -> None:
    """Raise a ValueError where there is no class of this index."""
    if not 0 <= class_index < num_classes:
        raise ValueError(f"class_index must be in [0, {num_classes}), got {class_index}")


def _scale(rows: Rows) -> int:
    return 100 if rows.settings.rules.percent else 1


def _error(histogram: values.Histogram, rows: Rows, m: Measure) -> Floats:
    return values.calibration_error(
        histogram, m.norm, debias=m.debias, min_count=m.min_count, scale=_scale(rows)
    )


def _largest_gap(rows: Rows, m: Measure) -> Floats:
    return values.calibration_error(
        rows.bins(m.kind), "max", min_count=m.min_count, scale=_scale(rows)
    )


def _mean_gap(rows: Rows, histogram: values.Histogram) -> Floats:
    return values.calibration_error(histogram, "mean", scale=_scale(rows))


def _adaptive(rows: Rows, cells: values.Integers, m: Measure, threshold: float) -> Floats:
    return ranking.adaptive_error(
        cells, rows.settings.n_bins, m.norm, threshold=threshold, scale=_scale(rows)
    )


def _tace(rows: Rows, m: Measure) -> Floats:
    return _adaptive(rows, rows.fine_classwise(), m, 0.01 if m.threshold is None else m.threshold)


def _dice(rows: Rows, _: Measure) -> Floats:
    layout = rows.settings.layout
    sizes = rows.words[..., layout.predicted] + rows.words[..., layout.reference]
    return values.ratio(2 * rows.words[..., layout.true_positive], sizes)


def _accuracy(rows: Rows, _: Measure) -> Floats:
    layout, settings = rows.settings.layout, rows.settings
    decisions = settings.num_classes if settings.multilabel else 1
    n_voxels = rows.words[..., layout.N_VOXELS]
    return values.ratio(rows.words[..., layout.N_CORRECT], n_voxels * decisions)


def _volume_bias(rows: Rows, _: Measure) -> Floats:
    _, hits, whole, fraction = np.moveaxis(rows.classwise_cells().sum(-2), -1, 0)
    n_voxels = rows.words[..., rows.settings.layout.N_VOXELS, None]
    counted = np.broadcast_to(n_voxels > 0, hits.shape).astype(np.int64)
    return values.mean_of_sum(whole - hits, fraction, counted)


METRICS: dict[str, Metric] = {
    "dice": Metric(
        title="Dice",
        read=_dice,
        words="counts",
        sentence="`2 TP / (predicted + reference)` of each class",
        better="higher",
        per_class=True,
        foreground=True,
        options=("class_index", "background"),
        reduction="case",
        key="Dice_foreground_mean",
        class_key="Dice",
        column=True,
        figure=True,
    ),
    "accuracy": Metric(
        title="Accuracy",
        read=_accuracy,
        words="counts",
        sentence="share of voxels labelled as the target",
        better="higher",
        key="accuracy",
    ),
    "ece": Metric(
        title="ECE",
        read=lambda rows, m: _error(rows.bins(m.kind), rows, m),
        words="bins",
        sentence="mean gap between confidence and accuracy, weighted by voxels",
        unit="%",
        digits=2,
        options=("norm", "debias", "min_count", "kind"),
        key="ECE",
        column=True,
        figure=True,
    ),
    "mce": Metric(
        title="MCE",
        read=_largest_gap,
        words="bins",
        sentence="largest gap of a bin",
        unit="%",
        digits=2,
        options=("min_count", "kind"),
        key="MCE",
    ),
    "ace": Metric(
        title="ACE",
        read=lambda rows, m: _mean_gap(rows, rows.bins(m.kind)),
        words="bins",
        sentence="mean gap of the bins that are not empty, each with the same weight",
        unit="%",
        digits=2,
        options=("kind",),
    ),
    "classwise_ece": Metric(
        title="Classwise ECE",
        read=lambda rows, m: _error(rows.classwise(), rows, m),
        words="classwise bins",
        sentence="ECE of each class's probability against its presence",
        unit="%",
        digits=2,
        per_class=True,
        options=("norm", "debias", "min_count", "class_index"),
        key="classwise_ECE_mean",
        class_key="classwise_ECE",
        column=True,
    ),
    "classwise_ace": Metric(
        title="Classwise ACE",
        read=lambda rows, _: _mean_gap(rows, rows.classwise()),
        words="classwise bins",
        sentence="ACE of each class's probability against its presence",
        unit="%",
        digits=2,
        per_class=True,
        options=("class_index",),
    ),
    "micro_ece": Metric(
        title="Micro ECE",
        read=lambda rows, m: _error(rows.micro(), rows, m),
        words="classwise bins",
        sentence="ECE of all classes' probabilities in one histogram",
        unit="%",
        digits=2,
        options=("norm", "debias", "min_count"),
    ),
    "adaptive_ece": Metric(
        title="Adaptive ECE",
        read=lambda rows, m: _adaptive(rows, rows.fine_cells(m.kind), m, 0.0),
        words="fine cells",
        sentence="ECE over bins that hold equal numbers of voxels",
        unit="%",
        digits=2,
        options=("norm", "kind"),
        key="adaptive_ECE",
    ),
    "classwise_adaptive_ece": Metric(
        title="Classwise adaptive ECE",
        read=lambda rows, m: _adaptive(rows, rows.fine_classwise(), m, m.threshold or 0.0),
        words="classwise fine cells",
        sentence="adaptive ECE of each class's probability against its presence",
        unit="%",
        digits=2,
        per_class=True,
        options=("norm", "threshold", "class_index"),
    ),
    "tace": Metric(
        title="TACE",
        read=_tace,
        words="classwise fine cells",
        sentence="classwise adaptive ECE of the probabilities that reach a threshold",
        unit="%",
        digits=2,
        per_class=True,
        options=("norm", "threshold", "class_index"),
        key="TACE",
    ),
    "nll": Metric(
        title="NLL",
        read=lambda rows, _: rows.mean_of(rows.settings.layout.NLL),
        words="counts",
        sentence="negative log-likelihood, mean over voxels",
        unit="nats",
        key="NLL",
        column=True,
        figure=True,
    ),
    "brier": Metric(
        title="Brier",
        read=lambda rows, _: rows.mean_of(rows.settings.layout.BRIER),
        words="counts",
        sentence="squared error summed over classes, mean over voxels",
        key="Brier",
        column=True,
        figure=True,
    ),
    "volume_bias": Metric(
        title="Volume bias",
        read=_volume_bias,
        words="classwise bins",
        sentence="soft volume less reference volume of each class",
        better="zero",
        unit="voxels",
        digits=1,
        per_class=True,
        options=("class_index",),
    ),
    "auroc": Metric(
        title="AUROC",
        read=lambda rows, m: ranking.auroc(rows.fine_cells(m.kind)),
        words="fine cells",
        sentence="probability that a right voxel has more confidence than a wrong one",
        better="higher",
        options=("kind",),
        kind="top-label",
        key="AUROC",
        column=True,
    ),
    "classwise_auroc": Metric(
        title="Classwise AUROC",
        read=lambda rows, _: ranking.auroc(rows.fine_classwise()),
        words="classwise fine cells",
        sentence="AUROC of each class's probability against its presence",
        better="higher",
        per_class=True,
        options=("class_index",),
    ),
    "aurc": Metric(
        title="AURC",
        read=lambda rows, _: ranking.aurc(rows.fine_top_label()),
        words="top-label fine cells",
        sentence="error rate of the most confident voxels, mean over all shares kept",
        digits=5,
        key="AURC",
        column=True,
    ),
    "e_aurc": Metric(
        title="E-AURC",
        read=lambda rows, _: ranking.aurc(rows.fine_top_label(), excess=True),
        words="top-label fine cells",
        sentence="AURC less that of the same labels in the best order",
        digits=5,
        key="E_AURC",
    ),
}
"""The metrics by name, in the order of the columns of every table."""
