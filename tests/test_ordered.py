"""Measures in the order of the probability, against sorted samples, within the error they state."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from members import exact, labels, probabilities
from sklearn import metrics as sklearn_metrics

from fastcal import CalibrationStatistics
from fastcal.calibration import Measure, bootstrap, paired_bootstrap

RESOLUTIONS = st.sampled_from([64, 1024, 65536])


def sampled(
    n_classes: int, seed: int, fine_bins: int, **options: object
) -> tuple[CalibrationStatistics, np.ndarray, np.ndarray]:
    """Statistics of 2 x 700 voxels, their probabilities ``[n, C]`` and targets."""
    (p,) = probabilities(1, n_classes, (700,), seed=seed, scale=4.0, exclusive=n_classes > 1)
    y = (p.double().movedim(1, -1) + 0.1).flatten(0, -2)
    if n_classes == 1:
        y = torch.cat([1.1 - y, y], 1).clamp_min(0)
    target = torch.multinomial(y, 1, generator=torch.Generator().manual_seed(seed))[:, 0]
    statistics = CalibrationStatistics(n_classes, fine_bins=fine_bins, **options)
    statistics.update(p, target.reshape(2, 700), case_id=["a", "b"])
    return statistics, np.moveaxis(exact(p), 1, -1).reshape(-1, n_classes), target.numpy()


def cells(p: np.ndarray, hit: np.ndarray, fine_bins: int) -> np.ndarray:
    cell = oracle.fine_cells(p, fine_bins)
    return np.stack([np.bincount(c, minlength=fine_bins) for c in (cell, cell[hit])], 1)


def pairs_in_one_cell(p: np.ndarray, hit: np.ndarray, fine_bins: int) -> float:
    count, hits = cells(p, hit, fine_bins).T
    return float((hits * (count - hits)).sum() / (2 * hit.sum() * (~hit).sum()))


def cut_cells(p: np.ndarray, hit: np.ndarray, fine_bins: int, n_bins: int) -> float:
    """The stated error of an adaptive l1."""
    running = cells(p, hit, fine_bins)[:, 0].cumsum()
    cuts = np.cumsum([len(part) for part in np.array_split(np.arange(len(p)), n_bins)])[:-1]
    cell = np.searchsorted(running, cuts)
    through = running[cell] != cuts
    size = np.diff(running, prepend=0)[cell]
    return 8 / fine_bins + float((through * size).sum()) / (2 * len(p)) + 1e-12


@given(seed=st.integers(0, 999), fine_bins=RESOLUTIONS, n_classes=st.sampled_from([2, 4]))
def test_auroc_is_that_of_the_sorted_samples(seed, fine_bins, n_classes):
    statistics, p, y = sampled(n_classes, seed, fine_bins)
    confidence, correct = p.max(1), p.argmax(1) == y
    off = pairs_in_one_cell(confidence, correct, fine_bins)
    assert statistics.auroc() == pytest.approx(oracle.auroc(confidence, correct), abs=off + 1e-12)
    for k, got in enumerate(statistics.classwise_auroc()):
        off = pairs_in_one_cell(p[:, k], y == k, fine_bins)
        want = sklearn_metrics.roc_auc_score(y == k, p[:, k])
        assert got == pytest.approx(want, abs=off + 1e-12)


@given(seed=st.integers(0, 999), fine_bins=RESOLUTIONS)
def test_aurc_is_that_of_the_sorted_samples(seed, fine_bins):
    statistics, p, y = sampled(3, seed, fine_bins)
    confidence, wrong = p.max(1), p.argmax(1) != y
    count, errors = cells(confidence, wrong, fine_bins)[::-1].T
    kept = count.cumsum()
    off = 0.0
    for n, e, end in zip(count, errors, kept, strict=True):
        if n:
            off += e * (n - e) / n * (1 / np.arange(end - n + 1, end + 1)).sum() / len(p)
    want = oracle.aurc(confidence, wrong)
    best = oracle.aurc(-wrong.astype(float), wrong)
    assert statistics.aurc() == pytest.approx(want, abs=off + 1e-12)
    assert statistics.e_aurc() == pytest.approx(want - best, abs=off + 1e-12)


def test_aurc_and_auroc_by_hand():
    p = torch.tensor([[0.9, 0.8, 0.7, 0.6]])
    statistics = CalibrationStatistics(2, fine_bins=65536)
    statistics.update(torch.stack([p, 1 - p], 1), torch.tensor([[0, 1, 0, 0]]))
    assert statistics.aurc() == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4, abs=1e-15)
    assert statistics.e_aurc() == pytest.approx((1 / 2 + 1 / 3) / 4, abs=1e-15)
    assert statistics.auroc() == pytest.approx(1 / 3, abs=1e-15)
    curve = statistics.risk_coverage()
    np.testing.assert_allclose(curve.risk, [0, 1 / 2, 1 / 3, 1 / 4])
    np.testing.assert_allclose(curve.optimal, [0, 0, 0, 1 / 4])
    np.testing.assert_allclose(curve.confidence, [0.9, 0.8, 0.7, 0.6], atol=2**-12)
    assert (curve.confidence <= p.numpy()[0]).all()


def test_aurc_of_one_cell_and_of_many_voxels_sums_the_harmonic_series():
    """All voxels in one cell: the risk is the same at every coverage."""
    p = torch.full((1, 1, 100_000), 0.75)
    y = (torch.arange(100_000) % 4 > 0)[None].long()
    statistics = CalibrationStatistics(1, fine_bins=64)
    statistics.update(p, y)
    assert statistics.aurc() == pytest.approx(0.25, abs=1e-14)
    harmonic = (1 / np.arange(75_001, 100_001)).sum()
    best = (25_000 - 75_000 * harmonic) / 100_000
    assert statistics.e_aurc() == pytest.approx(0.25 - best, abs=1e-12)


@given(seed=st.integers(0, 999), fine_bins=RESOLUTIONS, n_bins=st.sampled_from([1, 4, 15]))
def test_adaptive_errors_are_those_of_the_sorted_samples(seed, fine_bins, n_bins):
    statistics, p, y = sampled(3, seed, fine_bins, n_bins=n_bins)
    confidence, correct = p.max(1), p.argmax(1) == y
    want = oracle.adaptive_bins(confidence, correct, n_bins).ece()
    off = cut_cells(confidence, correct, fine_bins, n_bins)
    assert statistics.adaptive_ece() == pytest.approx(want, abs=off)
    kept_means = []
    for k, got in enumerate(statistics.classwise_adaptive_ece()):
        want = oracle.adaptive_bins(p[:, k], y == k, n_bins).ece()
        assert got == pytest.approx(want, abs=cut_cells(p[:, k], y == k, fine_bins, n_bins))
        kept = oracle.fine_cells(p[:, k], fine_bins) >= oracle.fine_cells(
            np.array([0.25]), fine_bins
        )
        q, hit = p[kept, k], (y == k)[kept]
        kept_means.append(
            (oracle.adaptive_bins(q, hit, n_bins).ece(), cut_cells(q, hit, fine_bins, n_bins))
        )
    tace, off = np.mean(kept_means, axis=0)
    assert statistics.tace(threshold=0.25) == pytest.approx(tace, abs=off)


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_adaptive_norms_converge_to_the_sorted_samples(norm):
    statistics, p, y = sampled(3, 7, 1 << 17)
    want = oracle.adaptive_bins(p.max(1), p.argmax(1) == y, 15).ece(norm)
    assert statistics.adaptive_ece(norm) == pytest.approx(want, abs=6e-5)


def test_tace_leaves_out_what_lies_below_its_threshold():
    statistics, p, y = sampled(4, 3, 1 << 17, n_bins=5)
    errors = [
        oracle.adaptive_bins(p[p[:, k] > 0.1, k], (y == k)[p[:, k] > 0.1], 5).ece()
        for k in range(4)
    ]
    assert statistics.tace(0.1) == pytest.approx(np.mean(errors), abs=6e-5)
    assert statistics.tace(0.0) == pytest.approx(statistics.classwise_adaptive_ece().mean())


@given(seed=st.integers(0, 99))
def test_binary_data_are_ranked_by_the_positive_class(seed):
    statistics, p, y = sampled(1, seed, 65536)
    off = pairs_in_one_cell(p[:, 0], y == 1, 65536) + 1e-12
    assert statistics.auroc() == pytest.approx(oracle.auroc(p[:, 0], y == 1), abs=off)
    assert statistics.classwise_auroc()[0] == statistics.auroc()
    correct = (p[:, 0] > 0.5) == y
    single = p[:, 0].astype(np.float32)
    confidence = np.maximum(single, 1 - single).astype(np.float64)
    off = pairs_in_one_cell(confidence, correct, 65536) + 1e-12
    got = statistics.auroc(kind="top-label")
    assert got == pytest.approx(oracle.auroc(confidence, correct), abs=off)


def test_values_by_case_and_intervals_know_the_ordered_measures():
    statistics, _, _ = sampled(3, 1, 1024)
    other, _, _ = sampled(3, 2, 1024)
    for name in ("adaptive_ece", "auroc", "classwise_auroc", "aurc", "e_aurc", "tace"):
        by_case = statistics.per_case(name)
        alone = statistics.case("a").per_case(name)["a"]
        assert by_case["a"] == alone
        found = bootstrap(statistics, name, n_resamples=100)
        assert found.low <= found.estimate <= found.high
        assert len(paired_bootstrap(statistics, other, name, n_resamples=10).distribution) == 10
    assert statistics.aurc(reduction="case") == np.mean(list(statistics.per_case("aurc").values()))
    measure = Measure("classwise_auroc", class_index=2)
    assert bootstrap(statistics, measure, n_resamples=9).estimate == statistics.classwise_auroc()[2]


@given(seed=st.integers(0, 99), n_classes=st.sampled_from([1, 2, 4]))
def test_moments_split_what_the_bins_cannot_see(seed, n_classes):
    statistics, p, y = sampled(n_classes, seed, 64, n_bins=4, moments=True)
    parts = statistics.brier_decomposition()
    truth = y[:, None] == (np.arange(n_classes) if n_classes > 1 else 1)
    variance = covariance = 0.0
    for k in range(n_classes):
        cell = np.searchsorted(oracle.edges(4)[1:-1], p[:, k])
        for b in np.unique(cell):
            q, hit = p[cell == b, k], truth[cell == b, k].astype(float)
            variance += ((q - q.mean()) ** 2).sum() / len(p)
            covariance += 2 * ((q - q.mean()) * (hit - hit.mean())).sum() / len(p)
    assert parts.within_variance == pytest.approx(variance, abs=1e-10)
    assert parts.within_covariance == pytest.approx(covariance, abs=1e-10)
    assert parts.within_variance - parts.within_covariance == pytest.approx(
        parts.within_bins, abs=2e-7
    )


def test_histograms_of_right_and_wrong_voxels():
    statistics, p, y = sampled(3, 5, 1024, entropy_bins=6)
    confidence, correct = p.max(1), p.argmax(1) == y
    bins = oracle.histogram(confidence, correct, oracle.edges(15))
    found = statistics.confidence_histogram()
    np.testing.assert_array_equal(found.right, bins.hits)
    np.testing.assert_array_equal(found.wrong, bins.count - bins.hits)
    fine = statistics.confidence_histogram(fine=True)
    assert len(fine.edges) == 1025
    np.testing.assert_array_equal(np.stack([fine.right, fine.right + fine.wrong])[::-1].T,
                                  cells(confidence, correct, 1024))  # fmt: skip
    entropy = -oracle.p_ln_p(p).sum(1)
    found = statistics.entropy_histogram()
    for got, which in ((found.right, correct), (found.wrong, ~correct)):
        np.testing.assert_array_equal(got, np.histogram(entropy[which], found.edges)[0])


def test_the_state_does_not_grow_with_the_volumes():
    statistics = CalibrationStatistics(3, fine_bins=1024)
    (p,), y = probabilities(1, 3, (50,)), labels(3, (2, 50))
    for _ in range(3):
        statistics.update(p, y)
        assert statistics.state.totals.nbytes == statistics.state.layout.words * 8


def test_what_was_not_kept_is_told():
    plain = CalibrationStatistics(3)
    for name in ("adaptive_ece", "classwise_adaptive_ece", "tace", "auroc", "aurc", "e_aurc"):
        with pytest.raises(ValueError, match=r"fine_bins must be set .*got 0"):
            getattr(plain, name)()
    with pytest.raises(ValueError, match="fine_bins must be set"):
        plain.risk_coverage()
    with pytest.raises(ValueError, match=r"entropy_bins must be set .*got 0"):
        plain.entropy_histogram()
    with pytest.raises(ValueError, match=r"calibration must be .*got 'classwise'"):
        CalibrationStatistics(3, calibration="classwise", fine_bins=64).aurc()
    with pytest.raises(ValueError, match="threshold must be None for 'ece'"):
        Measure("ece", threshold=0.1)
    empty = CalibrationStatistics(3, fine_bins=64)
    assert np.isnan([empty.auroc(), empty.aurc(), empty.e_aurc(), empty.adaptive_ece()]).all()
    assert empty.risk_coverage().coverage.size == 0
