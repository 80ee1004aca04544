"""The section that compares the models: tables, differences and figures of each region."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fastcal.calibration.metrics import METRICS
from fastcal.report.charts.intervals import Line, intervals_chart
from fastcal.report.cohort import SINGLE, Cohort, Model
from fastcal.report.measured import Measured
from fastcal.report.quantities import WHOLE, Numbers, Outcome, outcome, region_title
from fastcal.report.verdict import TILES, shown_region, signed

_CHARTS = ("dice", "ece", "nll", "brier")
DIRECTIONS = {"higher": "higher is better", "lower": "lower is better"}


@dataclass(frozen=True, slots=True)
class Cell:
    """A number with its interval."""

    text: str
    interval: str
    value: float | None
    """For sorting and for CSV."""
    low: float | None
    high: float | None
    mark: str = ""
    """``"best"``, ``"tied"`` or nothing."""


@dataclass(frozen=True, slots=True)
class Row:
    """A model."""

    title: str
    series: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class DifferenceRow:
    """A paired difference of two models."""

    first: str
    second: str
    measure: str
    cell: Cell
    p_value: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class RegionView:
    """Everything of one region."""

    name: str
    """As the command line has it; empty for the whole volume."""
    title: str
    share: str
    columns: tuple[tuple[str, str], ...]
    """Title of each measure, and which way is better."""
    rows: tuple[Row, ...]
    differences: tuple[DifferenceRow, ...]
    charts: tuple[tuple[str, str], ...]
    """Title and figure."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A number of every model that is shown, for the top of the page."""

    title: str
    direction: str
    region: str
    rows: tuple[Row, ...]


def cell(measure: str, number: Measured | None, mark: str = "") -> Cell:
    """Return a number as it is shown."""
    if number is None or math.isnan(number.estimate):
        return Cell("-", "", None, None, None)
    metric = METRICS[measure]
    low, high = number.interval
    text = metric.text(number.estimate)
    if math.isnan(low):
        return Cell(text, "", number.estimate, None, None, mark)
    ends = [metric.text(end).removesuffix(" %") for end in (low, high)]
    return Cell(text, f"{ends[0]} to {ends[1]}", number.estimate, low, high, mark)


def region_views(numbers: Numbers) -> tuple[RegionView, ...]:
    """Return what is shown of every region, the whole volume first."""
    return tuple(_region(numbers, region) for region in numbers.regions)


def _region(numbers: Numbers, region: str) -> RegionView:
    cohort = numbers.cohort
    best = {measure: numbers.best(measure, region) for measure in numbers.measures}
    rows = []
    for model in cohort.models:
        cells = []
        for measure in numbers.measures:
            held = best[measure].get(model.title)
            mark = "" if held is None else "best" if held else "tied"
            cells.append(cell(measure, numbers.get(model, measure, region), mark))
        rows.append(Row(model.title, series_of(cohort, model), tuple(cells)))
    columns = tuple(
        (METRICS[measure].title, DIRECTIONS[METRICS[measure].better])
        for measure in numbers.measures
    )
    return RegionView(
        region,
        region_title(region),
        _share(cohort, region),
        columns,
        tuple(rows),
        tuple(_differences(numbers, region)),
        tuple(_charts(numbers, region)),
    )


def _share(cohort: Cohort, region: str) -> str:
    states = [model.statistics[0] for model in cohort.models if model.statistics]
    if region == WHOLE or not states:
        return ""
    return f"{100 * states[0].region(region).n_voxels / max(states[0].n_voxels, 1):.3g} %"


def series_of(cohort: Cohort, model: Model) -> int:
    """Return the number of a model's colour: the place of its group."""
    return cohort.groups.index(model.group)


def _differences(numbers: Numbers, region: str) -> list[DifferenceRow]:
    found = []
    for first, second in numbers.pairs:
        for measure in numbers.measures:
            between = numbers.difference(first, second, measure, region)
            if between is None or math.isnan(between.estimate):
                continue
            ends = (between.low, between.high)
            interval = (
                "" if math.isnan(between.low) else " to ".join(signed(measure, end) for end in ends)
            )
            found.append(
                DifferenceRow(
                    first.title,
                    second.title,
                    METRICS[measure].title,
                    Cell(signed(measure, between.estimate), interval, between.estimate, *ends),
                    shown_p(between.p_value),
                    outcome(measure, between),
                )
            )
    return found


def shown_p(p_value: float) -> str:
    """Return a p-value as it is printed.

    Example:
        >>> shown_p(0.0004), shown_p(0.0512), shown_p(float("nan"))
        ('< 0.001', '0.051', '-')
    """
    if math.isnan(p_value):
        return "-"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _charts(numbers: Numbers, region: str) -> list[tuple[str, str]]:
    found = []
    for measure in _CHARTS:
        if measure not in numbers.measures:
            continue
        lines = _lines(numbers, measure, region)
        if not lines:
            continue
        metric = METRICS[measure]
        unit = f" ({metric.unit})" if metric.unit else ""
        found.append(
            (
                f"{metric.title}{unit}, {DIRECTIONS[metric.better]}",
                intervals_chart(measure, lines, finding=_finding(numbers, measure, region, lines)),
            )
        )
    return found


def _lines(numbers: Numbers, measure: str, region: str) -> list[Line]:
    found = []
    for model in numbers.cohort.models:
        one = numbers.get(model, measure, region)
        if one is not None:
            series = series_of(numbers.cohort, model)
            hollow = model.kind == SINGLE
            found.append(Line(model.title, one.estimate, *one.interval, series, hollow))
    return found


def _finding(numbers: Numbers, measure: str, region: str, lines: Sequence[Line]) -> str:
    metric = METRICS[measure]
    values = "; ".join(f"{one.name} {metric.text(one.estimate)}" for one in lines)
    best = numbers.best(measure, region)
    tied = [title for title, first in best.items() if not first]
    leader = next((title for title, first in best.items() if first), "")
    says = ""
    if leader:
        says = f" Best: {leader}" + (f", tied with {', '.join(tied)}." if tied else ".")
    place = "" if measure == "dice" else f" {shown_region(region)}"
    return f"{metric.title}{place}: {values}.{says}"


def tiles(numbers: Numbers) -> tuple[Tile, ...]:
    """Return the numbers at the top of the page, of the models that are shown."""
    found = []
    for measure in TILES:
        if measure not in numbers.measures:
            continue
        region = WHOLE if measure == "dice" else numbers.box
        best = numbers.best(measure, region)
        rows = []
        for model in numbers.cohort.shown:
            one = numbers.get(model, measure, region)
            if one is None:
                continue
            held = best.get(model.title)
            mark = "" if held is None else "best" if held else "tied"
            series = series_of(numbers.cohort, model)
            rows.append(Row(model.title, series, (cell(measure, one, mark),)))
        metric = METRICS[measure]
        place = "mean over cases and structures" if measure == "dice" else shown_region(region)
        found.append(Tile(metric.title, DIRECTIONS[metric.better], place, tuple(rows)))
    return tuple(found)


def structure_rows(numbers: Numbers) -> tuple[Row, ...]:
    """Return the Dice of every structure, a row per model."""
    cohort = numbers.cohort
    return tuple(
        Row(
            model.title,
            series_of(cohort, model),
            tuple(cell("dice", numbers.by_structure[model.title, s]) for s in cohort.structures),
        )
        for model in cohort.models
    )
