"""The section of cases: a row and a dot for each, and pictures within the size of the page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fastcal.calibration.metrics import METRICS
from fastcal.cases.loop import ProgressOption
from fastcal.cases.pipeline import Stages, run_stages
from fastcal.core.likelihood import largest_entropy
from fastcal.report.charts.scatter import Dot, scatter_chart
from fastcal.report.chosen import Chosen
from fastcal.report.cohort import Cohort, Model
from fastcal.report.comparison_view import series_of
from fastcal.report.entropy_fit import correlation
from fastcal.report.measured import mean_of_known
from fastcal.report.quantities import Numbers
from fastcal.report.slices import CasePictures, Layers, pictures

MOST_SLICES = 64
MOST_PICTURED = 40
"""Cases with pictures beside those that are singled out: every one of them is read again."""
_CHOSEN_SHARE = 0.6
"""Of the bytes for pictures, for the cases that are singled out."""
_MEASURES = ("ece", "nll")


@dataclass(frozen=True, slots=True)
class CaseRow:
    """A case in the table."""

    name: str
    anchor: str
    pictured: bool
    values: tuple[tuple[str, float | None], ...]
    """Text and number of every column."""
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pictured:
    """A case with its pictures."""

    name: str
    anchor: str
    number: int
    role: str
    reason: str
    captions: tuple[str, ...]
    """One per model that is shown: its Dice and calibration."""
    pictures: CasePictures


def anchor(case: str) -> str:
    """Return the place of a case in the page.

    Example:
        >>> anchor("heart 01")
        'case-heart_20_01'
    """
    return "case-" + re.sub(r"[^A-Za-z0-9-]", lambda found: f"_{ord(found[0]):x}_", case)


def columns(numbers: Numbers) -> tuple[tuple[str, str], ...]:
    """Return the columns between the name of a case and its flags: their heads, and the model."""
    models = numbers.cohort.shown

    def of(title: str, model: Model) -> tuple[str, str]:
        return title, model.group_title if len(models) > 1 else ""

    region = f", {numbers.box.partition(':')[0]}" if numbers.box else ""
    found = [of("Dice", model) for model in models]
    found += [of("Entropy", model) for model in models if model.entropy is not None]
    found += [
        of(f"{METRICS[measure].title}{region}", model)
        for model in models
        if model.statistics
        for measure in _MEASURES
    ]
    return tuple(found)


def case_rows(numbers: Numbers, pictured: Sequence[str]) -> tuple[CaseRow, ...]:
    """Return a row per case, in order of the names."""
    cohort = numbers.cohort
    dice = [mean_of_known(model.dice) for model in cohort.shown]
    entropy = [mean_of_known(m.entropy) for m in cohort.shown if m.entropy is not None]
    others = [
        (measure, found.per_case)
        for model in cohort.shown
        if model.statistics
        for measure in _MEASURES
        if (found := numbers.get(model, measure, numbers.box)) is not None
    ]
    rows = []
    for place, case in enumerate(cohort.cases):
        values = [_value("dice", float(one[place])) for one in dice]
        values += [_plain(float(one[place])) for one in entropy]
        values += [_value(measure, float(one[place])) for measure, one in others]
        rows.append(
            CaseRow(
                case,
                anchor(case),
                case in pictured,
                tuple(values),
                tuple(cohort.case_flags.get(case, ())),
            )
        )
    return tuple(rows)


def _value(measure: str, value: float) -> tuple[str, float | None]:
    return METRICS[measure].text(value), None if math.isnan(value) else value


def _plain(value: float) -> tuple[str, float | None]:
    return ("-", None) if math.isnan(value) else (f"{value:.3f}", value)


def scatters(numbers: Numbers, pictured: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the figures of entropy against Dice, with the model of each."""
    found = []
    for model in numbers.cohort.shown:
        if model.entropy is None:
            continue
        entropy, dice = mean_of_known(model.entropy), mean_of_known(model.dice)
        dots = [
            Dot(case, anchor(case) if case in pictured else "", float(x), float(y))
            for case, x, y in zip(numbers.cohort.cases, entropy, dice, strict=True)
        ]
        if not any(dot.known for dot in dots):
            continue
        says = ""
        fitted = correlation(model.entropy, model.dice)
        if fitted is not None:
            says = f"; over segments r = {fitted.r:.2f}"
        finding = f"{model.title}: entropy of the segments against Dice, a dot per case{says}."
        series = series_of(numbers.cohort, model)
        found.append((model.title, scatter_chart(dots, series=series, finding=finding)))
    return tuple(found)


