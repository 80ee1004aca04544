"""Calibration statistics: golden numbers, the oracle's and the peers' values, cases."""

from __future__ import annotations

import math

import numpy as np
import oracle
import pytest
import torch
from counted import assert_same_state, assert_scores_match, counted
from engines import on_every_engine
from members import DTYPES, arranged, exact, labels, logits, pairwise, probabilities
from torch import Tensor

import fastcal
from fastcal import CalibrationStatistics

pytestmark = pytest.mark.filterwarnings("ignore:.*do not sum to 1")  # rounded to bfloat16


def binary(values: list[float], dtype: torch.dtype = torch.float32) -> Tensor:
    """Positive-class probabilities ``[B, 1, N]``."""
    return torch.tensor(values, dtype=dtype).reshape(1, 1, -1)


# Golden numbers


@on_every_engine
@pytest.mark.parametrize(("norm", "value"), [("l1", 0.2000), ("l2", 0.2082), ("max", 0.2333)])
def test_multiclass_golden_numbers_of_torchmetrics(norm, value):
    p = torch.tensor(
        [[0.25, 0.20, 0.55], [0.55, 0.05, 0.40], [0.10, 0.30, 0.60], [0.90, 0.05, 0.05]]
    )
    statistics = counted(p.T[None], torch.tensor([[0, 1, 2, 0]]), n_bins=3)
    assert statistics.ece(norm=norm) == pytest.approx(value, abs=5e-5)


@on_every_engine
@pytest.mark.parametrize(
    ("n_bins", "ece", "mce"), [(2, 0.11, 0.12), (5, 0.32, 0.55), (10, 0.36, 0.96)]
)
def test_binary_golden_numbers_of_metricsreloaded(n_bins, ece, mce):
    p = binary([0.22, 0.48, 0.49, 0.96, 0.55, 0.64, 0.78, 0.82, 0.34, 0.87])
    y = torch.tensor([[0, 1, 0, 0, 1, 1, 1, 1, 1, 0]])
    statistics = counted(p, y, n_bins=n_bins)
    assert statistics.ece() == pytest.approx(ece, abs=5e-3)
    assert statistics.ece(norm="max") == pytest.approx(mce, abs=5e-3)
    assert statistics.classwise_ece()[0] == statistics.ece()


@on_every_engine
@pytest.mark.parametrize(("norm", "value"), [("l1", 0.2900), ("l2", 0.2918), ("max", 0.3167)])
def test_binary_golden_numbers_of_torchmetrics(norm, value):
    p, y = binary([0.25, 0.25, 0.55, 0.75, 0.75]), torch.tensor([[0, 0, 1, 1, 1]])
    assert counted(p, y, n_bins=2).ece(norm=norm) == pytest.approx(value, abs=5e-5)


@on_every_engine
def test_probability_one_lies_in_the_last_bin():
    """.475 by the textbook; torchmetrics, with a bin of its own for 1.0, says .525."""
    statistics = counted(binary([0.95, 1.0]), torch.tensor([[1, 0]]))
    assert statistics.ece() == pytest.approx(0.475, abs=1e-7)


@on_every_engine
def test_brier_golden_number_of_metricsreloaded():
    p = torch.tensor([[[0.2, 0.4], [0.8, 0.6]]], dtype=torch.float64)
    assert counted(p, torch.tensor([[1, 0]])).brier() == pytest.approx(0.4, abs=1e-12)


@pytest.mark.parametrize("n_voxels", [9_000_000, 18_000_000])
def test_ece_stays_exact_where_float32_counters_stop(n_voxels):
    """Confidences even in [.95, 1), true ECE .0200; torchmetrics says .0422 at 9 M, 0 at 18 M."""
    n_rows = n_voxels // 1_000_000
    confidence = (0.95 + 0.05 * (torch.arange(1_000_000, dtype=torch.float64) + 0.5) / 1e6).float()
    p = torch.stack([1 - confidence, confidence]).expand(n_rows, 2, -1)
    target = (torch.arange(1_000_000) * 7919 % 1000 < 955).to(torch.uint8).expand(n_rows, -1)
    got = counted(p, target, calibration="top-label")
    assert got.n_voxels == n_voxels
    assert got.ece() == pytest.approx(abs(0.955 - confidence.double().mean().item()), abs=1e-12)
    assert got.ece() == pytest.approx(0.0200, abs=1e-6)


# Against the oracle


