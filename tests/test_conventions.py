"""Presets: the numbers of other libraries, edges, zeros and ones included."""

from __future__ import annotations

import math
import platform
import sys

import numpy as np
import pytest
import torch
from engines import on_every_engine
from hypothesis import given
from hypothesis import strategies as st
from members import DTYPES, labels, probabilities
from torch import Tensor

from fastcal import CalibrationStatistics
from fastcal.calibration.conventions import CONVENTIONS
from fastcal.core import bins

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*do not sum to 1"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:netcal"),
]

FLOATS = (torch.float32, torch.float64)
needs_exacta = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="exacta has wheels for Linux on x86-64 alone",
)


def preset(name: str, p: Tensor, target: Tensor, **options: object) -> CalibrationStatistics:
    """Statistics of ``p [B, C, N]`` by a preset, one case a batch item."""
    statistics = CalibrationStatistics.preset(name, p.shape[1], **options)
    statistics.update(p, target, case_id=list(range(len(p))))
    return statistics


def awkward(n_classes: int, n_bins: int, dtype: torch.dtype, seed: int, batch: int = 1) -> Tensor:
    """Probabilities ``[batch, C, N]``: random ones, and one class on, beside and between edges."""
    (p,) = probabilities(1, n_classes, (150,), dtype=torch.float64, batch=batch, seed=seed)
    p = (p / p.sum(1, keepdim=True)).to(dtype)
    exact = torch.linspace(0, 1, n_bins + 1, dtype=torch.float64)
    edges = torch.cat([exact.to(dtype), torch.linspace(0, 1, n_bins + 1).to(dtype)])
    up, down = torch.full_like(edges, 2), torch.full_like(edges, -1)
    near = torch.cat([edges, edges.nextafter(up), edges.nextafter(down)]).clamp(0, 1)
    rest = (1 - near.double()) / max(n_classes - 1, 1)
    planted = torch.stack([near, *[rest.to(dtype)] * (n_classes - 1)])
    planted = planted.roll(seed % n_classes, 0)
    return torch.cat([p, planted.expand(batch, -1, -1)], dim=-1)


samples = given(
    n_classes=st.integers(2, 5),
    n_bins=st.sampled_from([1, 2, 3, 5, 7, 10, 15, 20, 49]),
    dtype=st.sampled_from(FLOATS),
    seed=st.integers(0, 1000),
)


def near(value: float, dtype: torch.dtype = torch.float64) -> object:
    """Libraries fed float32 sum in float32; fastcal does not."""
    return pytest.approx(value, abs=1e-12 if dtype == torch.float64 else 2e-6)


@samples
def test_torchmetrics_multiclass_with_a_bin_of_its_own_for_ones(n_classes, n_bins, dtype, seed):
    from torchmetrics.functional.classification.calibration_error import _ce_compute

    p = awkward(n_classes, n_bins, dtype, seed)
    target = labels(n_classes, (1, p.shape[-1]), seed=seed)
    got = preset("torchmetrics", p, target, n_bins=n_bins)
    confidence, label = p[0].max(0)
    for norm in ("l1", "l2", "max"):
        theirs = _ce_compute(confidence, (label == target[0]).to(dtype), n_bins, norm=norm)
        assert got.ece(norm=norm) == near(theirs.item(), dtype)


@samples
def test_torchmetrics_public_functions(n_classes, n_bins, dtype, seed):
    from torchmetrics.functional.classification import (
        binary_calibration_error,
        multiclass_calibration_error,
    )

    p = awkward(n_classes, n_bins, torch.float32, seed)
    target = labels(n_classes, (1, p.shape[-1]), seed=seed)
    got = preset("torchmetrics", p, target, n_bins=n_bins)
    theirs = multiclass_calibration_error(p, target, n_classes, n_bins, validate_args=False)
    assert got.ece() == near(theirs.item(), torch.float32)
    one = awkward(2, n_bins, dtype, seed)[:, :1]
    y = labels(2, (1, one.shape[-1]), seed=seed)
    got = preset("torchmetrics", one, y, n_bins=n_bins)
    theirs = binary_calibration_error(one[:, 0], y, n_bins, validate_args=False)
    assert got.ece() == near(theirs.item(), dtype)


