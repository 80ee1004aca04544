"""Intervals over cases: exact resampling, SciPy's numbers, the same bits whatever the order."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from members import labels, probabilities
from scipy import stats

from fastcal import CalibrationStatistics
from fastcal.calibration import Measure, bootstrap, paired_bootstrap, wilcoxon
from fastcal.calibration.resampling import weighted_mean, weighted_sum

MEASURES = (
    "ece",
    "ace",
    "brier",
    "nll",
    "accuracy",
    Measure("ece", "max"),
    Measure("ece", "l2", debias=True),
    Measure("classwise_ece", class_index=1),
    Measure("volume_bias", class_index=2),
    "dice",
)


def cohort(n_cases: int = 12, seed: int = 0, sharpness: float = 1.0, **options: object):
    """Statistics of cases named by two digits, 90 voxels each."""
    (p,) = probabilities(1, 3, (90,), dtype=torch.float64, batch=n_cases, seed=seed)
    p = (sharpness * p.log()).softmax(1)
    statistics = CalibrationStatistics(3, **options)
    statistics.update(p, labels(3, (n_cases, 90)), case_id=names(n_cases))
    return statistics


def names(n_cases: int) -> list[str]:
    return [f"{case:02}" for case in range(n_cases)]


def drawn(n_cases: int, n_resamples: int, seed: int) -> np.ndarray:
    """The cases a seed draws."""
    random = np.random.default_rng(seed)
    return random.integers(n_cases, size=(n_resamples, n_cases), dtype=np.uint16)


@pytest.mark.parametrize("measure", MEASURES, ids=str)
def test_a_pooled_resample_is_the_sum_of_the_cases_drawn(measure):
    statistics = cohort()
    found = bootstrap(statistics, measure, reduction="pooled", n_resamples=30, seed=7)
    for cases, value in zip(drawn(12, 30, 7), found.distribution, strict=True):
        total = sum(statistics.case(names(12)[case]) for case in cases)
        wanted = total.dice("pooled") if measure == "dice" else total.measure(measure)
        np.testing.assert_array_equal(value, wanted)


@pytest.mark.parametrize("measure", MEASURES, ids=str)
def test_a_resample_by_case_is_the_mean_over_the_cases_drawn(measure):
    statistics = cohort()
    found = bootstrap(statistics, measure, reduction="case", n_resamples=30, seed=3)
    values = np.array([statistics.per_case(measure)[name] for name in names(12)])
    want = values[drawn(12, 30, 3)].mean(1)
    np.testing.assert_allclose(found.distribution, want, rtol=1e-15, atol=1e-15)
    assert found.estimate == pytest.approx(values.mean(), rel=1e-15)


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("reduction", ["pooled", "case"])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_intervals_are_those_of_scipy_for_the_same_resamples(method, reduction, level):
    statistics = cohort(9)
    found = bootstrap(
        statistics, "ece", reduction=reduction, method=method, level=level, n_resamples=999
    )
    cases = [statistics.case(name) for name in names(9)]

    def value(chosen: np.ndarray, axis: int = -1) -> np.ndarray:
        sets = np.moveaxis(np.asarray(chosen), axis, -1).astype(int)
        flat = sets.reshape(-1, sets.shape[-1])
        if reduction == "case":
            counts = np.stack([np.bincount(one, minlength=9) for one in flat]).astype(float)
            out = weighted_mean(counts, np.array([case.ece() for case in cases]))
        else:
            out = np.array([sum(cases[case] for case in one).ece() for one in flat])
        return out.reshape(sets.shape[:-1])

    theirs = stats.bootstrap(
        (np.arange(9),),
        value,
        n_resamples=0,
        method={"bca": "BCa"}.get(method, method),
        confidence_level=level,
        vectorized=True,
        bootstrap_result=SimpleNamespace(bootstrap_distribution=found.distribution),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert found.low < found.estimate < found.high


def test_an_interval_depends_on_seed_and_cases_alone():
    (p,) = probabilities(1, 3, (90,), batch=12)
    target, order = labels(3, (12, 90)), [5, 2, 11, 0, 1, 3, 4, 10, 9, 8, 7, 6]
    one, other = CalibrationStatistics(3), CalibrationStatistics(3)
    one.update(p, target, case_id=names(12))
    for case in order:
        part = slice(case, case + 1)
        other.update(p[part], target[part], case_id=names(12)[part])
    for reduction in ("pooled", "case"):
        first = bootstrap(one, "brier", reduction=reduction, method="bca", n_resamples=500)
        again = bootstrap(other, "brier", reduction=reduction, method="bca", n_resamples=500)
        assert (first.low, first.high, first.estimate) == (again.low, again.high, again.estimate)
        assert np.array_equal(first.distribution, again.distribution)
    assert bootstrap(one, "ece", seed=1).low != bootstrap(one, "ece", seed=2).low


def test_two_methods_are_compared_on_the_same_cases_drawn():
    first, second = cohort(), cohort(sharpness=1.4)
    found = paired_bootstrap(first, second, "ece", n_resamples=400, seed=5)
    one = bootstrap(first, "ece", n_resamples=400, seed=5)
    two = bootstrap(second, "ece", n_resamples=400, seed=5)
    np.testing.assert_array_equal(found.distribution, one.distribution - two.distribution)
    assert found.estimate == first.ece() - second.ece()
    assert found.low < found.high < 0
    # What makes a case hard cancels.
    assert found.high - found.low < (one.high - one.low) + (two.high - two.low)
    same = paired_bootstrap(first, cohort(), "brier", method="bca", n_resamples=50)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)


def test_signed_rank_is_that_of_scipy():
    first, second = cohort(), cohort(sharpness=1.2)
    for alternative in ("two-sided", "less", "greater"):
        found = wilcoxon(first, second, "brier", alternative=alternative)
        x = [first.per_case("brier")[name] for name in names(12)]
        y = [second.per_case("brier")[name] for name in names(12)]
        theirs = stats.wilcoxon(x, y, alternative=alternative)
        assert (found.statistic, found.p_value) == (theirs.statistic, theirs.pvalue)
        assert found.median_difference == np.median(np.subtract(x, y))
        assert found.n_cases == 12


def test_cases_without_a_value_are_left_out():
    """Dice of a class that two of three cases lack."""
    p = torch.tensor([[[0.9, 0.2], [0.1, 0.8]]] * 3, dtype=torch.float64)
    p[1:] = torch.tensor([[0.9], [0.1]])
    statistics = CalibrationStatistics(2)
    statistics.update(p, torch.tensor([[0, 1], [0, 0], [0, 0]]), case_id=[1, 2, 3])
    second = Measure("dice", class_index=1)
    found = bootstrap(statistics, second, reduction="case", n_resamples=200)
    assert (found.estimate, found.low, found.high) == (1, 1, 1)
    # 8 of 27 draws hold none of the one case that has it.
    assert np.isnan(found.distribution).mean() == pytest.approx(8 / 27, abs=0.1)
    same = wilcoxon(statistics, statistics, second)
    assert (same.n_cases, same.p_value, same.median_difference) == (1, 1, 0)


@given(
    large=st.sampled_from([1, 2**20, 2**43, 2**50, 2**55]),
    n_cases=st.sampled_from([2, 17, 300]),
    seed=st.integers(0, 99),
)
def test_sums_of_resamples_are_exact_for_words_of_any_size(large, n_cases, seed):
    random = np.random.default_rng(seed)
    counts = random.multinomial(n_cases, np.full(n_cases, 1 / n_cases), size=5)
    rows = random.integers(0, large + 1, size=(n_cases, 4))
    want = [
        [sum(m * int(x) for m, x in zip(ms, column, strict=True)) for column in rows.T]
        for ms in counts.tolist()
    ]
    assert weighted_sum(counts.astype(float), rows).tolist() == want


def test_sums_of_very_many_cases_are_exact_too():
    rows = np.full((70_000, 1), 2**44 + 1, np.int64)
    assert weighted_sum(np.ones((1, 70_000)), rows).item() == 70_000 * (2**44 + 1)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40), st.randoms())
def test_means_of_resamples_do_not_depend_on_the_order_of_cases(found, random):
    values = np.array(found)
    counts = np.array([[random.randrange(4) for _ in found] for _ in range(3)], dtype=float)
    counts[:, 0] += 1
    mean = weighted_mean(counts, values)
    order = random.sample(range(len(found)), len(found))
    assert np.array_equal(weighted_mean(counts[:, order], values[order]), mean)
    for weights, one in zip(counts, mean, strict=True):
        want = math.fsum(weights * values) / weights.sum()
        assert one == pytest.approx(want, rel=1e-14, abs=1e-9 * 2**-20)


def test_an_interval_needs_cases():
    (p,), target = probabilities(1, 3, (20,)), labels(3, (2, 20))
    pooled = CalibrationStatistics(3)
    pooled.update(p, target)
    with pytest.raises(ValueError, match="case_id must be given with every update"):
        bootstrap(pooled, "ece")
    pooled.update(p, target, case_id=["a", "b"])
    with pytest.raises(ValueError, match="got 40 of 80 voxels without"):
        bootstrap(pooled, "ece")
    with pytest.raises(ValueError, match="statistics must hold at least 2 cases, got 1"):
        bootstrap(cohort(1), "ece")
    with pytest.raises(ValueError, match="same cases, got '02' in only one of them"):
        paired_bootstrap(cohort(3), cohort(2), "ece")
    with pytest.raises(ValueError, match="same cases, got '02' in only one of them"):
        wilcoxon(cohort(3), cohort(2), "ece")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": "mean"}, "reduction"),
        ({"method": "BCa"}, "method"),
        ({"level": 95}, "level"),
        ({"n_resamples": 0}, "n_resamples"),
        ({"measure": "ese"}, "measure"),
    ],
    ids=str,
)
def test_bad_options_of_an_interval_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap(cohort(3), **options)
