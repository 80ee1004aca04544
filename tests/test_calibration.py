"""Calibration statistics: golden numbers, exact counts, the peers' values, same bits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import oracle
import pytest
import torch
from engines import ENGINES, on_every_engine, using
from hypothesis import given
from hypothesis import strategies as st
from members import DTYPES, arranged, exact, labels, logits, pairwise, probabilities
from torch import Tensor

import fastcal
from fastcal import CalibrationStatistics

pytestmark = pytest.mark.filterwarnings("ignore:.*do not sum to 1")  # rounded to bfloat16


def counted(probs: Tensor, target: Tensor, **options: object) -> CalibrationStatistics:
    """Statistics of one volume."""
    keep = {k: options.pop(k) for k in ("mask", "ignore_index", "case_id") if k in options}
    statistics = CalibrationStatistics(probs.shape[1], **options)
    statistics.update(probs, target, **keep)
    return statistics


def assert_same_state(a: CalibrationStatistics, b: CalibrationStatistics) -> None:
    left, right = a.state_dict(), b.state_dict()
    assert left.keys() == right.keys()
    for key, value in left.items():
        same = torch.equal(value, right[key]) if torch.is_tensor(value) else value == right[key]
        assert same, key


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


def assert_scores_match(
    got: CalibrationStatistics, want: oracle.OracleScores, *, exact_input: bool, dice: bool = True
) -> None:
    """Counts exact, calibration 1e-12; Brier and NLL 1e-12, or 1e-6 relative + 1e-7 in float32."""
    assert got.n_voxels == want.n_voxels
    binary = len(want.classwise) == 1
    curves = [] if binary else [(got.reliability(), want.top_label)]
    curves += [(got.reliability(class_index=k), bins) for k, bins in enumerate(want.classwise)]
    for curve, bins in curves:
        np.testing.assert_array_equal(curve.count, bins.count)
        with np.errstate(invalid="ignore"):
            accuracy, confidence = bins.hits / bins.count, bins.confidence_sum / bins.count
        np.testing.assert_allclose(curve.accuracy, accuracy, rtol=0, atol=1e-15)
        np.testing.assert_allclose(curve.mean_confidence, confidence, rtol=0, atol=1e-12)
    for norm in ("l1", "l2", "max"):
        ece = got.ece(norm=norm, kind="top-label")
        assert ece == pytest.approx(want.top_label.ece(norm), abs=1e-12, nan_ok=True)
    np.testing.assert_allclose(got.classwise_ece(), want.classwise_ece, rtol=0, atol=1e-12)
    near = {"abs": 1e-12, "rel": 0} if exact_input else {"abs": 1e-7, "rel": 1e-6}
    assert got.brier() == pytest.approx(want.brier, nan_ok=True, **near)
    assert got.nll() == pytest.approx(want.nll, nan_ok=True, **near)
    assert got.accuracy() == pytest.approx(want.accuracy, abs=1e-12, nan_ok=True)
    if dice:
        np.testing.assert_allclose(got.dice(), want.dice, rtol=0, atol=1e-12)


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
    np.testing.assert_allclose(got.dice(), f1_score(truth, label, average=None), atol=1e-12)


# Same bits, however the voxels arrive


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n_classes", [1, 2, 4, 21])
def test_equal_probabilities_give_equal_integers_on_every_engine(dtype, n_classes):
    (p,) = probabilities(1, n_classes, (2000,), dtype=dtype, exclusive=n_classes > 1, seed=5)
    p[:, :, ::7] = p[:, :, :1]
    target = labels(max(n_classes, 2), (2, 2000))
    results = []
    for chosen in ENGINES:
        with using(chosen):
            results.append(counted(p, target))
    for result in results[1:]:
        assert_same_state(result, results[0])


@on_every_engine
@given(st.lists(st.integers(0, 3000), max_size=4), st.permutations(range(5)))
def test_chunks_in_any_order_give_the_same_bits(cuts, order):
    (p,) = probabilities(1, 3, (3000,), batch=1)
    target = labels(3, (1, 3000))
    whole = counted(p, target)
    bounds = [0, *sorted(cuts), 3000]
    pieces = list(itertools.pairwise(bounds))
    updated, merged = CalibrationStatistics(3), CalibrationStatistics(3)
    for i in (i for i in order if i < len(pieces)):
        start, stop = pieces[i]
        updated.update(p[..., start:stop], target[:, start:stop])
        merged.merge(counted(p[..., start:stop], target[:, start:stop]))
    assert_same_state(updated, whole)
    assert_same_state(merged, whole)


@pytest.fixture
def thread_counts() -> Iterator[tuple[int, ...]]:
    before = torch.get_num_threads()
    yield 1, 2, 5
    torch.set_num_threads(before)


@on_every_engine
def test_the_number_of_threads_changes_no_bit(thread_counts):
    (p,), target = probabilities(1, 4, (10, 900)), labels(4, (2, 10, 900))
    states = []
    for n_threads in thread_counts:
        torch.set_num_threads(n_threads)
        states.append(counted(p, target))
    for state in states[1:]:
        assert_same_state(state, states[0])


@on_every_engine
def test_threads_and_chunks_change_no_bit_of_statistics_from_logits(thread_counts):
    members, target = logits(3, 4, (10, 1500)), labels(4, (2, 10, 1500))
    states = []
    for n_threads in thread_counts:
        torch.set_num_threads(n_threads)
        states.append(fastcal.ensemble_statistics(members, target).calibration)
    split = CalibrationStatistics(4)
    for i in range(10):
        part = [m[:, :, i] for m in members]
        split.merge(fastcal.ensemble_statistics(part, target[:, i]).calibration)
    for state in [*states[1:], split]:
        assert_same_state(state, states[0])


@on_every_engine
def test_plus_adds_without_touching_its_operands():
    (p, q), target = probabilities(2, 3, (40,)), labels(3, (2, 40))
    a, b = counted(p, target), counted(q, target)
    total = a + b
    assert total.n_voxels == 160
    assert a.n_voxels == b.n_voxels == 80
    assert_same_state(a, counted(p, target))
    assert_same_state(total, b + a)
    a.merge(b)
    assert_same_state(a, total)


def test_sum_adds_a_list_of_statistics():
    parts = [CalibrationStatistics(2) for _ in range(3)]
    for part in parts:
        part.update(torch.tensor([[0.75, 0.25]]), torch.tensor([0]))
    assert sum(parts) == parts[0] + parts[1] + parts[2]
    with pytest.raises(TypeError, match="unsupported operand"):
        1 + parts[0]


@pytest.mark.parametrize(
    "other",
    [{"num_classes": 4}, {"n_bins": 10}, {"closed": "left"}, {"calibration": "classwise"}],
    ids=str,
)
def test_statistics_of_another_kind_are_not_merged(other):
    options = {"num_classes": 3, **other}
    with pytest.raises(ValueError, match=next(iter(other))):
        CalibrationStatistics(3).merge(CalibrationStatistics(**options))


@on_every_engine
def test_saved_statistics_come_back_with_every_bit(tmp_path):
    (p,), target = probabilities(1, 3, (4, 40)), labels(3, (2, 4, 40))
    statistics = counted(p, target, case_id=["a", "b"], n_bins=7, closed="left")
    path = tmp_path / "state.npz"
    statistics.save(path)
    loaded = CalibrationStatistics.load(path)
    assert_same_state(loaded, statistics)
    assert loaded.ece(reduction="case") == statistics.ece(reduction="case")
    assert list(tmp_path.iterdir()) == [path]
    again = CalibrationStatistics(3, n_bins=7, closed="left")
    again.load_state_dict(statistics.state_dict())
    again.update(p, target)
    assert again.n_voxels == 2 * statistics.n_voxels


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
        wanted = (np.asarray(getattr(a, name)()) + np.asarray(getattr(b, name)())) / 2
        np.testing.assert_allclose(getattr(got, name)(reduction="case"), wanted, atol=1e-14)


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
    with pytest.raises(ValueError, match="1 of 2 voxels came without"):
        statistics.brier("case")


@on_every_engine
def test_case_ids_are_counted():
    (p,), target = probabilities(1, 3, (20,)), labels(3, (2, 20))
    with pytest.raises(ValueError, match=r"case_id.*3.*2|case_id.*2.*3"):
        counted(p, target, case_id=["a", "b", "c"])


# What is left out


@on_every_engine
@pytest.mark.parametrize("layout", ["contiguous", "strided"])
@pytest.mark.parametrize("ignore", [None, 2, -1, 255])
@pytest.mark.parametrize("masked", [False, True])
def test_ignored_and_masked_voxels_leave_every_number(layout, ignore, masked):
    (p,), target = probabilities(1, 3, (7, 60)), labels(3, (2, 7, 60))
    if ignore is not None:
        target[:, ::3] = ignore
    mask = (labels(4, (2, 7, 60), seed=1) > 0) if masked else None
    want = oracle.scores(
        exact(p),
        target.numpy(),
        edges=oracle.edges(15),
        ignore_index=ignore,
        mask=None if mask is None else mask.numpy(),
    )
    if mask is not None and layout == "strided":
        mask = arranged(mask[:, None].double(), "strided")[:, 0].bool()
        mask = mask.transpose(1, 2).contiguous().transpose(1, 2)
    got = counted(arranged(p, layout), target, mask=mask, ignore_index=ignore)
    assert_scores_match(got, want, exact_input=False)


@on_every_engine
def test_nothing_left_gives_nan_not_zero():
    (p,), target = probabilities(1, 3, (7,)), torch.full((2, 7), 255)
    got = counted(p, target, ignore_index=255)
    assert got.n_voxels == 0
    assert all(math.isnan(v) for v in (got.ece(), got.brier(), got.nll(), got.accuracy()))
    assert np.isnan(got.classwise_ece()).all()
    assert np.isnan(got.dice()).all()
    assert np.isnan(got.reliability().mean_confidence).all()


@on_every_engine
def test_an_absent_class_has_no_dice_and_the_others_keep_theirs():
    p = torch.tensor([[[0.9, 0.1], [0.1, 0.9], [0.0, 0.0]]])
    dice = np.asarray(counted(p, torch.tensor([[0, 1]])).dice())
    np.testing.assert_array_equal(dice, [1, 1, np.nan])


@on_every_engine
@pytest.mark.parametrize(("value", "count"), [(7, 3), (-2, 1)])
def test_targets_outside_the_classes_say_how_many_and_which(value, count):
    (p,), target = probabilities(1, 3, (50,)), labels(3, (2, 50))
    target[0, 5 : 5 + count] = value
    statistics = CalibrationStatistics(3)
    with pytest.raises(ValueError, match=rf"(?s)\b{count}\b.*{value}|{value}.*\b{count}\b"):
        statistics.update(p, target)


@on_every_engine
def test_an_update_that_fails_leaves_the_statistics_as_they_were():
    (p,), target = probabilities(1, 3, (50,)), labels(3, (2, 50))
    statistics = counted(p, target)
    wrong = target.clone()
    wrong[0, 0] = 9
    with pytest.raises(ValueError):
        statistics.update(p, wrong)
    assert_same_state(statistics, counted(p, target))


@on_every_engine
def test_unnormalised_probabilities_are_used_as_they_are_after_a_warning():
    p = torch.full((1, 2, 4), 0.3)
    p[0, 0] = 0.4
    target = torch.tensor([[0, 0, 0, 1]])
    with pytest.warns(UserWarning, match="sum"):
        got = counted(p, target)
    assert got.reliability().mean_confidence[5] == pytest.approx(0.4, abs=1e-7)


@on_every_engine
def test_modes_keep_only_what_they_count():
    (p,), target = probabilities(1, 3, (50,)), labels(3, (2, 50))
    both = counted(p, target)
    top, classwise = (
        counted(p, target, calibration="top-label"),
        counted(p, target, calibration="classwise"),
    )
    assert top.ece() == both.ece()
    np.testing.assert_array_equal(classwise.classwise_ece(), both.classwise_ece())
    assert top.brier() == classwise.brier() == both.brier()
    with pytest.raises(ValueError, match="classwise"):
        top.classwise_ece()
    with pytest.raises(ValueError, match="top-label"):
        classwise.ece()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes"),
        ({"n_bins": 0}, "n_bins"),
        ({"closed": "both"}, "closed"),
        ({"calibration": "top"}, "calibration"),
    ],
    ids=str,
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        CalibrationStatistics(**{"num_classes": 3, **options})


@pytest.mark.parametrize(
    ("probs", "target", "message"),
    [
        (torch.zeros(1, 4, 5), torch.zeros(1, 5, dtype=torch.int64), "class"),
        (torch.zeros(1, 3, 5), torch.zeros(1, 6, dtype=torch.int64), "target"),
        (torch.zeros(1, 3, 5), torch.zeros(1, 5), "target"),
        (torch.zeros(1, 3, 5, dtype=torch.int64), torch.zeros(1, 5, dtype=torch.int64), "probs"),
    ],
    ids=["classes", "shape", "float target", "integer probs"],
)
def test_bad_arguments_of_update_are_refused_by_name(probs, target, message):
    with pytest.raises((TypeError, ValueError), match=message):
        CalibrationStatistics(3).update(probs, target)


@on_every_engine
def test_a_bad_norm_or_reduction_is_refused_by_name():
    (p,), target = probabilities(1, 3, (20,)), labels(3, (2, 20))
    statistics = counted(p, target)
    with pytest.raises(ValueError, match="norm"):
        statistics.ece(norm="l3")
    with pytest.raises(ValueError, match="reduction"):
        statistics.brier(reduction="mean")
    with pytest.raises((IndexError, ValueError), match="class_index"):
        statistics.reliability(class_index=3)


@given(st.data())
def test_every_engine_counts_awkward_probabilities_alike(data):
    """NaN, numbers out of range, ignored and masked voxels, all options: the same integers."""
    draw = data.draw
    dtype = draw(st.sampled_from(DTYPES))
    n_classes = draw(st.sampled_from([1, 2, 3, 5, 16, 19, 40]))
    multilabel = n_classes == 1 or draw(st.booleans())
    size = draw(st.sampled_from([1, 17, 65, 300, 1100]))
    seed = draw(st.integers(0, 2**31))
    layout = draw(st.sampled_from(["contiguous", "channels_last", "strided"]))
    (p,) = probabilities(
        1, n_classes, (size,), dtype=dtype, exclusive=not multilabel, seed=seed, scale=4
    )
    random = np.random.default_rng(seed)
    values = torch.tensor([math.nan, math.inf, -5e-4, -0.5, 1.0005, 1.5, 0.0, -0.0, 1.0]).to(dtype)
    for _ in range(draw(st.integers(0, 12))):
        where = random.integers(2), random.integers(n_classes), random.integers(size)
        p[where] = values[random.integers(len(values))]
    target = labels(2, p.shape, seed=seed) if multilabel else labels(n_classes, (2, size))
    ignore_index = draw(st.sampled_from([None, 0, 255]))
    if ignore_index == 255:
        target[..., ::5] = 255
    mask = labels(5, (2, size), seed=seed) > 0 if draw(st.booleans()) else None
    normalise = not multilabel and draw(st.booleans())
    options = {
        "n_bins": draw(st.sampled_from([1, 2, 10, 15, 33])),
        "closed": draw(st.sampled_from(["right", "left"])),
        "calibration": draw(st.sampled_from(["both", "top-label", "classwise"])),
        "eps": draw(st.sampled_from([None, 1e-3])),
        "multilabel": multilabel,
    }
    states = []
    for chosen in ENGINES:
        with using(chosen):
            states.append(CalibrationStatistics(n_classes, **options))
            states[-1].update(
                arranged(p, layout),
                target,
                mask=mask,
                ignore_index=ignore_index,
                case_id=["a", "b"],
                normalise=normalise,
                nan_policy="omit",
            )
    for state in states[1:]:
        assert_same_state(state, states[0])


@on_every_engine
def test_normalised_probabilities_are_divided_by_their_sum():
    (p,), target = probabilities(1, 4, (90,), dtype=torch.float64), labels(4, (2, 90))
    scale = 0.5 + torch.rand(2, 1, 90, generator=torch.Generator().manual_seed(0)) / 3
    statistics = CalibrationStatistics(4)
    statistics.update(p * scale, target, normalise=True)
    scaled = (p * scale) / (p * scale).sum(1, keepdim=True)
    want = oracle.scores(
        exact(scaled),
        target.numpy(),
        edges=oracle.edges(15, np.float64),
        eps=float(np.finfo(np.float64).tiny),
    )
    assert_scores_match(statistics, want, exact_input=True)


@on_every_engine
def test_a_voxel_with_one_ignored_class_is_left_out_whole_when_multilabel():
    (p,), y = (
        probabilities(1, 3, (80,), dtype=torch.float64, exclusive=False),
        labels(2, (2, 3, 80)),
    )
    y[0, 1, ::4] = 255
    got = counted(p, y, multilabel=True, ignore_index=255)
    want = oracle.scores(
        exact(p),
        y.numpy(),
        edges=oracle.edges(15, np.float64),
        multilabel=True,
        ignore_index=255,
        eps=float(np.finfo(np.float64).tiny),
    )
    assert got.n_voxels == 140
    assert_scores_match(got, want, exact_input=True)


@on_every_engine
def test_probabilities_a_rounding_below_zero_count_as_in_the_reference():
    p = probabilities(1, 4, (3000,))[0].clone()
    p[0, 1, 100:200] = -5e-4  # counts as 0, but not where the block is read in place
    p[1, 2, 5] = -2e-3  # is no probability
    p[0, 0, 7] = math.nan
    target = labels(4, (2, 3000))

    def count() -> CalibrationStatistics:
        statistics = CalibrationStatistics(4)
        statistics.update(p, target, nan_policy="omit")
        return statistics

    with fastcal.backend("reference"):
        expected = count()
    found = count()
    assert found.n_invalid == 2
    assert_same_state(found, expected)
