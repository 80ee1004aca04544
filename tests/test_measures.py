"""Metrics read from the integers: average and debiased errors, volumes, Brier's parts, cases."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from engines import on_every_engine
from hypothesis import given
from hypothesis import strategies as st
from members import exact, labels, probabilities

from fastcal import CalibrationStatistics
from fastcal.calibration import Measure


def counted(n_classes: int, seed: int = 0, **options: object) -> tuple:
    """Statistics, probabilities ``[4, C, 300]`` and targets of four cases."""
    (p,) = probabilities(1, n_classes, (300,), dtype=torch.float64, batch=4, seed=seed)
    p = p / p.sum(1, keepdim=True) if n_classes > 1 else p * 0.7
    target = labels(max(n_classes, 2), (4, 300), seed=seed)
    statistics = CalibrationStatistics(n_classes, **options)
    statistics.update(p, target, case_id=["a", "b", "c", "d"])
    return statistics, exact(p), target.numpy()


def one_hot(target: np.ndarray, n_classes: int) -> np.ndarray:
    if n_classes == 1:
        return target[:, None].astype(float)
    return (target[:, None] == np.arange(n_classes)[:, None]).astype(float)


def gaps(p: np.ndarray, y: np.ndarray, n_bins: int) -> tuple[np.ndarray, ...]:
    """Counts, accuracies and mean confidences of the bins (lo, hi] that hold something."""
    cell = np.searchsorted(np.linspace(0, 1, n_bins + 1)[1:-1], p)
    filled = np.unique(cell)
    return tuple(
        np.array([f(cell == b) for b in filled])
        for f in (np.sum, lambda at: y[at].mean(), lambda at: p[at].mean())
    )


@given(seed=st.integers(0, 99), n_bins=st.sampled_from([1, 7, 15]))
def test_average_error_is_the_mean_gap_of_the_bins_that_hold_something(seed, n_bins):
    got, p, target = counted(3, seed, n_bins=n_bins)
    confidence, correct = p.max(1).ravel(), (p.argmax(1) == target).ravel()
    _, accuracy, mean = gaps(confidence, correct, n_bins)
    assert got.ace() == pytest.approx(np.abs(accuracy - mean).mean(), abs=1e-12)
    for k, error in enumerate(got.classwise_ace()):
        _, accuracy, mean = gaps(p[:, k].ravel(), (target == k).ravel(), n_bins)
        assert error == pytest.approx(np.abs(accuracy - mean).mean(), abs=1e-12)


@given(seed=st.integers(0, 99), n_bins=st.sampled_from([1, 7, 15, 200]))
def test_debiased_error_subtracts_the_variance_of_each_bins_accuracy(seed, n_bins):
    """The formula of Kumar et al. (2019), bins of one sample left out."""
    got, p, target = counted(3, seed, n_bins=n_bins)
    n, accuracy, mean = gaps(p.max(1).ravel(), (p.argmax(1) == target).ravel(), n_bins)
    several = n > 1
    n, accuracy, mean = n[several], accuracy[several], mean[several]
    square = ((accuracy - mean) ** 2 - accuracy * (1 - accuracy) / (n - 1)) * n / 1200
    want = math.sqrt(max(0.0, square.sum()))
    assert got.ece("l2", debias=True) == pytest.approx(want, abs=1e-9)
    assert got.ece("l2", debias=True) <= got.ece("l2")


def test_debiasing_removes_what_few_samples_a_bin_add():
    """Perfectly calibrated by construction; the plain error of 20 samples a bin is all noise."""
    random = np.random.default_rng(0)
    p = random.random((200, 300))
    y = random.random((200, 300)) < p
    plain, debiased = [], []
    for case in range(200):
        statistics = CalibrationStatistics(1)
        statistics.update(p[case][None], y[case][None])
        plain.append(statistics.ece("l2") ** 2)
        debiased.append(statistics.ece("l2", debias=True) ** 2)
    assert np.mean(plain) > 4 * np.mean(debiased)


def test_small_bins_are_left_out_of_the_error_but_not_of_the_total():
    got, p, target = counted(3, n_bins=15)
    n, accuracy, mean = gaps(p.max(1).ravel(), (p.argmax(1) == target).ravel(), 15)
    threshold = int(np.median(n))
    kept = n > threshold
    assert 0 < kept.sum() < len(n)
    want = (np.abs(accuracy - mean) * n)[kept].sum() / n.sum()
    assert got.ece(min_count=threshold) == pytest.approx(want, abs=1e-12)
    want = np.abs(accuracy - mean)[kept].max()
    assert got.ece("max", min_count=threshold) == pytest.approx(want, abs=1e-12)
    assert got.ece(min_count=10_000) == 0
    assert math.isnan(got.ece("max", min_count=10_000))


@on_every_engine
@pytest.mark.parametrize("n_classes", [1, 2, 5])
def test_volume_bias_is_soft_volume_less_reference_volume(n_classes):
    got, p, target = counted(n_classes)
    bias = (p - one_hot(target, n_classes)).sum(axis=2)
    np.testing.assert_allclose(got.volume_bias(), bias.sum(0), rtol=0, atol=1e-9)
    np.testing.assert_allclose(got.volume_bias("case"), bias.mean(0), rtol=0, atol=1e-9)
    assert got.per_case(Measure("volume_bias", class_index=0))["b"] == pytest.approx(bias[1, 0])


@given(
    n_classes=st.sampled_from([1, 2, 4]), seed=st.integers(0, 99), n_bins=st.sampled_from([1, 10])
)
def test_brier_score_is_the_sum_of_its_parts(n_classes, seed, n_bins):
    got, p, target = counted(n_classes, seed, n_bins=n_bins)
    parts = got.brier_decomposition()
    assert parts.brier == got.brier()
    y = one_hot(target, n_classes)
    reliability = resolution = uncertainty = within = 0.0
    for k in range(n_classes):
        x, t = p[:, k].ravel(), y[:, k].ravel()
        cell = np.searchsorted(np.linspace(0, 1, n_bins + 1)[1:-1], x)
        uncertainty += t.mean() * (1 - t.mean())
        for b in np.unique(cell):
            at = cell == b
            dx, dt = x[at] - x[at].mean(), t[at] - t[at].mean()
            reliability += at.mean() * (x[at].mean() - t[at].mean()) ** 2
            resolution += at.mean() * (t[at].mean() - t.mean()) ** 2
            within += at.mean() * (dx**2 - 2 * dx * dt).mean()
    got_parts = (parts.reliability, parts.resolution, parts.uncertainty, parts.within_bins)
    wanted = (reliability, resolution, uncertainty, within)
    assert got_parts == pytest.approx(wanted, abs=1e-11)
    total = parts.reliability - parts.resolution + parts.uncertainty + parts.within_bins
    assert total == pytest.approx(parts.brier, abs=1e-15)


def test_values_by_case_are_those_of_each_case_alone():
    got, _, _ = counted(3)
    for measure in (
        "ece",
        "brier",
        Measure("ece", "l2", debias=True),
        Measure("classwise_ece", class_index=2),
        Measure("dice"),
    ):
        values = got.per_case(measure)
        assert list(values) == ["a", "b", "c", "d"]
        assert values["c"] == got.case("c").per_case(measure)["c"]
    assert got.per_case("ece")["b"] == got.case("b").ece()
    assert got.per_case("dice")["b"] == pytest.approx(got.case("b").dice(), abs=1e-15)
    assert (
        got.per_case(Measure("classwise_ece", class_index=2))["d"]
        == (got.case("d").classwise_ece()[2])
    )


def test_the_second_of_two_classes_can_be_the_positive_one():
    got, p, target = counted(2)
    binary = CalibrationStatistics(1)
    binary.update(p[:, 1], target)
    assert got.ece(kind="positive") == binary.ece() == got.classwise_ece()[1]
    with pytest.raises(
        ValueError, match="kind must be 'top-label' for more than two classes, got 'positive'"
    ):
        counted(3)[0].ece(kind="positive")


def test_nothing_counted_gives_nan_in_every_measure():
    empty = CalibrationStatistics(3)
    assert math.isnan(empty.ace())
    assert math.isnan(empty.ece("l2", debias=True))
    assert math.isnan(empty.brier_decomposition().reliability)
    assert np.isnan(empty.volume_bias()).all()


def test_measures_need_the_bins_they_read():
    top, _, _ = counted(3, calibration="top-label")
    for read in (top.volume_bias, top.brier_decomposition, top.classwise_ace):
        with pytest.raises(ValueError, match="classwise bins were not kept"):
            read()
    assert top.ece("l2", debias=True) >= 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "ese"}, r"measure must be one of .*got 'ese'"),
        ({"norm": "l3"}, r"norm must be one of .*got 'l3'"),
        ({"debias": True}, "norm must be 'l2' for debias=True, got 'l1'"),
        ({"min_count": -1}, "min_count must be at least 0, got -1"),
        ({"kind": "negative"}, "kind must be one of .* or None, got 'negative'"),
        ({"class_index": 1}, "class_index must be None for 'ece', which does not have it, got 1"),
        ({"name": "nll", "norm": "max"}, "norm must be 'l1' for 'nll', .*got 'max'"),
        ({"name": "auroc", "threshold": 0.1}, "threshold must be None for 'auroc'"),
    ],
    ids=str,
)
def test_a_measure_that_is_none_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        Measure(**options)


def test_the_mean_over_millions_of_voxels_is_rounded_once():
    """A sum of 2^40 ths over 3 * 10^6 voxels, against the rational number."""
    p = torch.full((1, 3_000_000), 1 / 3, dtype=torch.float64)
    statistics = CalibrationStatistics(1, n_bins=1)
    statistics.update(p, torch.zeros(1, 3_000_000, dtype=torch.uint8))
    kept = Fraction(round(Fraction(1 / 3) * 2**40), 2**40)
    assert statistics.ece() == float(kept)
    assert statistics.volume_bias()[0] == float(kept * 3_000_000)


@pytest.mark.parametrize(("n_voxels", "theirs"), [(9_000_000, 0.0422), (18_000_000, 0.0)])
def test_float32_sums_of_torchmetrics_lose_what_fastcal_keeps(n_voxels, theirs):
    """Confidences even in [.95, 1), true ECE .0200; float32 stops counting at 2^24."""
    from torchmetrics.functional.classification.calibration_error import _ce_compute

    n_rows = n_voxels // 1_000_000
    confidence = (0.95 + 0.05 * (torch.arange(1_000_000, dtype=torch.float64) + 0.5) / 1e6).float()
    hit = (torch.arange(1_000_000) * 7919 % 1000 < 955).float()
    error = _ce_compute(confidence.repeat(n_rows), hit.repeat(n_rows), 15)
    assert error.item() == pytest.approx(theirs, abs=2e-3)
    statistics = CalibrationStatistics.preset("torchmetrics", 1)
    statistics.update(confidence.expand(n_rows, -1), hit.byte().expand(n_rows, -1))
    assert statistics.ece() == pytest.approx(0.0200, abs=1e-6)
