"""One-liners: torchmetrics' names and golden numbers, the values of the statistics."""

from __future__ import annotations

import inspect

import numpy as np
import oracle
import pytest
import torch
from members import exact, labels, logits, probabilities

import fastcal
from fastcal import CalibrationStatistics
from fastcal import functional as F

GOLDEN = torch.tensor(
    [[0.25, 0.20, 0.55], [0.55, 0.05, 0.40], [0.10, 0.30, 0.60], [0.90, 0.05, 0.05]]
)
GOLDEN_TARGET = torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(("norm", "value"), [("l1", 0.2000), ("l2", 0.2082), ("max", 0.2333)])
@pytest.mark.parametrize("convention", ["default", "torchmetrics"])
def test_multiclass_golden_numbers_of_torchmetrics(norm, value, convention):
    got = F.multiclass_calibration_error(
        GOLDEN, GOLDEN_TARGET, num_classes=3, n_bins=3, norm=norm, convention=convention
    )
    assert got.item() == pytest.approx(value, abs=5e-5)
    assert got.dtype == torch.float64


@pytest.mark.parametrize(("norm", "value"), [("l1", 0.2900), ("l2", 0.2918), ("max", 0.3167)])
def test_binary_golden_numbers_of_torchmetrics(norm, value):
    preds, target = torch.tensor([0.25, 0.25, 0.55, 0.75, 0.75]), torch.tensor([0, 0, 1, 1, 1])
    got = F.binary_calibration_error(preds, target, n_bins=2, norm=norm)
    assert got.item() == pytest.approx(value, abs=5e-5)


@pytest.mark.parametrize("name", ["multiclass_calibration_error", "binary_calibration_error"])
def test_arguments_are_those_of_torchmetrics_in_their_order(name):
    from torchmetrics.functional import classification

    theirs = list(inspect.signature(getattr(classification, name)).parameters)
    ours = list(inspect.signature(getattr(F, name)).parameters)
    assert ours[: len(theirs)] == theirs


def test_every_error_is_that_of_the_statistics():
    (p,), target = probabilities(1, 4, (300,)), labels(4, (2, 300))
    mask = labels(3, (2, 300), seed=1) > 0
    statistics = CalibrationStatistics(4, n_bins=7)
    statistics.update(p, target, mask=mask, ignore_index=2)
    options = {"n_bins": 7, "norm": "l2", "ignore_index": 2, "mask": mask}
    assert F.multiclass_calibration_error(p, target, 4, **options) == statistics.ece("l2")
    classwise = F.classwise_calibration_error(p, target, 4, average="none", **options)
    np.testing.assert_array_equal(classwise, statistics.classwise_ece("l2"))
    macro = F.classwise_calibration_error(p, target, 4, **options)
    assert macro.item() == pytest.approx(statistics.classwise_ece("l2").mean(), abs=1e-15)
    scored = {"ignore_index": 2, "mask": mask}
    assert F.brier_score(p, target, **scored) == statistics.brier()
    assert F.negative_log_likelihood(p, target, **scored) == statistics.nll()


@pytest.mark.parametrize("average", ["macro", "micro", "none"])
def test_multilabel_errors_match_the_oracle(average):
    (p,) = probabilities(1, 3, (400,), dtype=torch.float64, exclusive=False)
    y = labels(2, (2, 3, 400))
    got = F.multilabel_calibration_error(p, y, num_labels=3, average=average)
    edges, x, hit = oracle.edges(15, np.float64), exact(p), y.numpy().astype(bool)
    each = [oracle.histogram(x[:, k].ravel(), hit[:, k].ravel(), edges).ece() for k in range(3)]
    micro = oracle.histogram(x.ravel(), hit.ravel(), edges).ece()
    want = {"none": each, "macro": np.mean(each), "micro": micro}[average]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def test_micro_average_of_equal_and_opposite_gaps_is_nought():
    """1 - p of one class is p of the other: the pooled histogram is calibrated in one bin."""
    p = torch.tensor([[0.75, 0.25]] * 4)
    y = torch.tensor([[1, 0], [1, 0], [1, 0], [1, 0]])
    assert F.multilabel_calibration_error(p, y, 2, n_bins=1, average="micro") == 0
    assert F.multilabel_calibration_error(p, y, 2, n_bins=1) == 0.25


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_scores_of_every_task(task):
    n_classes = 1 if task == "binary" else 3
    (p,) = probabilities(1, n_classes, (90,), dtype=torch.float64, exclusive=task == "multiclass")
    y = labels(3, (2, 90)) if task == "multiclass" else labels(2, (2, n_classes, 90))
    want = oracle.scores(
        exact(p),
        y.numpy(),
        edges=oracle.edges(15),
        multilabel=task != "multiclass",
        eps=float(np.finfo(np.float64).tiny),
    )
    preds, target = (p[:, 0], y[:, 0]) if task == "binary" else (p, y)
    assert F.brier_score(preds, target, task).item() == pytest.approx(want.brier, abs=1e-12)
    nll = F.negative_log_likelihood(preds, target, task)
    assert nll.item() == pytest.approx(want.nll, abs=1e-12)


