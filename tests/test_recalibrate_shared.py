"""What the methods of `fastcal.recalibrate` share: streams, files, ensembles, refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recalibration_volumes import (
    SOFTMAX,
    generator,
    overconfident,
    volume,
)
from recalibration_volumes import one_thread as one_thread
from torch import Tensor

import fastcal
from fastcal.core.errors import DataError
from fastcal.recalibrate import (
    METHODS,
    Calibrator,
    DirichletCalibration,
    EnsembleCalibration,
    TemperatureScaling,
    VectorScaling,
    load,
    methods,
    sample,
    volumes,
)
from fastcal.recalibrate.sample import Sampler
from fastcal.recalibrate.temperature_pass import temperature_pass
from fastcal.recalibrate.volumes import PredictionReading, read_volume


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
    # How many voxels were read is told only by the one that read them.
    assert repr(read).splitlines()[0] == repr(ensemble).splitlines()[0]
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