@given(
    n_classes=st.integers(2, 4),
    n_bins=st.sampled_from([1, 3, 10, 15, 20]),
    seed=st.integers(0, 1000),
)
def test_monai_classwise_by_case(n_classes, n_bins, seed):
    from monai.metrics import CalibrationErrorMetric
    from monai.metrics.calibration import calibration_binning

    p = awkward(n_classes, n_bins, torch.float32, seed, batch=2)
    target = labels(n_classes, (2, p.shape[-1]), seed=seed)
    onehot = torch.nn.functional.one_hot(target, n_classes).movedim(-1, 1)
    got = preset("monai", p, target, n_bins=n_bins)
    reductions = {
        "expected": got.classwise_ece(reduction="case"),
        "maximum": got.classwise_ece("max", reduction="case"),
        "average": got.classwise_ace(reduction="case"),
    }
    for reduction, ours in reductions.items():
        metric = CalibrationErrorMetric(n_bins, calibration_reduction=reduction)
        metric(p, onehot)
        assert ours.mean() == near(metric.aggregate().item(), torch.float32)
    _, _, counts = calibration_binning(p, onehot, n_bins)
    for k in range(n_classes):
        np.testing.assert_array_equal(got.reliability(k).count, counts[:, k].sum(0).numpy())
    assert got.calibration == "classwise"


@samples
def test_netcal_ece_ace_and_mce(n_classes, n_bins, dtype, seed):
    from netcal.metrics import ACE, ECE, MCE

    p = awkward(n_classes, n_bins, dtype, seed)
    target = labels(n_classes, (1, p.shape[-1]), seed=seed)
    got = preset("netcal", p, target, n_bins=n_bins)
    x, y = p[0].T.numpy(), target[0].numpy()
    assert got.ece() == near(ECE(n_bins).measure(x, y), dtype)
    assert got.ace() == near(ACE(n_bins).measure(x, y), dtype)
    assert got.ece("max") == near(MCE(n_bins).measure(x, y), dtype)