@on_every_engine
@pytest.mark.parametrize(
    ("dtype", "n_classes", "n_bins", "closed", "layout", "target_dtype"),
    pairwise(
        DTYPES,
        (2, 4, 11, 40),
        (1, 10, 15, 40),
        ("right", "left"),
        ("contiguous", "channels_last", "strided"),
        (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    ),
    ids=str,
)
def test_scores_match_the_oracle(dtype, n_classes, n_bins, closed, layout, target_dtype):
    (p,) = probabilities(1, n_classes, (9, 71), dtype=torch.float64, seed=n_bins)
    p = (p / p.sum(1, keepdim=True)).to(dtype)
    target = labels(n_classes, (2, 9, 71)).to(target_dtype)
    got = counted(arranged(p, layout), target, n_bins=n_bins, closed=closed)
    is_64 = dtype == torch.float64
    tiny = np.finfo(np.float64 if is_64 else np.float32).tiny
    edges = oracle.edges(n_bins, np.float64 if is_64 else np.float32)
    want = oracle.scores(exact(p), target.numpy(), edges=edges, closed=closed, eps=float(tiny))
    assert_scores_match(got, want, exact_input=is_64)


@on_every_engine
@pytest.mark.parametrize("n_bins", [1, 2, 9, 15, 16, 17, 32, 33, 64, 65], ids=lambda n: f"bins{n}")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rows_have_the_bits_of_the_reference_however_values_spread(n_bins, dtype):
    """In the outer bins, between them, both in turn; as many bins as registers hold, and more."""
    (p,) = probabilities(1, 5, (2600,), dtype=torch.float64, seed=n_bins)
    saturated = (p.log() * 12).softmax(1)
    blocks = torch.arange(2600) // 130 % 2 == 0
    target = labels(5, (2, 2600), seed=n_bins)
    mask = torch.rand(2, 2600, generator=torch.Generator().manual_seed(n_bins)) < 0.9
    for values in (p, saturated, torch.where(blocks, p, saturated), p[:, :, :1].expand(p.shape)):
        for calibration in ("both", "top-label"):
            got, want = (
                CalibrationStatistics(5, n_bins, calibration=calibration) for _ in range(2)
            )
            got.update(values.to(dtype), target, mask=mask)
            with fastcal.backend("reference"):
                want.update(values.to(dtype), target, mask=mask)
            assert got == want


@on_every_engine
@pytest.mark.parametrize("closed", ["right", "left"])
@pytest.mark.parametrize("n_bins", [7, 10, 15, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_values_on_and_beside_every_edge_fall_into_the_right_bin(n_bins, closed, dtype):
    real = torch.float64 if dtype == torch.float64 else torch.float32
    edges = torch.from_numpy(np.linspace(0, 1, n_bins + 1)).to(real)
    one = torch.ones_like(edges)
    near = torch.cat([edges, torch.nextafter(edges, one), torch.nextafter(edges, -one)])
    p = near.clamp(0, 1).to(dtype)
    p = torch.stack([p, (1 - p.double()).to(dtype)])[None]
    target = labels(2, (1, p.shape[-1]))
    got = counted(p, target, n_bins=n_bins, closed=closed)
    want = oracle.scores(
        exact(p), target.numpy(), edges=exact(edges), closed=closed, eps=torch.finfo(real).tiny
    )
    for curve, bins in zip(
        [got.reliability(), got.reliability(class_index=0), got.reliability(class_index=1)],
        [want.top_label, *want.classwise],
        strict=True,
    ):
        np.testing.assert_array_equal(curve.count, bins.count)


@on_every_engine
@pytest.mark.parametrize("n_voxels", [1, 15, 16, 17, 64, 1023, 1024, 1025, 4097, 9000])
@pytest.mark.parametrize("background", [0.0, 0.6, 0.97, 1.0])
def test_scores_are_exact_at_every_skew_and_tail(n_voxels, background):
    (p,) = probabilities(1, 4, (n_voxels,), batch=1, seed=n_voxels)
    saturated = torch.rand(n_voxels, generator=torch.Generator().manual_seed(1)) < background
    p[0, :, saturated] = torch.tensor([0.99975, 0.00015, 0.0001, 0.0])[:, None]
    target = labels(4, (1, n_voxels))
    target[0, saturated & (torch.arange(n_voxels) % 9 > 0)] = 0
    want = oracle.scores(exact(p), target.numpy(), edges=oracle.edges(15))
    assert_scores_match(counted(p, target), want, exact_input=False)


@on_every_engine
def test_binary_data_is_one_class_of_its_own():
    (p,) = probabilities(1, 1, (333,), exclusive=False)
    p = (p * 2**20).round() / 2**20  # so that 1 - p is exact too
    y = labels(2, (2, 333))
    want = oracle.scores(exact(p), y[:, None].numpy(), edges=oracle.edges(15), multilabel=True)
    assert_scores_match(counted(p, y), want, exact_input=False)


@on_every_engine
@pytest.mark.parametrize("n_classes", [1, 3, 17])
def test_multilabel_statistics_match_the_oracle(n_classes):
    members = logits(3, n_classes, (121,), dtype=torch.float64)
    y = labels(2, (2, n_classes, 121))
    got = fastcal.ensemble_statistics(members, y, maps=("mean",), multilabel=True)
    want = oracle.scores(
        exact(got.mean),
        y.numpy(),
        edges=oracle.edges(15, np.float64),
        multilabel=True,
        eps=float(np.finfo(np.float64).tiny),
    )
    assert_scores_match(got.calibration, want, exact_input=True)


@on_every_engine
def test_one_pass_counts_what_an_update_with_its_mean_counts():
    members, target = logits(4, 5, (13, 99)), labels(5, (2, 13, 99))
    fused = fastcal.ensemble_statistics(members, target, maps=("mean",))
    assert_same_state(fused.calibration, counted(fused.mean, target))


@on_every_engine
def test_clipped_and_impossible_truths_cost_a_finite_nll():
    p = torch.tensor([[[0.0, 1.0, 1e-40], [1.0, 0.0, 1.0]]])
    statistics = counted(p, torch.tensor([[0, 0, 0]]))
    worst = -math.log(np.finfo(np.float32).tiny)
    assert statistics.nll() == pytest.approx(2 * worst / 3, rel=1e-6)
    assert statistics.n_clipped == 2


# Against the libraries, fed float64


@pytest.fixture(scope="module")
def sample() -> tuple[Tensor, Tensor]:
    (p,) = probabilities(1, 4, (5000,), dtype=torch.float64, batch=1, seed=3)
    drawn = torch.multinomial(p[0].T.sqrt(), 1, generator=torch.Generator().manual_seed(4))
    return p, drawn.T


@on_every_engine
@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_ece_agrees_with_torchmetrics_in_float64(sample, norm):
    from torchmetrics.functional.classification.calibration_error import _ce_compute

    p, target = sample
    confidence, label = p[0].max(0)
    hit = (label == target[0]).double()
    theirs = _ce_compute(confidence, hit, 15, norm=norm)
    assert counted(p, target, closed="left").ece(norm=norm) == pytest.approx(
        theirs.item(), abs=1e-12
    )


@on_every_engine
def test_ece_agrees_with_netcal(sample):
    from netcal.metrics import ECE

    p, target = sample
    theirs = ECE(bins=15).measure(p[0].T.numpy(), target[0].numpy())
    assert counted(p, target, closed="left").ece() == pytest.approx(theirs, abs=1e-12)


@on_every_engine
def test_reliability_and_scores_agree_with_sklearn(sample):
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import accuracy_score, f1_score, log_loss

    p, target = sample
    got = counted(p, target, n_bins=10)
    truth = target[0].numpy()
    for k in range(4):
        accuracy, confidence = calibration_curve(truth == k, p[0, k].numpy(), n_bins=10)
        curve = got.reliability(class_index=k)
        filled = curve.count > 0
        np.testing.assert_allclose(curve.accuracy[filled], accuracy, rtol=0, atol=1e-12)
        np.testing.assert_allclose(curve.mean_confidence[filled], confidence, rtol=0, atol=1e-12)
    label = p[0].argmax(0).numpy()
    assert got.nll() == pytest.approx(log_loss(truth, p[0].T.numpy()), abs=1e-12)
    assert got.accuracy() == pytest.approx(accuracy_score(truth, label), abs=1e-12)
    np.testing.assert_allclose(
        got.per_class("dice", "pooled"), f1_score(truth, label, average=None), atol=1e-12
    )


# Cases


@on_every_engine
def test_case_reduction_is_the_mean_over_cases_of_their_own_scores():
    (p,), target = probabilities(1, 3, (200,), batch=3), labels(3, (3, 200))
    got = counted(p, target, case_id=["a", "b", "a"])
    a, b = counted(p[[0, 2]], target[[0, 2]]), counted(p[[1]], target[[1]])
    for name in ("ece", "brier", "nll", "accuracy"):
        pooled, by_case = getattr(got, name)(), getattr(got, name)(reduction="case")
        assert pooled == getattr(counted(p, target), name)()
        wanted = (getattr(a, name)() + getattr(b, name)()) / 2
        assert by_case == pytest.approx(wanted, abs=1e-14)
    for name in ("dice", "classwise_ece"):
        wanted = (a.per_class(name, "pooled") + b.per_class(name, "pooled")) / 2
        np.testing.assert_allclose(got.per_class(name, "case"), wanted, atol=1e-14)


@on_every_engine
def test_case_reduction_without_case_ids_is_refused():
    (p,), target = probabilities(1, 3, (20,)), labels(3, (2, 20))
    with pytest.raises(ValueError, match="case_id"):
        counted(p, target).ece(reduction="case")


@on_every_engine
def test_case_reduction_is_refused_where_some_voxels_have_no_case():
    statistics = CalibrationStatistics(2)
    probs, target = torch.tensor([[0.75, 0.25]]), torch.tensor([0])
    statistics.update(probs, target, case_id="a")
    statistics.update(probs, target)
    with pytest.raises(ValueError, match="got 1 of 2 voxels without"):
        statistics.brier("case")


@on_every_engine
def test_case_ids_are_counted():
    (p,), target = probabilities(1, 3, (20,)), labels(3, (2, 20))
    with pytest.raises(ValueError, match=r"case_id.*3.*2|case_id.*2.*3"):
        counted(p, target, case_id=["a", "b", "c"])