def test_logits_are_taken_where_they_are_named():
    z, target = logits(1, 3, (60,), dtype=torch.float64)[0], labels(3, (2, 60))
    for function in (F.brier_score, F.negative_log_likelihood):
        got = function(z, target, from_logits=True)
        assert got.item() == pytest.approx(function(z.softmax(1), target).item(), abs=1e-12)
        with pytest.raises(ValueError, match="from_logits=True"):
            function(z, target)
    y = labels(2, (2, 60))
    got = F.binary_calibration_error(z[:, 0], y, from_logits=True)
    want = F.binary_calibration_error(z[:, 0].sigmoid(), y)
    assert got.item() == pytest.approx(want.item(), abs=1e-12)


def test_entropies_are_the_maps_of_the_ensemble():
    members = probabilities(3, 4, (50,))
    found = fastcal.ensemble_statistics(
        members, maps=("entropy", "expected_entropy", "mutual_information"), from_logits=False
    )
    assert torch.equal(F.predictive_entropy(members), found.entropy)
    assert torch.equal(F.expected_entropy(members), found.expected_entropy)
    assert torch.equal(F.mutual_information(torch.stack(members)), found.mutual_information)
    z = logits(3, 4, (50,))
    assert torch.equal(F.predictive_entropy(z, from_logits=True), fastcal.ensemble_entropy(z))
    assert torch.equal(F.predictive_entropy(members[0]), F.predictive_entropy(members[:1]))


def test_an_array_of_another_layout_is_refused():
    members = torch.stack(probabilities(3, 4, (50,)))
    with pytest.raises(ValueError, match="one prediction"):
        F.predictive_entropy(members)
    for function in (F.expected_entropy, F.mutual_information):
        with pytest.raises(ValueError, match="members"):
            function(members[0])
        with pytest.raises(ValueError, match="members"):
            function(members[0, :, :, 0])


def test_invalid_voxels_are_left_out_where_arguments_are_not_validated():
    (p,), target = probabilities(1, 3, (40,)), labels(3, (2, 40))
    mask = torch.ones(2, 40, dtype=torch.bool)
    mask[0, 3] = False
    expected = F.multiclass_calibration_error(p, target, 3, mask=mask)
    p[0, 1, 3] = torch.nan
    assert F.multiclass_calibration_error(p, target, 3, validate_args=False) == expected
    with pytest.raises(ValueError, match="at 1 voxel"):
        F.multiclass_calibration_error(p, target, 3)


def test_average_may_be_none_as_in_torchmetrics():
    (p,), target = probabilities(1, 3, (40,)), labels(3, (2, 40))
    each = F.classwise_calibration_error(p, target, 3, average=None)
    assert torch.equal(each, F.classwise_calibration_error(p, target, 3, average="none"))


def test_numpy_gives_numpy():
    preds, target = GOLDEN.double().numpy(), GOLDEN_TARGET.numpy()
    error = F.multiclass_calibration_error(preds, target, 3, n_bins=3)
    assert isinstance(error, np.float64)
    assert error == pytest.approx(0.2, abs=1e-7)
    classwise = F.classwise_calibration_error(preds, target, 3, average="none")
    assert isinstance(classwise, np.ndarray)
    assert classwise.shape == (3,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.multiclass_calibration_error(GOLDEN, GOLDEN_TARGET, 4), "4 classes"),
        (lambda: F.brier_score(GOLDEN, GOLDEN_TARGET, "multi"), "task must be"),
        (lambda: F.brier_score(GOLDEN[:, :1], GOLDEN_TARGET), "task must be 'binary'"),
        (lambda: F.brier_score(GOLDEN[:, 0], GOLDEN_TARGET), "preds must have shape"),
        (
            lambda: F.classwise_calibration_error(GOLDEN, GOLDEN_TARGET, 3, average="micro"),
            "average must be",
        ),
        (
            lambda: F.multiclass_calibration_error(GOLDEN, GOLDEN_TARGET, 3, convention="tm"),
            "convention must be",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_measures_of_order_are_those_of_the_statistics():
    (p,), target = probabilities(1, 4, (300,)), labels(4, (2, 300))
    mask = labels(3, (2, 300), seed=1) > 0
    statistics = CalibrationStatistics(4, n_bins=7, fine_bins=65536)
    statistics.update(p, target, mask=mask, ignore_index=2)
    options = {"ignore_index": 2, "mask": mask}
    binned = {"n_bins": 7, "norm": "l2", **options}
    assert F.adaptive_calibration_error(p, target, 4, **binned) == statistics.adaptive_ece("l2")
    thresholded = F.adaptive_calibration_error(p, target, 4, threshold=0.1, **binned)
    assert thresholded == statistics.tace(0.1, "l2")
    assert F.confidence_auroc(p, target, 4, **options) == statistics.auroc()
    assert F.area_under_risk_coverage(p, target, 4, **options) == statistics.aurc()
    excess = F.area_under_risk_coverage(p.numpy(), target.numpy(), 4, excess=True)
    assert isinstance(excess, np.floating)