def draw_cases(
    numbers: Numbers,
    chosen: Sequence[Chosen],
    main: Model,
    *,
    budget: int,
    progress: ProgressOption = False,
) -> tuple[tuple[Pictured, ...], tuple[str, ...]]:
    """Return the cases with pictures, those that are singled out first.

    Args:
        numbers: What the models scored.
        chosen: Cases that are singled out.
        main: The model by which they were.
        budget: Bytes that the pictures may take.
        progress: See `fastcal.report.page.PageSettings`.

    Returns:
        The cases, and the names of singled-out cases whose pictures did not fit.
    """
    cohort = numbers.cohort
    read = cohort.layers
    if read is None:
        return (), ()
    dice = mean_of_known(main.dice)
    order = np.argsort(np.where(np.isnan(dice), np.inf, dice), kind="stable")
    singled = {one.case: one for one in chosen}
    others = [cohort.cases[k] for k in order if cohort.cases[k] not in singled][:MOST_PICTURED]
    wanted = [*singled, *others]
    found: list[Pictured] = []
    too_large: list[str] = []

    def layers(case: str) -> Iterator[Layers]:
        yield read(case)

    def draw(case: str, pieces: Iterator[Layers]) -> None:
        left = budget - sum(one.pictures.size for one in found)
        place = wanted.index(case)
        waiting = len(wanted) - place
        if case in singled:
            waiting = len(singled) - place
            left -= int((1 - _CHOSEN_SHARE) * budget) if others else 0
        drawn = _fitting(cohort, next(pieces), max(left, 0) // waiting)
        why = singled.get(case)
        if drawn is None:
            too_large.extend([case] if why else [])
            return
        role = "" if why is None else why.role
        reason = "" if why is None else f"{why.reason} ({main.title})"
        captions = _captions(numbers, case)
        found.append(Pictured(case, anchor(case), len(found), role, reason, captions, drawn))

    run_stages(wanted, Stages(layers, draw), progress=progress)
    return tuple(found), tuple(too_large)


def _fitting(cohort: Cohort, layers: Layers, share: int) -> CasePictures | None:
    """Draw a case in at most ``share`` bytes, with as many slices as fit; None if one does not."""
    top = top_entropy(cohort)
    most = MOST_SLICES
    while True:
        found = pictures(layers, top_entropy=top, most=most)
        if found.size <= share:
            return found
        if most == 1 or len(found.numbers) == 1:
            return None
        most = max(1, min(most - 1, int(0.9 * len(found.numbers) * share / found.size)))


def top_entropy(cohort: Cohort) -> float:
    """Return the largest entropy in nats: ln C, or C ln 2 where every channel is a question."""
    groups = len(cohort.classes) == len(cohort.structures)
    return largest_entropy(len(cohort.classes), multilabel=groups)


def _captions(numbers: Numbers, case: str) -> tuple[str, ...]:
    cohort = numbers.cohort
    place = cohort.cases.index(case)
    found = []
    for model in cohort.shown:
        dice = float(mean_of_known(model.dice)[place])
        parts = [f"Dice {METRICS['dice'].text(dice)}"]
        if len(cohort.structures) > 1:
            each = ", ".join(
                f"{name} {METRICS['dice'].text(float(model.dice[place, k]))}"
                for k, name in enumerate(cohort.structures[:6])
            )
            parts[0] += f" ({each})"
        for measure in _MEASURES:
            one = numbers.get(model, measure, numbers.box)
            if one is not None:
                title = METRICS[measure].title
                parts.append(f"{title} {METRICS[measure].text(float(one.per_case[place]))}")
        found.append("; ".join(parts))
    return tuple(found)
