"""The paper's claims, tested on the models of a report by intervals of paired differences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fastcal.calibration.metrics import METRICS
from fastcal.report.claims import Evidence, Sign
from fastcal.report.cohort import DROPOUT, ENSEMBLE, SINGLE, Model
from fastcal.report.entropy_fit import correlation
from fastcal.report.quantities import WHOLE, Numbers

STRONG = -0.5
"""A correlation below it is strongly negative; the paper has -0.92, -0.78 and -0.77."""
_CALIBRATION = ("nll", "brier", "ece")


@dataclass(frozen=True, slots=True)
class Untested:
    """A claim about which these models say nothing."""

    claim: str
    needs: str
    """What would be needed."""


def findings(numbers: Numbers) -> tuple[tuple[Sign, ...], tuple[Untested, ...]]:
    """Return the paper's claims that the models can be tested for, and the others.

    Calibration is measured in the box around the structures, as in the paper, where one was
    counted. Of each test, an interval wholly below 0 speaks for the claim.

    Args:
        numbers: What the models scored.

    Reference: Mehrtash et al., IEEE TMI 39(12):3868-3878, 2020.
    """
    claims = (
        (
            "Dice loss has the better Dice and the worse NLL and ECE than cross entropy",
            _losses(numbers),
            "models named ce and dice, trained with cross entropy and with Dice loss",
        ),
        (
            "Ensembling improves calibration and segmentation",
            _against(numbers, SINGLE),
            "an ensemble that fastcal made, whose members' probabilities are still there",
        ),
        (
            "Ensembling beats MC dropout",
            _against(numbers, DROPOUT),
            "predictions with MC dropout, as fastcal study makes them",
        ),
        (
            "Segment entropy is strongly and negatively correlated with logit Dice",
            _entropy(numbers),
            "probabilities, or segments.json",
        ),
        (
            "Segment entropy is higher out of distribution",
            iter(()),
            "cases from elsewhere; see fastcal ood",
        ),
    )
    tested, untested = [], []
    for claim, evidence, needs in claims:
        tests = tuple(evidence)
        if tests:
            tested.append(Sign(claim, tests))
        else:
            untested.append(Untested(claim, needs))
    return tuple(tested), tuple(untested)


def _losses(numbers: Numbers) -> Iterator[Evidence]:
    cohort = numbers.cohort
    found = [cohort.of(loss, SINGLE) or cohort.of(loss, "") for loss in ("dice", "ce")]
    if found[0] is None or found[1] is None:
        return
    dice, ce = found[0], found[1]
    yield from _test(numbers, "dice", better=dice, worse=ce)
    for measure in ("nll", "ece"):
        yield from _test(numbers, measure, better=ce, worse=dice)


def _against(numbers: Numbers, kind: str) -> Iterator[Evidence]:
    cohort = numbers.cohort
    for group in cohort.groups:
        ensemble = cohort.of(group, ENSEMBLE)
        other = next((m for m in cohort.models if (m.group, m.kind) == (group, kind)), None)
        if ensemble is None or other is None:
            continue
        for measure in ("dice", *_CALIBRATION):
            yield from _test(numbers, measure, better=ensemble, worse=other)


def _test(numbers: Numbers, measure: str, *, better: Model, worse: Model) -> Iterator[Evidence]:
    """Compare two models so that a value below 0 speaks for the claim."""
    metric, region = METRICS[measure], WHOLE if measure == "dice" else numbers.box
    first, second = (better, worse) if metric.better == "lower" else (worse, better)
    found = numbers.difference(first, second, measure, region)
    values = [numbers.get(model, measure, region) for model in (better, worse)]
    if found is None or values[0] is None or values[1] is None:
        return
    place = f", {region}" if region else ""
    yield Evidence(
        f"{metric.title}{place}: {better.title} and {worse.title}",
        " against ".join(metric.text(one.estimate) for one in values if one is not None),
        found.estimate,
        found.low,
        found.high,
        found.p_value,
    )


def _entropy(numbers: Numbers) -> Iterator[Evidence]:
    for model in numbers.cohort.shown:
        if model.entropy is None:
            continue
        found = correlation(model.entropy, model.dice)
        if found is not None:
            yield Evidence(
                f"r, {model.title}",
                f"{found.r:.2f}, {found.n} segments",
                found.r,
                found.low,
                found.high,
                float("nan"),
                STRONG,
            )
