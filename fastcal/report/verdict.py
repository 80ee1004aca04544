"""What a report says first: sentences, tiles and red flags, by intervals of differences alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from fastcal.calibration.metrics import METRICS
from fastcal.report.cohort import ENSEMBLE, SINGLE, Flag, Model
from fastcal.report.entropy_fit import correlation
from fastcal.report.gaps import Gaps
from fastcal.report.quantities import WHOLE, Numbers, Outcome, outcome
from fastcal.report.style import LOSS_NAMES

TILES = ("dice", "ece", "nll")
_JUDGED = ("dice", "nll", "ece", "brier")
_HIGH = 0.9
"""Confidence from which a bin is one of high confidence."""
FEW = 10
"""Cases below which intervals of a bootstrap are known to be too narrow."""


def shown_region(region: str) -> str:
    """Return a region as sentences have it.

    Example:
        >>> shown_region("box:8:2"), shown_region("band:3"), shown_region("")
        ('in the box around the structures', 'within 3 mm of a boundary', 'over the whole volume')
    """
    kind, *numbers = region.split(":")
    if region == WHOLE:
        return "over the whole volume"
    if kind == "box":
        return "in the box around the structures"
    if kind == "band" and numbers:
        return f"within {numbers[0]} mm of a boundary"
    return f"in the {region}"


def verdict(numbers: Numbers, gaps: dict[str, Gaps]) -> list[str]:
    """Return sentences, the most important one first.

    Args:
        numbers: What the models scored.
        gaps: Calibration of the models shown, by title, in the region of `Numbers.box`.
    """
    found = [*_ensembling(numbers), *_between(numbers)] or list(_plain(numbers))
    return [*found, *_leanings(numbers, gaps), *_entropies(numbers)]


def _ensembling(numbers: Numbers) -> Iterator[str]:
    """What ensembling changes, measure by measure, over all groups that have both."""
    cohort = numbers.cohort
    pairs = [
        (group, ensemble, single)
        for group in cohort.groups
        if (ensemble := cohort.of(group, ENSEMBLE)) and (single := cohort.of(group, SINGLE))
    ]
    if not pairs:
        return
    by_pattern: dict[tuple[Outcome, ...], list[str]] = {}
    for measure in _JUDGED:
        outcomes: list[Outcome] = []
        for _, ensemble, single in pairs:
            between = numbers.difference(ensemble, single, measure, numbers.box)
            if between is None:
                break
            outcomes.append(outcome(measure, between))
        else:
            by_pattern.setdefault(tuple(outcomes), []).append(METRICS[measure].title)
    names = [_name(single) for _, _, single in pairs]
    every = {1: "", 2: f" of both {_kind(numbers)}"}.get(len(pairs), f" of all {_kind(numbers)}")
    ties: list[str] = []
    for pattern, titles in by_pattern.items():
        for result, verb in (("better", "improves"), ("worse", "worsens")):
            which = [name for name, one in zip(names, pattern, strict=True) if one == result]
            if which:
                of = every if len(which) == len(pairs) else f" of {_and(which)}"
                yield f"Ensembling {verb} {_and(titles)}{of}."
        which = [name for name, one in zip(names, pattern, strict=True) if one == "tie"]
        if which:
            of = every if len(which) == len(pairs) else f" of {_and(which)}"
            ties.append(f"{_and(titles)}{of}")
    if ties:
        yield f"Whether ensembling changes {'; '.join(ties)} is undecided on these cases."


def _name(model: Model) -> str:
    """What a model is called within a sentence: by its group, since one of each is shown."""
    title = model.group_title or model.title
    return title[:1].lower() + title[1:] if title == "Cross entropy" else title


def _kind(numbers: Numbers) -> str:
    return "losses" if all(group in LOSS_NAMES for group in numbers.cohort.groups) else "models"


def _start(sentence: str) -> str:
    """Begin a sentence with a capital, unless it begins with a name that users gave."""
    return sentence[:1].upper() + sentence[1:] if sentence.startswith("cross entropy") else sentence


def _between(numbers: Numbers) -> Iterator[str]:
    """The best of the models shown against each other one, measure by measure."""
    shown = numbers.cohort.shown
    if len(shown) < 2:
        return
    found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    ties: list[str] = []
    for measure in _JUDGED:
        metric, region = METRICS[measure], WHOLE if measure == "dice" else numbers.box
        known = [
            (model, one)
            for model in shown
            if (one := numbers.get(model, measure, region)) is not None
            and not math.isnan(one.estimate)
        ]
        if len(known) < 2:
            continue
        sign = -1 if metric.better == "higher" else 1
        best = min(known, key=lambda pair: sign * pair[1].estimate)[0]
        beaten, clearest = [], None
        for model, _ in known:
            between = None if model is best else numbers.difference(best, model, measure, region)
            if between is not None and outcome(measure, between) == "better":
                beaten.append(_name(model))
                clearest = between
        if not beaten or clearest is None:
            ties.append(metric.title)
            continue
        interval = ""
        if len(shown) == 2:
            ends = (clearest.estimate, clearest.low, clearest.high)
            shown_ends = [signed(measure, end) for end in ends]
            points = " points" if metric.unit == "%" else ""
            interval = f" ({shown_ends[0]}{points}, {shown_ends[1]} to {shown_ends[2]})"
        key = (_name(best), tuple(beaten))
        found.setdefault(key, []).append(f"{metric.title}{interval}")
    for (best_name, names), measures in found.items():
        yield _start(f"{best_name} is better than {_and(names)} in {_and(measures)}.")
    if ties:
        names = _and([_name(model) for model in shown])
        yield f"In {_and(ties)}, {names} cannot be told apart."


def _leanings(numbers: Numbers, gaps: dict[str, Gaps]) -> Iterator[str]:
    place = shown_region(numbers.box)
    names = {model.title: _name(model) for model in numbers.cohort.shown}
    for title, one in gaps.items():
        low, high = one.net_interval
        if math.isnan(low):
            continue
        main = one.parts[one.main]
        name = names[title]
        lean = "overconfident" if main > 0 else "underconfident"
        # The interval of the bin that adds most: a difference of confidence and accuracy.
        if one.low[one.main] > 0 or one.high[one.main] < 0:
            high_end = one.curve.edges[one.main] >= _HIGH
            where = "at high confidence" if high_end else f"at confidence {one.range(one.main)}"
            yield _start(
                f"{name} is {lean} {where}: {100 * abs(main):.2f} of the {100 * one.error:.2f} "
                f"points of its ECE {place} come from the bin {one.range(one.main)}."
            )
        elif low > 0 or high < 0:
            lean = "overconfident" if one.net > 0 else "underconfident"
            yield _start(f"{name} is {lean} {place} by {100 * abs(one.net):.2f} points.")


def _entropies(numbers: Numbers) -> Iterator[str]:
    """What entropy says of the quality of segments, models alike in one sentence."""
    found: dict[str, list[str]] = {}
    for model in numbers.cohort.shown:
        fitted = None if model.entropy is None else correlation(model.entropy, model.dice)
        if fitted is None or math.isnan(fitted.high):
            continue
        if fitted.high < 0:
            says = "Entropy is high where segments are poor"
        elif fitted.low > 0:
            says = "Entropy is low where segments are poor, the wrong way round"
        else:
            says = "Entropy does not tell poor segments from good ones"
        ends = [f"{value:.2f}".replace("-", "−") for value in (fitted.r, fitted.low, fitted.high)]
        found.setdefault(says, []).append(f"{_name(model)} r = {ends[0]}, {ends[1]} to {ends[2]}")
    for says, each in found.items():
        yield f"{says} ({'; '.join(each)})."


def _plain(numbers: Numbers) -> Iterator[str]:
    for model in numbers.cohort.shown:
        one = numbers.get(model, "dice")
        if one is None or math.isnan(one.estimate):
            continue
        metric = METRICS["dice"]
        low, high = one.interval
        interval = "" if math.isnan(low) else f" (95 % interval {low:.4f} to {high:.4f})"
        yield f"{model.title} has a mean Dice of {metric.text(one.estimate)}{interval}."


def red_flags(numbers: Numbers, given: Sequence[Flag]) -> list[Flag]:
    """Return what must not be overlooked, serious flags first.

    Args:
        numbers: What the models scored.
        given: Flags that were found while the cases were read.
    """
    cohort, found = numbers.cohort, list(given)
    for model in cohort.shown:
        for place, structure in enumerate(cohort.structures):
            column = model.dice[:, place]
            poor = [k for k in np.flatnonzero(column < 0.5) if column[k] > 0]
            if poor:
                worst = min(poor, key=lambda k: column[k])
                others = f", and {len(poor) - 1} more below 0.5" if len(poor) > 1 else ""
                text = (
                    f"{model.title}: Dice of {structure} is {column[worst]:.2f} in "
                    f"{cohort.cases[worst]}{others}"
                )
                found.append(Flag(text, case=cohort.cases[worst]))
    if 1 < len(cohort.cases) < FEW:
        text = f"{len(cohort.cases)} cases: intervals of a bootstrap over so few are too narrow"
        found.append(Flag(text))
    if len(cohort.cases) == 1:
        found.append(Flag("One case: there are no intervals, and nothing can be compared"))
    return sorted(found, key=lambda flag: not flag.serious)


def signed(measure: str, value: float) -> str:
    """Return a difference as texts have it.

    Example:
        >>> signed("dice", 0.0123), signed("ece", -0.0123)
        ('+0.0123', '−1.23')
    """
    if math.isnan(value):
        return "-"
    metric = METRICS[measure]
    shown = 100 * value if metric.unit == "%" else value
    return f"{shown:+.{metric.digits}f}".replace("-", "−")


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