@samples
def test_netcal_binary_data(n_classes, n_bins, dtype, seed):
    from netcal.metrics import ECE

    p = awkward(n_classes, n_bins, dtype, seed)[:, :1]
    y = labels(2, (1, p.shape[-1]), seed=seed)
    theirs = ECE(n_bins).measure(p[0, 0].numpy(), y[0].numpy())
    assert preset("netcal", p, y, n_bins=n_bins).ece() == near(theirs, dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_sklearns_log_loss_is_clipped_by_the_eps_of_the_probabilities_type(dtype):
    sure = torch.tensor([[0.0, 1.0], [0.5, 0.5]], dtype=dtype)
    statistics = CalibrationStatistics.preset("sklearn", 2)
    statistics.update(sure, torch.tensor([0, 1]))
    expected = (-np.log(torch.finfo(dtype).eps) + np.log(2)) / 2
    assert statistics.nll() == pytest.approx(expected, abs=1e-6)
    if dtype == torch.float16:
        from sklearn.metrics import log_loss

        assert statistics.nll() == pytest.approx(log_loss([0, 1], sure.numpy()), abs=2e-3)


@samples
def test_sklearn_curves_brier_and_log_loss(n_classes, n_bins, dtype, seed):
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import log_loss

    p = awkward(n_classes, n_bins, dtype, seed)
    target = labels(n_classes, (1, p.shape[-1]), seed=seed)
    got = preset("sklearn", p, target, n_bins=n_bins)
    for k in range(n_classes):
        truth, x = (target[0] == k).numpy(), p[0, k].numpy()
        accuracy, confidence = calibration_curve(truth, x, n_bins=n_bins)
        curve = got.reliability(class_index=k)
        filled = curve.count > 0
        np.testing.assert_allclose(curve.accuracy[filled], accuracy, rtol=0, atol=1e-12)
        np.testing.assert_allclose(curve.mean_confidence[filled], confidence, rtol=0, atol=1e-12)
    if dtype == torch.float64:
        theirs = log_loss(target[0].numpy(), p[0].T.numpy(), labels=list(range(n_classes)))
        assert got.nll() == pytest.approx(theirs, abs=1e-9)


@needs_exacta
@samples
def test_exacta_top_label_and_classwise(n_classes, n_bins, dtype, seed):
    from exacta import functional as exacta

    p = awkward(n_classes, n_bins, dtype, seed)
    target = labels(n_classes, (1, p.shape[-1]), seed=seed)
    got = preset("exacta", p, target, n_bins=n_bins)
    image, truth = p[:, :, None], target[:, None]
    curve = exacta.reliability_diagram(image, truth, bins=n_bins)
    np.testing.assert_array_equal(got.reliability().count, curve.counts[0, 0])
    assert got.ece() == near(curve.ece.item())
    curve = exacta.reliability_diagram(image, truth, bins=n_bins, mode="classwise")
    for k in range(n_classes):
        np.testing.assert_array_equal(got.reliability(k).count, curve.counts[0, k])
    np.testing.assert_allclose(got.classwise_ece(), curve.ece[0], rtol=0, atol=1e-12)
    assert got.brier() == pytest.approx(exacta.brier_score(image, truth).item(), abs=1e-6)


@needs_exacta
@samples
def test_exacta_top_label_of_binary_data(n_classes, n_bins, dtype, seed):
    from exacta import functional as exacta

    p = awkward(n_classes, n_bins, dtype, seed)[:, :1]
    y = labels(2, (1, p.shape[-1]), seed=seed)
    theirs = exacta.expected_calibration_error(p[:, :, None], y[:, None], bins=n_bins)
    assert preset("exacta", p, y, n_bins=n_bins).ece() == near(theirs.item())


@samples
def test_fiducio_ece_ace_and_nll(n_classes, n_bins, dtype, seed):
    from fiducio import metrics as fiducio

    p = awkward(n_classes, n_bins, dtype, seed)
    target = labels(n_classes, (1, p.shape[-1]), seed=seed)
    got = preset("fiducio", p, target, n_bins=n_bins)
    theirs = fiducio.reliability_curve(p, target, n_bins=n_bins)
    np.testing.assert_array_equal(got.reliability().count, theirs.bin_counts)
    assert got.ece() == near(theirs.ece)
    assert got.ace() == near(theirs.ace)
    nll = fiducio.negative_log_likelihood(p, target)
    assert got.nll() == pytest.approx(nll, abs=1e-12 if dtype == torch.float64 else 1e-6, rel=1e-6)


def paper_errors(confidence, correct, n_bins: int, min_samples: int) -> tuple[float, float]:
    """ECE and MCE in %, as in `CalibrationErrors` of the first author's code."""
    size, ece, errors = 1 / n_bins, 0.0, []
    for low in np.arange(0, 1, size):
        inside = (low < confidence) & (confidence <= low + size)
        if inside.sum() > min_samples:
            error = abs(correct[inside].mean() - confidence[inside].mean())
            ece += inside.sum() / len(confidence) * error * 100
            errors.append(error)
    return ece, max(errors) * 100


@given(
    seed=st.integers(0, 1000), n_bins=st.sampled_from([5, 10]), min_samples=st.sampled_from([0, 25])
)
def test_paper_in_percent_without_zeros_and_small_bins(seed, n_bins, min_samples):
    """Unnormalised probabilities, as the paper's sigmoid heads give, some of them all zero."""
    (p,) = probabilities(1, 3, (400,), dtype=torch.float64, batch=1, seed=seed, exclusive=False)
    p[..., ::9] = 0
    p[:, 0, 1::9] = 1
    target = labels(3, (1, 400), seed=seed)
    got = preset("paper", p, target, n_bins=n_bins)
    confidence, label = (x[0].numpy() for x in p.max(1))
    ece, mce = paper_errors(confidence, label == target[0].numpy(), n_bins, min_samples)
    assert got.ece(min_count=min_samples) == pytest.approx(ece, abs=1e-10)
    assert got.ece("max", min_count=min_samples) == pytest.approx(mce, abs=1e-10)
    assert got.percent
    assert got.reliability().count.sum() == 400 - len(range(0, 400, 9))
    onehot = torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    assert got.brier() == pytest.approx(((p - onehot) ** 2).sum(1).mean().item(), abs=1e-12)
    true = p.gather(1, target[:, None]).clamp_min(1e-15)
    assert got.nll() == pytest.approx(-true.log().mean().item(), abs=1e-12)


@pytest.mark.parametrize(("n_voxels", "theirs"), [(9_000_000, 0.0422), (18_000_000, 0.0)])
def test_float32_counts_of_monai_lose_what_fastcal_keeps(n_voxels, theirs):
    """Probabilities even in [.95, 1), true ECE .0200; float32 stops counting at 2^24."""
    from monai.metrics import CalibrationErrorMetric

    n_rows = n_voxels // 1_000_000
    p = (0.95 + 0.05 * (torch.arange(1_000_000, dtype=torch.float64) + 0.5) / 1e6).float()
    y = torch.arange(1_000_000) * 7919 % 1000 < 955
    metric = CalibrationErrorMetric(num_bins=15)
    metric(p.repeat(n_rows)[None, None], y.float().repeat(n_rows)[None, None])
    assert metric.aggregate().item() == pytest.approx(theirs, abs=2e-3)
    got = CalibrationStatistics.preset("monai", 1, n_bins=15)
    got.update(p.expand(n_rows, -1), y.expand(n_rows, -1))
    assert got.classwise_ece() == pytest.approx(0.0200, abs=1e-6)


# Golden numbers


@on_every_engine
@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, 0.525 if name == "torchmetrics" else 0.475)
        for name in CONVENTIONS
        if name != "exacta"
    ],
)
def test_where_a_probability_of_one_goes(name, value):
    """One bin for .95 and 1.0 by the textbook, two in torchmetrics (its issue 3510)."""
    got = preset(
        name, torch.tensor([[[0.95, 1.0]]]), torch.tensor([[1, 0]]), n_bins=15, calibration="both"
    )
    error = got.ece(kind="positive") / (100 if name == "paper" else 1)
    assert error == pytest.approx(value, abs=3e-7)


