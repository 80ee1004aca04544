"""What a report says first: sentences, tiles and red flags, by intervals of differences alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fastcal.calibration.metrics import METRICS
from fastcal.report.cohort import ENSEMBLE, SINGLE, Flag, Model
from fastcal.report.entropy_fit import correlation
from fastcal.report.gaps import Gaps
from fastcal.report.quantities import WHOLE, Numbers, Outcome, outcome

TILES = ("dice", "ece", "nll")
_JUDGED = ("dice", "nll", "ece", "brier")
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
    found = [*_ensembling(numbers), *_between(numbers), *_leanings(numbers, gaps)]
    found += _entropies(numbers)
    if not found:
        found = list(_plain(numbers))
    return found


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
    names = [_group(single) for _, _, single in pairs]
    every = {1: "", 2: " of both models"}.get(len(pairs), " of every model")
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


def _group(model: Model) -> str:
    return model.title.partition(",")[0]


def _between(numbers: Numbers) -> Iterator[str]:
    """The best of the models shown against each other one, measure by measure."""
    shown = numbers.cohort.shown
    if len(shown) < 2:
        return
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
            if model is best:
                continue
            between = numbers.difference(best, model, measure, region)
            if between is not None and outcome(measure, between) == "better":
                beaten.append(model.title)
                clearest = between
        if not beaten or clearest is None:
            ties.append(metric.title)
            continue
        interval = ""
        if len(beaten) == 1:
            interval = (
                f" (difference {signed(measure, clearest.estimate)}, 95 % interval "
                f"{signed(measure, clearest.low)} to {signed(measure, clearest.high)})"
            )
        word = "higher" if metric.better == "higher" else "lower"
        yield f"{best.title} has the {word} {metric.title} than {_and(beaten)}{interval}."
    if ties:
        names = _and([model.title for model in shown])
        tied = "is a tie" if len(ties) == 1 else "are ties"
        yield f"{_and(ties)} {tied} between {names}: the intervals of the differences hold 0."


def _leanings(numbers: Numbers, gaps: dict[str, Gaps]) -> Iterator[str]:
    place = shown_region(numbers.box)
    for title, one in gaps.items():
        low, high = one.net_interval
        main = one.parts[one.main]
        lean = "overconfident" if one.net > 0 else "underconfident"
        decided = low > 0 or high < 0
        share = f"{100 * abs(main):.2f} of the {100 * one.error:.2f} points of its ECE"
        where = f"come from the bin {one.range(one.main)}"
        bin_lean = "overconfident" if main > 0 else "underconfident"
        if decided:
            yield (
                f"{title} is {lean} {place} by {100 * abs(one.net):.2f} points (95 % interval "
                f"{100 * min(abs(low), abs(high)):.2f} to {100 * max(abs(low), abs(high)):.2f}); "
                f"{share} {where}, where it is {bin_lean}."
            )
        elif not math.isnan(low):
            yield (
                f"{title} is neither over- nor underconfident as a whole {place}; {share} {where}."
            )


def _entropies(numbers: Numbers) -> Iterator[str]:
    for model in numbers.cohort.shown:
        found = None if model.entropy is None else correlation(model.entropy, model.dice)
        if found is None or math.isnan(found.high):
            continue
        numbers_of = f"r = {found.r:.2f}, 95 % interval {found.low:.2f} to {found.high:.2f}"
        if found.high < 0:
            yield f"Entropy of {model.title} tells poor segments from good ones ({numbers_of})."
        elif found.low > 0:
            yield f"Entropy of {model.title} is higher where Dice is higher ({numbers_of})."
        else:
            yield f"Entropy of {model.title} does not tell poor segments ({numbers_of})."


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
