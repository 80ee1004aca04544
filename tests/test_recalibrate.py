"""The methods of `fastcal.recalibrate`: known parameters come back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recalibration_volumes import (
    BERNOULLI,
    SOFTMAX,
    bernoulli_target,
    exactly_calibrated,
    generator,
    overconfident,
    plain_loss,
    volume,
)
from recalibration_volumes import one_thread as one_thread
from torch import Tensor

from fastcal.recalibrate import (
    DirichletCalibration,
    HistogramBinning,
    IsotonicRegression,
    TemperatureScaling,
    VectorScaling,
    newton,
    sample,
)
from fastcal.recalibrate.histogram import N_CELLS, cell_values, cells
from fastcal.recalibrate.linear import DirichletMap, LinearMap, ScaleMap, VectorMap, linear_pass
from fastcal.recalibrate.sample import Sampler
from fastcal.recalibrate.temperature_pass import temperature_pass
from fastcal.recalibrate.volumes import PredictionReading

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