@pytest.mark.parametrize("name", ["torchmetrics", "exacta", "netcal", "fiducio", "sklearn"])
@pytest.mark.parametrize(("norm", "value"), [("l1", 0.2000), ("l2", 0.2082), ("max", 0.2333)])
def test_golden_numbers_of_torchmetrics_hold_in_every_convention(name, norm, value):
    p = torch.tensor(
        [[0.25, 0.20, 0.55], [0.55, 0.05, 0.40], [0.10, 0.30, 0.60], [0.90, 0.05, 0.05]]
    )
    got = preset(name, p.T[None], torch.tensor([[0, 1, 2, 0]]), n_bins=3)
    assert got.ece(norm) == pytest.approx(value, abs=5e-5)


@pytest.mark.parametrize(
    ("name", "n_bins"), [("torchmetrics", 15), ("monai", 15), ("default", 15), ("exacta", 15)]
)
def test_libraries_edges_differ_from_each_other(name, n_bins):
    """MONAI's edges differ from the default at 12 of the 14 between 0 and 1, torchmetrics' at 6."""
    convention = CONVENTIONS[name]
    ours = bins.thresholds(n_bins, torch.float32)
    theirs = bins.library_thresholds(convention.edges, n_bins, torch.float32, "right")
    different = int((ours != torch.tensor(theirs)).sum())
    assert different == {"torchmetrics": 6, "monai": 12, "default": 0}.get(name, different)


