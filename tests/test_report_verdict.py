"""What a report says of numbers: verdicts by intervals, parts of errors, cases singled out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from fastcal import CalibrationStatistics
from fastcal.calibration import Measure, bootstrap
from fastcal.report.charts.coverage import first_coverage
from fastcal.report.chosen import choose
from fastcal.report.claims import CONTRADICTED, SUPPORTED, UNDECIDED
from fastcal.report.cohort import ENSEMBLE, SINGLE, Cohort, Model
from fastcal.report.entropy_fit import correlation
from fastcal.report.findings import findings
from fastcal.report.gaps import gaps_of
from fastcal.report.page import PageSettings, render
from fastcal.report.provenance import Provenance
from fastcal.report.quantities import WHOLE, numbers_of
from fastcal.report.verdict import verdict


def counted(
    n_cases: int, *, sharpness: float = 3.0, seed: int = 0, **options: Any
) -> CalibrationStatistics:
    generator = torch.Generator().manual_seed(seed)
    statistics = CalibrationStatistics(3, 10, **options)
    for case in range(n_cases):
        logits = torch.randn(1, 3, 400, generator=generator)
        target = torch.multinomial(logits[0].softmax(0).T, 1, generator=generator).T
        statistics.update((sharpness * logits).softmax(1), target, case_id=[f"c{case:02d}"])
    return statistics


def cohort(*models: Model, n_cases: int = 12) -> Cohort:
    return Cohort(
        "Cohort", ("a",), ("background", "a", "b"), tuple(f"c{k:02d}" for k in range(n_cases)),
        models, Provenance("fastcal report", "fastcal"),
    )  # fmt: skip


def model(group: str, kind: Any, dice: float, sharpness: float, n_cases: int = 12) -> Model:
    # No two differences are equal: Wilcoxon's test of ties takes seconds.
    spread = dice + 0.01 * np.cos(np.arange(n_cases))[:, None]
    spread += 0.001 * (kind == ENSEMBLE) * np.sin(7.0 * np.arange(n_cases))[:, None]
    state = counted(n_cases, sharpness=sharpness)
    return Model(group, kind, 2, spread, (state,))


def test_verdicts_follow_the_intervals_of_differences() -> None:
    numbers = numbers_of(
        cohort(
            model("ce", SINGLE, 0.80, 3.0),
            model("ce", ENSEMBLE, 0.85, 1.0),
            model("dice", SINGLE, 0.80, 9.0),
            model("dice", ENSEMBLE, 0.85, 2.0),
        )
    )
    sentences = verdict(numbers, {})
    assert sentences[0] == "Ensembling improves Dice, NLL, ECE and Brier of both losses."
    assert any("In Dice, cross entropy and Dice loss cannot be told apart." in s for s in sentences)
    assert any(s.startswith("Cross entropy is better than Dice loss in NLL") for s in sentences)
    signs, untested = findings(numbers)
    verdicts = {sign.claim: sign.verdict for sign in signs}
    assert verdicts["Ensembling improves calibration and segmentation"] == SUPPORTED
    # Dice ties: its interval is a point at 0, which is neither below nor above.
    assert verdicts[next(c for c in verdicts if c.startswith("Dice loss has"))] == UNDECIDED
    assert {one.claim.split()[0] for one in untested} == {"Ensembling", "Segment"}


def test_equal_models_are_ties_and_no_claim_rests_on_a_point_estimate() -> None:
    one, two = model("ce", SINGLE, 0.8, 3.0), model("ce", ENSEMBLE, 0.8, 3.0)
    numbers = numbers_of(cohort(one, two))
    assert numbers.best("nll", WHOLE) == {one.title: True, two.title: False}
    (sentence,) = verdict(numbers, {})
    assert sentence.startswith("Whether ensembling changes")
    assert sentence.endswith("is undecided on these cases.")


def test_a_claim_is_contradicted_by_an_interval_on_the_other_side() -> None:
    numbers = numbers_of(cohort(model("ce", SINGLE, 0.8, 1.0), model("ce", ENSEMBLE, 0.9, 9.0)))
    signs, _ = findings(numbers)
    assert signs[0].verdict == CONTRADICTED
    assert {test.name.split(":")[0]: test.verdict for test in signs[0].tests}["Dice"] == SUPPORTED


def test_one_case_has_numbers_and_no_verdict() -> None:
    found = numbers_of(cohort(model("a", "", 0.8, 1.0, 1), model("b", "", 0.9, 9.0, 1), n_cases=1))
    number = found.get(found.cohort.models[0], "nll")
    assert number is not None
    assert math.isfinite(number.estimate)
    assert np.isnan(number.interval).all()
    html = render(found, PageSettings())
    assert "One case: there are no intervals" in html
    assert "better than" not in html.split('id="comparison"')[0]


def test_cases_are_chosen_by_their_numbers() -> None:
    dice = np.array([0.9, 0.5, 0.7, 0.8, 0.95, 0.6])[:, None]
    entropy = np.array([0.2, 0.5, 0.3, 0.25, 0.1, 0.05])[:, None]
    one = Model("a", "", 1, dice, (), entropy)
    found = {c.role: c.case for c in choose(cohort(one, n_cases=6), one)}
    assert found == {
        "Worst": "c01", "Median": "c03", "Best": "c04", "Confident but wrong": "c05"
    }  # fmt: skip


def test_correlation_is_pearsons_and_its_interval_is_over_cases() -> None:
    random = np.random.default_rng(0)
    entropy = random.uniform(0.05, 0.6, (20, 2))
    dice = 1 / (1 + np.exp(-(3 - 6 * entropy + random.normal(0, 0.3, (20, 2)))))
    found = correlation(entropy, dice)
    assert found is not None
    expected = np.corrcoef(entropy.ravel(), np.log(dice / (1 - dice)).ravel())[0, 1]
    assert found.r == pytest.approx(expected, abs=1e-12)
    assert found.low < found.r < found.high < -0.5
    assert correlation(entropy[:1], dice[:1]) is None


def test_the_axis_of_coverage_begins_where_errors_do() -> None:
    state = CalibrationStatistics(2, fine_bins=1024)
    p = torch.cat([torch.full((970,), 0.9999), torch.linspace(0.5, 0.8, 30)])
    target = torch.zeros(1000, dtype=torch.long)
    target[985:] = 1
    state.update(torch.stack([p, 1 - p])[None], target[None])
    assert first_coverage(state.risk_coverage()) >= 0.95


def test_intervals_of_the_parts_hold_them() -> None:
    statistics = counted(5)
    found = gaps_of(statistics)
    held = ~np.isnan(found.low)
    assert held.any()
    assert (found.low[held] <= found.parts[held] + 1e-12).all()
    assert (found.high[held] >= found.parts[held] - 1e-12).all()
    assert found.error == pytest.approx(statistics.ece())
    of_class = gaps_of(statistics, 1)
    assert of_class.error == pytest.approx(statistics.classwise_ece()[1])


def test_fewer_words_in_a_row_change_no_interval() -> None:
    """Rows are narrowed before they are resampled."""
    wide, narrow = counted(3, fine_bins=256, moments=True), counted(3)
    for name in ("dice", "ece", "classwise_ece", "nll", "brier"):
        one, two = (bootstrap(s, name, n_resamples=50) for s in (wide, narrow))
        assert one.distribution.tolist() == two.distribution.tolist()
    area = bootstrap(wide, Measure("auroc", kind="top-label"), n_resamples=20)
    assert area.estimate == wide.auroc()
