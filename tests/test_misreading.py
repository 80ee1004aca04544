"""What could be read wrongly is told: probabilities as logits, axes, maps not asked for."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch

import fastcal
from fastcal import CalibrationStatistics, EnsembleAccumulator
from fastcal.calibration import Measure, bootstrap
from fastcal.recalibrate import TemperatureScaling


def probabilities(*shape: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(*shape).softmax(1)


# --- probabilities given as logits ----------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda p: fastcal.ensemble_entropy([p, p]),
        lambda p: fastcal.ensemble_mean([p, p.flip(1)]),
        lambda p: fastcal.ensemble_statistics([p, p], maps=("label",)),
        lambda p: fastcal.ensemble_statistics([p, p], maps=("label",), activation="sigmoid"),
        lambda p: EnsembleAccumulator(("entropy",)).update(p),
        lambda p: CalibrationStatistics(3).update_from_logits(p, p.argmax(1)),
    ],
)
def test_probabilities_read_as_logits_warn_once_and_name_the_argument(call) -> None:
    p = probabilities(2, 3, 4, 5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(p)
    told = [one for one in caught if "pass from_logits=False" in str(one.message)]
    assert len(told) == 1
    assert told[0].filename == __file__


def test_a_fit_to_probabilities_as_logits_warns_once() -> None:
    p = probabilities(2, 3, 4, 5)
    with pytest.warns(UserWarning, match="from_logits=False") as caught:
        TemperatureScaling().fit(p, p.argmax(1).flip(1))
    assert len([one for one in caught if "from_logits=False" in str(one.message)]) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_probabilities_of_every_type_are_noticed(dtype: torch.dtype) -> None:
    with pytest.warns(UserWarning, match="from_logits=False"):
        fastcal.ensemble_entropy([probabilities(1, 4, 6, 6).to(dtype)])


def test_what_may_be_logits_is_not_warned_of() -> None:
    p = probabilities(2, 3, 4, 5)
    off = p.clone()
    off[0, 0, 0, 0] += 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fastcal.ensemble_entropy([torch.randn(2, 3, 4, 5)])
        fastcal.ensemble_entropy([p.log()])
        fastcal.ensemble_entropy([torch.rand(2, 3, 4, 5)])
        fastcal.ensemble_entropy([off])
        fastcal.ensemble_entropy([torch.zeros(2, 3, 4, 5)])
        fastcal.ensemble_entropy([p], multilabel=True)
        fastcal.ensemble_entropy([torch.tensor([[1.0, 0.0]])])  # one voxel is no evidence


def test_compiled_calls_are_not_disturbed_by_the_check() -> None:
    p = probabilities(2, 3, 4, 5)
    compiled = torch.compile(lambda one, two: fastcal.ensemble_entropy([one, two]), fullgraph=True)
    with pytest.warns(UserWarning, match="from_logits=False"):
        want = fastcal.ensemble_entropy([p, p])
    assert torch.equal(compiled(p, p), want)


# --- axes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(1, 4, 64, 64, 32), (2, 3, 8, 8, 8), (1, 4, 96, 96, 31), (2, 4, 64, 64)]
)
def test_a_lone_member_that_is_no_ensemble_is_refused_with_how_it_would_be_read(shape) -> None:
    m, b, c = shape[:3]
    with pytest.raises(ValueError, match=rf"M = {m}, B = {b}, C = {c}; put a single member into"):
        fastcal.ensemble_entropy(torch.zeros(shape))
    assert fastcal.ensemble_entropy([torch.zeros(shape)]).shape == (shape[0], *shape[2:])


@pytest.mark.parametrize(
    "shape",
    [(5, 2, 4, 16, 16), (3, 1, 20, 128, 128), (3, 2, 4), (5, 1, 4, 9, 8, 7), (3, 1, 2, 500)],
)
def test_an_ensemble_in_one_tensor_is_read_as_it_is(shape) -> None:
    assert fastcal.ensemble_entropy(torch.zeros(shape)).shape == (shape[1], *shape[3:])


def test_a_lone_tensor_of_many_classes_is_read_with_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"read as M = 1, B = 4, C = 40 classes along axis 2"):
        assert fastcal.ensemble_entropy(torch.zeros(1, 4, 40, 96, 96)).shape == (4, 96, 96)


def test_a_target_tells_what_the_axes_of_one_tensor_are() -> None:
    members, target = torch.zeros(3, 2, 8, 8, 8), torch.zeros(2, 8, 8, dtype=torch.int64)
    assert fastcal.ensemble_statistics(members, target).entropy.shape == (2, 8, 8)


def test_items_of_a_decollated_batch_are_refused_and_read_with_their_class_axis() -> None:
    batch = MetaTensor(torch.randn(2, 3, 12, 10, 8))
    batch.is_batch = True
    items = decollate_batch(batch)
    with pytest.raises(ValueError, match=r"preds\[0\] must be a member .* B = 3, C = 12; add"):
        fastcal.ensemble_entropy(items)
    assert fastcal.ensemble_entropy(items, class_dim=0).shape == (12, 10, 8)
    assert fastcal.ensemble_entropy([item[None] for item in items]).shape == (1, 12, 10, 8)
    with pytest.raises(ValueError, match=r"member must be a member .* B = 3, C = 12"):
        EnsembleAccumulator(("entropy",)).update(items[0])


def test_batches_of_meta_tensors_are_read() -> None:
    batch = MetaTensor(torch.randn(2, 3, 12, 10, 8))
    assert fastcal.ensemble_entropy([batch, batch]).shape == (2, 12, 10, 8)
    flat = MetaTensor(torch.randn(2, 4, 64, 64))  # made by hand: is_batch is False
    assert fastcal.ensemble_entropy([flat, flat]).shape == (2, 64, 64)


def test_axes_are_refused_under_torch_compile_too() -> None:
    compiled = torch.compile(fastcal.ensemble_entropy)
    with pytest.raises(Exception, match="M = 2, B = 3, C = 8"):
        compiled(torch.zeros(2, 3, 8, 8, 8))


# --- results --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result() -> fastcal.EnsembleStatistics:
    torch.manual_seed(0)
    members, target = torch.randn(3, 2, 4, 9, 7), torch.randint(0, 4, (2, 9, 7))
    members[:, 0, :, 0, 0] = torch.nan
    return fastcal.ensemble_statistics(
        members, target, maps=("label", "entropy"), case_id=["a", "b"], nan_policy="omit"
    )


def test_a_map_that_was_not_asked_for_says_how_to_ask(result) -> None:
    with pytest.raises(AttributeError, match=r"variance was not asked for: pass maps=\('variance'"):
        _ = result.variance
    with pytest.raises(AttributeError, match="has no attribute 'entrophy'"):
        _ = result.entrophy
    assert not hasattr(result, "mean")
    assert list(result.maps) == ["label", "entropy"]
    assert result.segments is None


def test_results_are_copied_and_pickled(result) -> None:
    for other in (copy.copy(result), copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert torch.equal(other.label, result.label)
        assert other.calibration == result.calibration
        assert not hasattr(other, "mean")


def test_a_result_shows_its_maps_without_their_numbers(result) -> None:
    text = repr(result)
    assert len(text) < 700
    valid = result.entropy[~result.entropy.isnan()]
    wanted = f"{valid.min():.4g} to {valid.max():.4g}, mean {valid.double().mean():.4g}"
    assert f"entropy      float32 [2, 9, 7], {wanted}" in text
    assert "label        int64 [2, 9, 7], 0 to 3" in text
    assert "125 (1 invalid left out)" in text
    html = result._repr_html_()
    assert html.startswith("<table>")
    assert wanted in html


def test_statistics_show_counts_and_scores(result) -> None:
    statistics = result.calibration
    text = repr(statistics)
    assert text.splitlines()[0] == "CalibrationStatistics(num_classes=4)"
    assert f"Dice    {statistics.dice():.4f} (foreground, mean over cases)" in text
    assert f"NLL     {statistics.nll():.4f}" in text
    assert "(foreground, pooled voxels)" in repr(counted_without_cases())
    assert "<th" in statistics._repr_html_()
    assert statistics.summary()["ECE"] == statistics.ece()
    assert statistics.summary("case")["Dice_foreground_mean"] == statistics.dice()
    empty = repr(CalibrationStatistics(3, n_bins=10))
    assert empty.splitlines()[0] == "CalibrationStatistics(num_classes=3, n_bins=10)"


def counted_without_cases() -> CalibrationStatistics:
    statistics = CalibrationStatistics(3)
    p = probabilities(2, 3, 50)
    statistics.update(p, p.flip(2).argmax(1))
    return statistics


def test_an_interval_shows_estimate_and_bounds(result) -> None:
    found = bootstrap(result.calibration, "nll", n_resamples=50)
    text = repr(found)
    assert text.startswith(f"Interval {found.estimate:.4g} [{found.low:.4g}, {found.high:.4g}]")
    assert len(text) < 200
    assert "95 %" in found._repr_html_()


# --- one meaning of Dice --------------------------------------------------------------------------


def test_dice_is_the_foreground_mean_over_cases_unless_said_otherwise(result) -> None:
    statistics = result.calibration
    by_case = {case: statistics.case(case).per_class("dice", "pooled") for case in ("a", "b")}
    of_classes = np.nanmean(list(by_case.values()), axis=0)
    np.testing.assert_allclose(statistics.per_class("dice"), of_classes)
    assert statistics.dice() == pytest.approx(np.nanmean(of_classes[1:]))
    assert statistics.dice(background=True) == pytest.approx(np.nanmean(of_classes))
    pooled = statistics.per_class("dice", "pooled")
    assert statistics.dice("pooled") == pytest.approx(pooled[1:].mean())
    assert statistics.dice("pooled", background=True) == pytest.approx(pooled.mean())
    assert statistics.measure("dice") == statistics.dice()
    assert statistics.measure(Measure("dice", background=True), "pooled") == pooled.mean()
    assert bootstrap(statistics, "dice", n_resamples=5).estimate == pytest.approx(
        np.mean([np.nanmean(one[1:]) for one in by_case.values()])
    )


def test_dice_over_cases_needs_cases() -> None:
    with pytest.raises(ValueError, match="case_id must be given"):
        counted_without_cases().dice()
    assert counted_without_cases().dice("pooled") > 0


# --- the package ----------------------------------------------------------------------------------


def test_the_package_lists_what_users_call_and_nothing_else() -> None:
    listed = dir(fastcal)
    assert {"load_ensemble", "recalibrate", "regions", "view", "evaluate", "scores"} <= set(listed)
    assert not [name for name in listed if name.startswith("_") and name != "__version__"]
    assert not {"core", "ops", "cli", "triton_kernels", "annotations"} & set(listed)
    assert all(getattr(fastcal, name) is not None for name in listed)
