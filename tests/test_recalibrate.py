"""`fastcal.recalibrate`: known temperatures come back, streams equal one batch, files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fastcal
from fastcal.core.errors import DataError
from fastcal.recalibrate import (
    METHODS,
    Calibrator,
    DirichletCalibration,
    EnsembleCalibration,
    HistogramBinning,
    IsotonicRegression,
    TemperatureScaling,
    VectorScaling,
    load,
    methods,
    newton,
    sample,
    volumes,
)
from fastcal.recalibrate.histogram import N_CELLS, cell_values, cells
from fastcal.recalibrate.linear import DirichletMap, LinearMap, ScaleMap, VectorMap, linear_pass
from fastcal.recalibrate.sample import Sampler
from fastcal.recalibrate.temperature_pass import temperature_pass
from fastcal.recalibrate.volumes import FitVolume, PredictionReading, read_volume

ROOT = Path(__file__).resolve().parent.parent
SOFTMAX, BERNOULLI = PredictionReading(), PredictionReading(activation="sigmoid", multilabel=True)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exactly_calibrated(seed: int, num_classes: int = 4) -> tuple[Tensor, Tensor]:
    """Logits [1, C, n], float64, and a target that has each class as often as they say.

    A voxel stands 200 times, and its probabilities are multiples of 1/200: the likelihood of
    ``z / T`` is largest at T = 1 exactly.
    """
    drawn = torch.randn(num_classes, 60, generator=generator(seed), dtype=torch.float64)
    shares = (2 * drawn).softmax(0)
    counts = 1 + (shares * (200 - num_classes)).floor().long()
    counts[0] += 200 - counts.sum(0)
    target = torch.cat([torch.arange(num_classes).repeat_interleave(one) for one in counts.T])
    return (counts.double() / 200).log().repeat_interleave(200, 1)[None], target[None]


def overconfident(seed: int, shape: tuple[int, ...], num_classes: int = 4) -> tuple[Tensor, Tensor]:
    """Logits [B, C, *S] that are 2.5 times too large, mostly background, and their target."""
    batch, *voxels = shape
    z = 2 * torch.randn(batch, num_classes, *voxels, generator=generator(seed), dtype=torch.float64)
    z[:, 0] += 2.0
    p = z.softmax(1).movedim(1, -1).reshape(-1, num_classes)
    target = torch.multinomial(p, 1, generator=generator(seed + 1)).reshape(shape)
    return 2.5 * z, target


def volume(preds: Tensor, target: Tensor, reading: PredictionReading = SOFTMAX) -> FitVolume:
    return read_volume(preds, target, reading=reading)


def bernoulli_target(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randint(2, shape, generator=generator(seed))


def plain_loss(a: Tensor, target: Tensor) -> Tensor:
    """Sum of the negative log-likelihood of logits [C, n]."""
    if target.dim() == 1:
        return torch.nn.functional.cross_entropy(a.T, target, reduction="sum")
    return torch.nn.functional.binary_cross_entropy_with_logits(a, target.double(), reduction="sum")


# --- temperature ----------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.25, 0.8, 1.0, 3.0, 12.0])
def test_known_temperature_is_recovered_in_five_passes(temperature: float) -> None:
    z, target = exactly_calibrated(1)
    fitted = TemperatureScaling().fit(z * temperature, target)
    assert fitted.temperature_ == pytest.approx(temperature, rel=1e-7)
    assert fitted.n_passes_ is not None
    assert fitted.n_passes_ <= 5
    single = TemperatureScaling().fit((z * temperature).float(), target)
    assert single.temperature_ == pytest.approx(temperature, rel=1e-5)


def test_known_temperature_is_recovered_from_probabilities() -> None:
    z, target = exactly_calibrated(2)
    probs = (2.0 * z).softmax(1)
    fitted = TemperatureScaling(from_logits=False).fit(probs, target)
    assert fitted.temperature_ == pytest.approx(2.0, rel=1e-7)
    torch.testing.assert_close(fitted.transform(probs), z.softmax(1), atol=1e-8, rtol=0)


def test_known_temperatures_of_classes_are_recovered() -> None:
    z, target = exactly_calibrated(3)
    scale = torch.tensor([1.5, 0.5, 2.0, 3.0], dtype=torch.float64)
    fitted = TemperatureScaling(per_class=True, ridge=0).fit(z * scale[:, None], target)
    # Logits of classes that are alike in no voxel: only the temperatures themselves fit exactly.
    np.testing.assert_allclose(fitted.temperature_, scale, rtol=1e-3)


def test_known_temperature_of_bernoullis_is_recovered() -> None:
    shares = torch.arange(1, 100, dtype=torch.float64) / 100
    p = shares.repeat_interleave(100)[None, None]
    target = (torch.arange(100) < 100 * shares[:, None] - 0.5).long().reshape(1, 1, -1)
    fitted = TemperatureScaling(multilabel=True).fit(1.7 * p.logit(), target)
    assert fitted.temperature_ == pytest.approx(1.7, rel=1e-6)


@pytest.mark.parametrize("reading", [SOFTMAX, BERNOULLI], ids=["softmax", "bernoulli"])
@pytest.mark.parametrize("b", [0.3, 1.0, 2.0])
def test_pass_gives_loss_gradient_and_curvature_of_autograd(
    reading: PredictionReading, b: float
) -> None:
    z, target = overconfident(4, (2, 5, 7))
    if reading.bernoulli:
        target = bernoulli_target(0, z.shape)
    flat = z.movedim(1, 0).reshape(4, -1)
    wanted = target.movedim(1, 0).reshape(4, -1) if reading.bernoulli else target.reshape(-1)
    scale = torch.tensor(b, dtype=torch.float64, requires_grad=True)
    loss = plain_loss(scale * flat, wanted)
    (gradient,) = torch.autograd.grad(loss, scale, create_graph=True)
    (curvature,) = torch.autograd.grad(gradient, scale)
    found = temperature_pass(volume(z, target, reading), b)
    assert found.n_voxels == 70
    assert found.loss == pytest.approx(loss.item(), rel=1e-12)
    assert found.hessian is not None
    assert float(found.gradient) == pytest.approx(gradient.item(), rel=1e-10)
    assert float(found.hessian) == pytest.approx(float(curvature), rel=1e-12)


def test_likelihood_without_a_minimum_is_warned_of() -> None:
    z = torch.tensor([[[4.0, -4.0], [-4.0, 4.0]]])
    with pytest.warns(UserWarning, match="has no minimum: either all predictions are right"):
        fitted = TemperatureScaling().fit(z, torch.tensor([[0, 1]]))
    assert newton.COLDEST <= fitted.temperature_ < 0.3
    with pytest.warns(UserWarning, match="unrelated to the target"):
        fitted = TemperatureScaling().fit(z, torch.tensor([[1, 0]]))
    assert fitted.temperature_ == pytest.approx(newton.HOTTEST, rel=0.01)


@pytest.mark.parametrize("make", [TemperatureScaling, VectorScaling])
def test_too_few_passes_give_a_warning(
    make: type[TemperatureScaling | VectorScaling], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample.Sampler.__init__, "__defaults__", (1000,))
    z, target = overconfident(5, (1, 4000))
    with pytest.warns(UserWarning, match="no convergence in 2 passes"):
        make(max_passes=2).fit(z, target)


# --- vector and Dirichlet -------------------------------------------------------------------------


@pytest.mark.parametrize("model", [ScaleMap(4), VectorMap(4), DirichletMap(4)], ids=type)
@pytest.mark.parametrize("bernoulli", [False, True])
def test_linear_pass_gives_the_gradient_of_autograd(model: LinearMap, bernoulli: bool) -> None:
    z, target = overconfident(6, (1, 300))
    reading = BERNOULLI if bernoulli else SOFTMAX
    if bernoulli:
        target = bernoulli_target(1, z.shape)
    shape = model.identity().shape
    theta = model.identity() + 0.3 * torch.randn(shape, generator=generator(0), dtype=torch.float64)
    theta.requires_grad_()
    features = z[0].log_softmax(0) if isinstance(model, DirichletMap) else z[0]
    loss = plain_loss(model.forward(theta, features), target[0])
    (gradient,) = torch.autograd.grad(loss, theta)
    found = linear_pass(volume(z, target, reading), model, theta.detach())
    assert found.loss == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(found.gradient, gradient, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("bernoulli", [False, True])
def test_newton_step_solves_the_hessian_of_autograd(bernoulli: bool) -> None:
    z, target = overconfident(7, (1, 400), num_classes=3)
    if bernoulli:
        target = bernoulli_target(2, z.shape)
    model = VectorMap(3)
    penalty = torch.full((6,), 0.01, dtype=torch.float64)
    sampler = Sampler()
    sampler.add(volume(z, target, BERNOULLI if bernoulli else SOFTMAX))
    theta = model.identity()

    def objective(theta: Tensor) -> Tensor:
        shift = theta - model.identity()
        loss = plain_loss(model.forward(theta, z[0]), target[0]) / 400
        return loss + (penalty * shift.square()).sum() / 2

    hessian = torch.autograd.functional.hessian(objective, theta)
    right = torch.randn(6, generator=generator(1), dtype=torch.float64)
    step = newton._SampleHessian(model, penalty, sampler.close(3)).solve(theta, right)
    torch.testing.assert_close(step, torch.linalg.solve(hessian, right), rtol=1e-7, atol=1e-9)


def test_vector_scaling_undoes_weights_and_biases() -> None:
    z, target = exactly_calibrated(8)
    w = torch.tensor([1.0, 2.0, 0.5, 1.5], dtype=torch.float64)[:, None]
    b = torch.tensor([0.5, -1.0, 0.0, 0.5], dtype=torch.float64)[:, None]
    fitted = VectorScaling(ridge=0).fit((z - b) / w, target)
    np.testing.assert_allclose(fitted.weight_, w[:, 0], rtol=1e-3)
    np.testing.assert_allclose(fitted.bias_ - fitted.bias_.mean(), b[:, 0], atol=1e-3)


def test_dirichlet_calibration_minimises_the_penalised_likelihood() -> None:
    z, target = overconfident(9, (1, 3000), num_classes=3)
    odir, mu = 0.01, 0.03
    fitted = DirichletCalibration(odir=odir, bias_penalty=mu).fit(z, target)
    weight = torch.from_numpy(fitted.weight_.copy()).requires_grad_()
    bias = torch.from_numpy(fitted.bias_.copy()).requires_grad_()
    off_diagonal = weight * (1 - torch.eye(3))
    loss = plain_loss(weight @ z[0].log_softmax(0) + bias[:, None], target[0]) / 3000
    loss = loss + odir / 6 * off_diagonal.square().sum() + mu / 3 * bias.square().sum()
    loss.backward()
    assert float(weight.grad.abs().max()) < 1e-7
    assert float(bias.grad.abs().max()) < 1e-7


def test_dirichlet_calibration_without_penalty_is_multinomial_regression() -> None:
    linear_model = pytest.importorskip(
        "sklearn.linear_model", reason="scikit-learn is not installed"
    )
    z, target = overconfident(36, (1, 1500), num_classes=3)
    ours = DirichletCalibration(odir=0).fit(z, target)
    features = z[0].log_softmax(0).T.numpy()
    theirs = linear_model.LogisticRegression(C=1e12, tol=1e-10, max_iter=10000)
    expected = theirs.fit(features, target[0].numpy()).predict_proba(features)
    np.testing.assert_allclose(ours.transform(z)[0].T, expected, atol=1e-4)


def test_dirichlet_calibration_is_not_for_sigmoids() -> None:
    with pytest.raises(ValueError, match="VectorScaling"):
        DirichletCalibration(activation="sigmoid")


def test_class_that_is_absent_does_not_run_off() -> None:
    z, target = overconfident(10, (1, 2000))
    fitted = VectorScaling().fit(z, torch.where(target == 3, 0, target))
    assert np.isfinite(fitted.bias_).all()
    assert float(fitted.transform(z)[:, 3].mean()) < 0.01


# --- binning and isotonic regression --------------------------------------------------------------


def test_histogram_binning_is_the_share_of_hits_in_each_bin() -> None:
    z, target = overconfident(11, (1, 5000))
    probs = z.softmax(1)
    fitted = HistogramBinning(n_bins=10, from_logits=False).fit(probs, target)
    edges = np.linspace(0, 1, 11)
    made = np.empty((4, 5000))
    for k in range(4):
        p, hit = probs[0, k].numpy(), (target[0] == k).numpy()
        cell = np.digitize(p, edges[1:-1], right=True)
        for b in range(10):
            share = hit[cell == b].mean() if (cell == b).any() else np.nan
            np.testing.assert_allclose(fitted.frequency_[k, b], share, rtol=1e-14)
        made[k] = fitted.frequency_[k, cell]
    np.testing.assert_allclose(fitted.transform(probs)[0], made / made.sum(0), rtol=1e-12)


def test_bin_that_was_empty_leaves_probabilities_as_they_are() -> None:
    p = torch.tensor([[[0.9, 0.8], [0.1, 0.2]]])
    fitted = HistogramBinning(n_bins=2, from_logits=False).fit(p, torch.tensor([[0, 1]]))
    seen = torch.tensor([[[0.5], [0.5]]])
    assert fitted.frequency_.tolist() == [
        [pytest.approx(np.nan, nan_ok=True), 0.5],
        [0.5, pytest.approx(np.nan, nan_ok=True)],
    ]
    torch.testing.assert_close(fitted.transform(seen), torch.tensor([[[0.5], [0.5]]]))


def test_isotonic_regression_is_that_of_scikit_learn() -> None:
    isotonic = pytest.importorskip("sklearn.isotonic", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    x = cell_values()
    p = x[rng.integers(N_CELLS // 3, N_CELLS - N_CELLS // 3, 3000)]
    target = (rng.random(3000) < p**2).astype(np.int64)
    ours = IsotonicRegression(from_logits=False, multilabel=True)
    ours.fit(p[None, None], target[None, None])
    theirs = isotonic.IsotonicRegression(out_of_bounds="clip").fit(p, target)
    asked = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(
        ours.transform(asked[None, None])[0, 0], theirs.predict(asked), atol=1e-12
    )


def test_cells_rise_with_p_and_hold_what_lies_close_together() -> None:
    p = torch.tensor(cell_values())
    # Above 1 - 2^-53 float64 has no numbers but 1: their cells stay empty.
    held = torch.unique(cells(p))
    assert len(held) > N_CELLS / 2
    assert bool((p[held].diff() > 0).all())
    torch.testing.assert_close(cells(p[held]), held)
    rng = torch.Generator().manual_seed(0)
    lower = 0.5 * torch.rand(10000, generator=rng, dtype=torch.float64) ** 8 + 1e-30
    for drawn, width in ((lower, lower), (1 - lower, lower)):
        assert bool(((drawn - p[cells(drawn)]).abs() <= 2.0**-9 * width + 2.0**-53).all())
    half = [np.nextafter(0.5, 0), 0.5, np.nextafter(0.5, 1)]
    assert cells(torch.tensor(half)).tolist() == [N_CELLS // 2 - 1, N_CELLS // 2, N_CELLS // 2]
    assert cells(torch.tensor([0.0, 1.0])).tolist() == [0, N_CELLS - 1]


# --- what all of them share -----------------------------------------------------------------------


def each_method(**settings: Any) -> Iterator[Calibrator]:
    options = {"from_logits": True, "activation": "softmax", "multilabel": False} | settings
    for name in METHODS:
        if not (name == "dirichlet" and options["activation"] == "sigmoid"):
            yield methods.make(name, **options)


def fitted_numbers(calibrator: Calibrator) -> np.ndarray:
    def flat(value: Any) -> list[float]:
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            return [number for one in value for number in flat(one)]
        return [np.nan if value is None else value]

    return np.array(flat(calibrator.to_dict()["fitted"]))


@pytest.mark.parametrize("method", METHODS)
def test_streamed_volumes_give_the_fit_of_all_at_once(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    z, target = overconfident(12, (6, 10, 12))
    parts = [(z[:1], target[:1]), (z[1:4], target[1:4]), (z[4:], target[4:])]
    make = {"from_logits": True, "activation": "softmax", "multilabel": False}
    whole = methods.make(method, **make).fit(z, target)
    monkeypatch.setattr(volumes, "BLOCK", 37)
    streamed = methods.make(method, **make).fit_stream(parts)
    np.testing.assert_allclose(fitted_numbers(streamed), fitted_numbers(whole), atol=1e-12)
    assert fitted_numbers(whole).size > 0


@pytest.mark.parametrize("method", METHODS)
def test_memory_layout_does_not_matter(method: str) -> None:
    z, target = overconfident(13, (2, 8, 6))
    make = {"from_logits": True, "activation": "softmax", "multilabel": False}
    one = methods.make(method, **make).fit(z, target)
    last = z.movedim(1, -1).contiguous()
    other = methods.make(method, **make).fit(last.numpy(), target.numpy(), class_dim=-1)
    np.testing.assert_allclose(fitted_numbers(other), fitted_numbers(one), atol=1e-12)
    turned = z.transpose(2, 3).contiguous().transpose(2, 3)
    torch.testing.assert_close(one.transform(turned), one.transform(z), rtol=0, atol=1e-14)
    made = other.transform(last.numpy(), class_dim=-1)
    assert isinstance(made, np.ndarray)
    np.testing.assert_allclose(np.moveaxis(made, -1, 1), one.transform(z), atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_masked_and_ignored_voxels_do_not_count(method: str) -> None:
    z, target = overconfident(14, (1, 900))
    make = {"from_logits": True, "activation": "softmax", "multilabel": False}
    expected = methods.make(method, **make).fit(z[:, :, 300:], target[:, 300:])
    mask = torch.arange(900)[None] >= 150
    marked = target.clone()
    marked[:, :150] = 9
    marked[:, 150:300] = 255
    spoiled = z.clone()
    spoiled[:, 0, :100] = torch.nan
    found = methods.make(method, **make).fit(spoiled, marked, mask=mask, ignore_index=255)
    np.testing.assert_allclose(fitted_numbers(found), fitted_numbers(expected), atol=1e-9)


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_held_out_calibration_and_likelihood_improve(method: str, from_logits: bool) -> None:
    (z, target), (held, truth) = overconfident(15, (1, 20000)), overconfident(17, (1, 20000))
    if not from_logits:
        z, held = z.softmax(1).float(), held.softmax(1).float()
    calibrator = methods.make(
        method, from_logits=from_logits, activation="softmax", multilabel=False
    ).fit(z, target)
    before, after = (fastcal.CalibrationStatistics(4, eps=1e-3) for _ in range(2))
    before.update(held.softmax(1) if from_logits else held, truth)
    after.update(calibrator.transform(held), truth)
    assert after.ece() < 0.3 * before.ece()
    assert after.classwise_ece().mean() < 0.5 * before.classwise_ece().mean()
    assert after.nll() < before.nll()


@pytest.mark.parametrize(
    ("activation", "multilabel"), [("softmax", False), ("sigmoid", False), ("sigmoid", True)]
)
def test_file_gives_the_same_calibrator_back(
    activation: str, multilabel: bool, tmp_path: Path
) -> None:
    z, target = overconfident(18, (1, 700))
    if multilabel:
        target = torch.bernoulli((z / 2).sigmoid(), generator=generator(3)).long()
    for number, calibrator in enumerate(each_method(activation=activation, multilabel=multilabel)):
        path = tmp_path / f"{number}.json"
        calibrator.fit(z, target).save(path)
        for again in (load(path), type(calibrator).load(path)):
            assert type(again) is type(calibrator)
            assert again.settings() == calibrator.settings()
            assert torch.equal(again.transform(z), calibrator.transform(z))
        json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(word))


def test_small_sample_changes_where_a_fit_starts_and_not_where_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    z, target = overconfident(19, (1, 30000))
    calibrators = [TemperatureScaling, VectorScaling, DirichletCalibration]
    whole = [make().fit(z, target) for make in calibrators]
    monkeypatch.setattr(sample.Sampler.__init__, "__defaults__", (1 << 14,))
    for make, expected in zip(calibrators, whole, strict=True):
        found = make().fit(z, target)
        np.testing.assert_allclose(fitted_numbers(found), fitted_numbers(expected), atol=2e-5)
        assert found.n_passes_ is not None
        assert found.n_passes_ <= 7
        if isinstance(found, TemperatureScaling):
            assert found.n_passes_ <= 5
            assert found.temperature_ == pytest.approx(expected.temperature_, rel=1e-9)


def test_sample_is_bounded_keeps_rare_classes_and_stands_for_all() -> None:
    z = torch.randn(1, 3, 50000, generator=generator(20), dtype=torch.float64)
    target = torch.zeros(1, 50000, dtype=torch.int64)
    target[:, ::500], target[:, 1::5] = 1, 2
    sampler = Sampler(9000)
    for start in range(0, 50000, 7000):
        sampler.add(volume(z[:, :, start : start + 7000], target[:, start : start + 7000]))
    drawn = sampler.close(3)
    assert drawn.logits.numel() <= 9000
    assert int((drawn.target == 1).sum()) == 100
    for k in range(3):
        weight = float(drawn.weight[drawn.target == k].sum())
        assert weight == pytest.approx(int((target == k).sum()), rel=0.1)


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "cropped"])
def test_sparse_sample_looks_at_one_voxel_of_each_stretch(layout: str) -> None:
    z, target = overconfident(40, (1, 70, 60, 50), 3)
    mask = torch.rand(target.shape, generator=generator(41)) < 0.5
    if layout == "channels last":
        z = z.movedim(1, -1).contiguous().movedim(-1, 1)
    elif layout == "cropped":
        z = torch.nn.functional.pad(z, (1, 2, 3, 1))[..., 3:-1, 1:-2]
    sampler = Sampler(sparse=True)
    sampler.add(read_volume(z, target, mask, reading=SOFTMAX))
    drawn = sampler.close(3)
    assert sample.VISITED * 0.4 < drawn.logits.shape[1] < sample.VISITED * 0.6
    assert float(drawn.weight.sum()) == pytest.approx(int(mask.sum()), rel=0.02)
    every = z[0].flatten(1)[:, mask.flatten()].mean(1)
    torch.testing.assert_close(drawn.logits.mean(1), every, atol=0.05, rtol=0)


@pytest.mark.parametrize("per_class", [False, True])
def test_fit_of_many_voxels_starts_from_a_few(per_class: bool) -> None:
    z, target = overconfident(42, (2, 40, 50, 60))
    single = z.float()
    fitted = TemperatureScaling(per_class=per_class).fit(single, target)
    assert fitted.n_passes_ is not None
    assert fitted.n_passes_ <= 5
    with fastcal.backend("reference"):
        exact = TemperatureScaling(per_class=per_class).fit(single.double(), target)
    np.testing.assert_allclose(fitted.temperature_, exact.temperature_, rtol=1e-6)


def test_blocks_are_small_whatever_the_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "BLOCK", 50)
    z, target = overconfident(21, (2, 9, 11, 7))
    for preds in (
        z,
        z.transpose(2, 4).contiguous().transpose(2, 4),
        z.movedim(1, -1).contiguous().movedim(-1, 1),
    ):
        seen = [block.values.shape[1] for block in volume(preds, target).blocks()]
        assert max(seen) <= 50
        assert sum(seen) == target.numel()


def test_probability_of_zero_is_read_as_the_smallest_its_type_holds() -> None:
    target = torch.tensor([[0, 1, 0]])
    probs = torch.tensor([[[1.0, 1.0, 0.6], [0.0, 0.0, 0.4]]])
    for dtype, smallest in ((torch.float16, 2.0**-24), (torch.float32, 2.0**-126)):
        read = volume(probs.to(dtype), target, PredictionReading(from_logits=False))
        assert temperature_pass(read, 1.0).loss == pytest.approx(
            -np.log(smallest) - np.log(0.6), rel=1e-3
        )
    probs, target = probs.repeat(1, 1, 9), target.repeat(1, 9)
    target[:, 3:] = target[:, 3:].clamp(max=0)
    logits = probs.log()
    first = TemperatureScaling().fit(logits, target).temperature_
    second = TemperatureScaling(from_logits=False).fit(probs, target).temperature_
    assert first == pytest.approx(second, rel=1e-6)
    assert bool(TemperatureScaling().fit(logits, target).transform(logits).isfinite().all())


def test_float16_and_float32_give_float32_and_invalid_voxels_give_nan() -> None:
    z, target = overconfident(22, (1, 500))
    fitted = TemperatureScaling().fit(z, target)
    expected = (z / fitted.temperature_).softmax(1)
    for dtype, tolerance in ((torch.float16, 2e-2), (torch.float32, 1e-6)):
        made = fitted.transform(z.to(dtype))
        assert made.dtype == torch.float32
        torch.testing.assert_close(made.double(), expected, atol=tolerance, rtol=0)
    z[0, 1, 7] = torch.nan
    assert bool(fitted.transform(z)[0, :, 7].isnan().all())
    assert int(fitted.transform(z).isnan().sum()) == 4


# --- ensembles ------------------------------------------------------------------------------------


def two_members(seed: int) -> tuple[list[Tensor], Tensor]:
    z, target = overconfident(seed, (1, 8000))
    noise = torch.randn(2, *z.shape, generator=generator(seed + 1), dtype=torch.float64)
    return [z + noise[0], 2 * z + noise[1]], target


def test_pool_then_calibrate_fits_the_mean_of_the_members() -> None:
    members, target = two_members(23)
    weights = [1.0, 3.0]
    ensemble = EnsembleCalibration(TemperatureScaling(), weights=weights).fit(members, target)
    mean = fastcal.ensemble_mean(members, weights=weights)
    alone = TemperatureScaling(from_logits=False).fit(mean, target)
    torch.testing.assert_close(ensemble.transform(members), alone.transform(mean))


def test_member_then_pool_averages_members_that_were_calibrated_alone() -> None:
    members, target = two_members(25)
    ensemble = EnsembleCalibration(TemperatureScaling(), order="member-then-pool")
    ensemble.fit(torch.stack(members), target)
    alone = [TemperatureScaling().fit(member, target) for member in members]
    expected = sum(one.transform(z) for one, z in zip(alone, members, strict=True)) / 2
    torch.testing.assert_close(ensemble.transform(members), expected)
    assert alone[1].temperature_ > 1.5 * alone[0].temperature_


@pytest.mark.parametrize("order", ["pool-then-calibrate", "member-then-pool"])
@pytest.mark.parametrize("space", ["prob", "logit"])
def test_ensemble_improves_streams_and_comes_back_from_its_file(
    order: Any, space: Any, tmp_path: Path
) -> None:
    members, target = two_members(27)
    ensemble = EnsembleCalibration(TemperatureScaling(), order=order, space=space)
    parts = [
        ([m[:, :, cut] for m in members], target[:, cut])
        for cut in (slice(3000), slice(3000, None))
    ]
    ensemble.fit_stream(parts)
    again = EnsembleCalibration(TemperatureScaling(), order=order, space=space)
    torch.testing.assert_close(
        again.fit(members, target).transform(members), ensemble.transform(members)
    )
    path = tmp_path / "ensemble.json"
    ensemble.save(path)
    read = load(path)
    assert isinstance(read, EnsembleCalibration)
    assert repr(read) == repr(ensemble)
    assert torch.equal(read.transform(members), ensemble.transform(members))
    held, truth = two_members(29)
    before, after = fastcal.CalibrationStatistics(4), fastcal.CalibrationStatistics(4)
    before.update(fastcal.ensemble_mean(held, space=space), truth)
    after.update(ensemble.transform(held), truth)
    assert after.nll() < before.nll()
    assert after.ece() < before.ece()


def test_ensemble_with_another_number_of_members_is_refused() -> None:
    members, target = two_members(31)
    ensemble = EnsembleCalibration(TemperatureScaling(), order="member-then-pool")
    with pytest.raises(ValueError, match="not fitted"):
        ensemble.transform(members)
    ensemble.fit(members, target)
    with pytest.raises(ValueError, match="must hold 2 members, got 3"):
        ensemble.transform([*members, members[0]])
    with pytest.raises(TypeError, match="calibrator must be a Calibrator"):
        EnsembleCalibration("temperature")  # type: ignore[arg-type]


# --- what is refused ------------------------------------------------------------------------------


def test_generator_is_refused_because_it_can_be_read_once() -> None:
    z, target = overconfident(32, (1, 50))
    with pytest.raises(TypeError, match="iterable several times"):
        TemperatureScaling().fit_stream((z, target) for _ in range(2))


def test_volumes_that_change_between_passes_are_refused() -> None:
    z, target = overconfident(33, (1, 500))

    class Shrinking:
        left = 500

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            self.left -= 10
            yield z[:, :, : self.left], target[:, : self.left]

    for calibrator in (TemperatureScaling(), VectorScaling()):
        with pytest.raises(ValueError, match="the same in every pass"):
            calibrator.fit_stream(Shrinking())


@pytest.mark.parametrize("method", METHODS)
def test_bad_data_are_named(method: str) -> None:
    z, target = overconfident(34, (1, 50))
    make = {"activation": "softmax", "multilabel": False}
    logits = methods.make(method, from_logits=True, **make)
    with pytest.raises(ValueError, match="not fitted yet"):
        logits.transform(z)
    with pytest.raises(
        ValueError, match=r"target must lie in \[0, 4\), got 2 voxels outside, such as 7"
    ):
        logits.fit(z, torch.where(torch.arange(50) < 2, 7, target))
    with pytest.raises(ValueError, match="at least one voxel to fit to"):
        logits.fit(z, target, mask=torch.zeros(1, 50, dtype=torch.bool))
    with pytest.raises(ValueError, match="at least one volume"):
        logits.fit_stream([])
    spoiled = z.clone()
    spoiled[0, 2, :3] = torch.nan
    with pytest.raises(ValueError, match="got 3 voxels without"):
        logits.fit(spoiled, target)
    assert logits.fit(spoiled, target, nan_policy="omit").num_classes_ == 4
    with pytest.raises(ValueError, match="must have 4 classes"):
        logits.transform(z[:, :3])
    with pytest.raises(ValueError, match="logits need from_logits"):
        methods.make(method, from_logits=False, **make).fit(z, target)
    with pytest.raises(ValueError, match="multilabel=True"):
        logits.fit(z[:, :1], target)
    with pytest.raises(TypeError, match="preds, target"):
        logits.fit_stream([z])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "arguments",
    [
        {"from_logits": 1},
        {"activation": "relu"},
        {"eps": 2.0},
        {"max_passes": 1},
        {"ridge": -1.0},
        {"per_class": "yes"},
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(arguments))):
        TemperatureScaling(**arguments)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "something else"},
        {"version": 2},
        {"kind": "vector"},
        {"kind": "none"},
        {"fitted": {"temperature": [1.0]}},
        {"fitted": {"temperature": -1.0}},
        {"fitted": {}},
        {"num_classes": 0},
        {"settings": {"speed": 1}},
    ],
    ids=str,
)
def test_file_of_something_else_is_one_line_that_names_it(
    change: dict[str, Any], tmp_path: Path
) -> None:
    z, target = overconfident(35, (1, 500))
    path = tmp_path / "calibrator.json"
    TemperatureScaling().fit(z, target).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=re.escape(str(path))) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    path.write_text("{")
    with pytest.raises(DataError, match=re.escape(str(path))):
        load(path)