@pytest.mark.parametrize("n_bins", [1, 2, 3, 10, 15, 20, 49, 1000, 65536])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_floor_thresholds_are_the_smallest_numbers_of_their_bins(n_bins, dtype):
    edges = torch.tensor(bins.library_thresholds("floor", n_bins, dtype, "left"), dtype=dtype)
    k = torch.arange(1, n_bins)
    below = edges.nextafter(torch.zeros_like(edges))
    assert torch.equal((edges.double() * n_bins).floor().long(), k)
    assert torch.equal((below.double() * n_bins).floor().long(), k - 1)


# As settings


@on_every_engine
@pytest.mark.parametrize("name", CONVENTIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_sample_is_in_a_bin_or_a_dropped_zero(name, dtype):
    p = awkward(3, CONVENTIONS[name].n_bins, dtype, seed=3)
    got = preset(name, p, labels(3, (1, p.shape[-1])), calibration="both")
    for k in range(3):
        lost = int((p[:, k] == 0).sum()) if name == "paper" else 0
        assert got.reliability(k).count.sum() == got.n_voxels - lost
        assert len(got.reliability(k).edges) == len(got.reliability(k).count) + 1


@pytest.mark.parametrize("name", CONVENTIONS)
def test_presets_bring_their_defaults_and_survive_a_file(name, tmp_path):
    (p,), target = probabilities(1, 3, (60,)), labels(3, (2, 60))
    got = preset(name, p, target)
    assert got.n_bins == CONVENTIONS[name].n_bins
    assert preset(name, p, target, n_bins=7, calibration="both").n_bins == 7
    got.save(tmp_path / "state.json")
    again = CalibrationStatistics.load(tmp_path / "state.json")
    assert again == got
    assert again.convention == name
    assert (again + got).n_voxels == 2 * got.n_voxels


@pytest.mark.parametrize("name", ["torchmetrics", "netcal", "exacta"])
def test_a_compiled_update_has_the_edges_of_the_library(name):
    (p,), target = probabilities(1, 3, (60,)), labels(3, (2, 60))
    plain, compiled = (CalibrationStatistics.preset(name, 3) for _ in range(2))
    plain.update(p, target)
    update = torch.compile(
        lambda p, target: compiled.update(p, target), fullgraph=True, backend="aot_eager"
    )
    update(p, target)
    assert plain == compiled


def test_statistics_of_two_conventions_are_not_merged():
    monai = CalibrationStatistics.preset("monai", 3, n_bins=15, calibration="both")
    with pytest.raises(ValueError, match="got convention: 'default' here, 'monai'"):
        CalibrationStatistics(3).merge(monai)


def test_a_convention_is_refused_by_name():
    with pytest.raises(ValueError, match=r"convention must be one of.*'monai'.*got 'monia'"):
        CalibrationStatistics.preset("monia", 3)
    with pytest.raises(ValueError, match="closed must be 'left' for convention='exacta'"):
        CalibrationStatistics(3, closed="right", convention="exacta")


def test_statistics_from_logits_are_those_of_their_softmax():
    z = 3 * torch.randn(2, 4, 500, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = labels(4, (2, 500))
    got, want = CalibrationStatistics(4), CalibrationStatistics(4)
    got.update_from_logits(z, target)
    want.update(z.softmax(1), target)
    for name in ("ece", "brier", "nll", "accuracy"):
        assert getattr(got, name)() == pytest.approx(getattr(want, name)(), abs=1e-12)
    with pytest.raises(ValueError, match=r"for logits .*call update_from_logits"):
        want.update(z, target)
    with pytest.raises(
        ValueError, match=r"convention must be one that does not clip .*got 'netcal'"
    ):
        CalibrationStatistics.preset("netcal", 4).update_from_logits(z, target)


def test_netcal_clipping_leaves_bad_numbers_to_be_found():
    p = torch.tensor([[[math.nan, 1.5, 0.5]]])
    got = CalibrationStatistics.preset("netcal", 1)
    got.update(p, torch.tensor([[0, 1, 1]]), nan_policy="omit")
    assert (got.n_voxels, got.n_invalid) == (1, 2)
