"""Numbers of extreme size: a result is right, or it is the limit, or an error; never NaN."""

from __future__ import annotations

import math

import numpy as np
import oracle
import pytest
import torch
from engines import on_every_engine
from map_checks import assert_maps_match
from members import exact, labels, logits, probabilities

import fastcal
from fastcal.losses import DiceCELoss

MAPS = ("mean", "label", "entropy", "expected_entropy", "mutual_information", "variance")


# Targets


BAD_TARGETS = [
    (2**32, torch.int64),
    (2**32 + 1, torch.int64),
    (-(2**32) + 1, torch.int64),
    (2**63 - 1, torch.int64),
    (-(2**63), torch.int64),
    (2**64 - 1, torch.uint64),
    (2**32 - 1, torch.uint32),
    (2**31 + 1, torch.uint32),
]


def target_with(bad: int, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    values = np.zeros(shape, str(dtype).removeprefix("torch."))
    values.flat[5] = bad
    return torch.from_numpy(values)


@on_every_engine
@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize(("bad", "dtype"), BAD_TARGETS, ids=str)
def test_a_target_is_compared_before_it_is_narrowed(bad, dtype, multilabel):
    members = logits(1, 3, (40,), batch=1)
    target = target_with(bad, dtype, (1, 3, 40) if multilabel else (1, 40))
    for ignored in (None, 1, 7 if multilabel else 0, -1, 255):
        with pytest.raises(ValueError, match=rf"target must lie in .*, got {bad} at 1 voxel"):
            fastcal.ensemble_statistics(
                members, target, maps=(), multilabel=multilabel, ignore_index=ignored
            )


@on_every_engine
@pytest.mark.parametrize("ignored", [2**32 + 1, -(2**63), 2**64 + 1, 2**64 - 1])
def test_an_ignored_value_is_not_narrowed(ignored):
    members = logits(1, 3, (40,), batch=1)
    target = torch.ones(1, 40, dtype=torch.int64)
    got = fastcal.ensemble_statistics(members, target, maps=(), ignore_index=ignored).calibration
    assert got.n_voxels == 40
    if -(2**63) <= ignored < 2**63:
        target[0, 3] = ignored
        got = fastcal.ensemble_statistics(members, target, maps=(), ignore_index=ignored)
        assert got.calibration.n_voxels == 39


@on_every_engine
def test_many_bad_targets_are_named_although_their_sum_overflows():
    target = torch.full((1, 40), -(2**63))
    with pytest.raises(ValueError, match=rf"got {-(2**63)} at 40 voxels"):
        fastcal.ensemble_statistics(logits(1, 3, (40,), batch=1), target, maps=())


@pytest.mark.parametrize("bad", [2**32 + 1, -(2**63), 2**63 - 1])
def test_losses_refuse_targets_of_any_size(bad):
    target = torch.zeros(1, 8, 8, dtype=torch.int64)
    target[0, 0, :2] = bad
    with pytest.raises(ValueError, match="target must"):
        DiceCELoss()(torch.zeros(1, 3, 8, 8), target)


# Weights and temperatures


SCALES = [2.0**power for power in (-1074, -1000, -150, 130, 1021)]


@on_every_engine
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("scale", SCALES)
def test_only_the_ratios_of_weights_matter(scale, dtype):
    members = logits(3, 4, (33,), dtype=dtype)
    weights = [scale, 3 * scale, 2 * scale]
    got = fastcal.ensemble_statistics(members, maps=MAPS, weights=weights)
    expected = fastcal.ensemble_statistics(members, maps=MAPS, weights=[1.0, 3.0, 2.0])
    stream = fastcal.EnsembleAccumulator(MAPS)
    for member, weight in zip(members, weights, strict=True):
        stream.update(member, weight=weight)
    for name in MAPS:
        assert torch.equal(getattr(got, name), getattr(expected, name)), name
        assert torch.equal(getattr(stream.finalize(), name), getattr(expected, name)), name


@on_every_engine
@pytest.mark.parametrize(
    "weights", [[5e-324, 1e308], [1e308, 5e-324], [1e-30, 1.0], [1e308, 1e308]]
)
def test_a_weight_that_vanishes_leaves_the_other_member(weights):
    members = logits(2, 4, (33,))
    got = fastcal.ensemble_statistics(members, maps=MAPS, weights=weights)
    shares = np.array(weights) / max(weights)
    assert_maps_match(got, oracle.maps([exact(m) for m in members], weights=shares), MAPS)
    stream = fastcal.EnsembleAccumulator(MAPS)
    for member, weight in zip(members, weights, strict=True):
        stream.update(member, weight=weight)
    for name in MAPS:
        assert torch.equal(getattr(stream.finalize(), name), getattr(got, name)), name


@on_every_engine
@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize("reading", ["softmax", "sigmoid", "logit", "probabilities"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_temperatures_in_range_give_numbers(temperature, reading, dtype):
    options = {
        "softmax": {},
        "sigmoid": {"activation": "sigmoid"},
        "logit": {"space": "logit"},
        "probabilities": {"from_logits": False},
    }[reading]
    make = probabilities if reading == "probabilities" else logits
    members = make(2, 3, (40,), dtype=dtype)
    names = ("mean", "entropy") if reading == "logit" else ("mean", "entropy", "expected_entropy")
    got = fastcal.ensemble_statistics(members, maps=names, temperature=temperature, **options)
    expected = oracle.maps([exact(m) for m in members], temperatures=[temperature] * 2, **options)
    for name in names:
        np.testing.assert_allclose(getattr(got, name), getattr(expected, name), atol=3e-6)


@pytest.mark.parametrize("temperature", [5e-324, 1e-38, 9e-7, 1.1e6, 1e300, math.inf, math.nan])
def test_temperatures_beyond_what_can_be_computed_are_refused(temperature):
    members = logits(2, 3, (5,))
    with pytest.raises(ValueError, match=r"temperature must lie in \[1e-06, 1e\+06\], got"):
        fastcal.ensemble_entropy(members, temperature=temperature)
    with pytest.raises(ValueError, match="temperature must lie in"):
        fastcal.EnsembleAccumulator().update(members[0], temperature=temperature)


# Probabilities out of range


@on_every_engine
@pytest.mark.parametrize("bad", [(1.4, -0.4), (-0.4, 1.4), (1.002, -0.002), (3e38, 0.0)], ids=str)
@pytest.mark.parametrize("options", [{}, {"temperature": 2.0}, {"multilabel": True}], ids=str)
@pytest.mark.parametrize("n_members", [2, 5])
def test_a_member_out_of_range_makes_its_voxel_invalid(bad, options, n_members):
    members = probabilities(n_members, 2, (50,), exclusive="multilabel" not in options)
    members[1][1, :, 7] = torch.tensor(bad)
    members[0][1, :, 7] = 1 - members[1][1, :, 7].clamp(0, 1)  # so that the mean may be in range
    target = labels(2, (2, 2, 50) if "multilabel" in options else (2, 50))
    reading = {"from_logits": False, **options}
    for weights in (None, [1e-20] + [1.0] * (n_members - 1)):
        got = fastcal.ensemble_statistics(
            members, target, maps=MAPS, nan_policy="omit", weights=weights, **reading
        )
        assert got.calibration.n_invalid == 1
        assert got.calibration.n_voxels == 99
        assert got.label[1, ..., 7].eq(-1).all()
        for name in set(MAPS) - {"label"}:
            assert getattr(got, name)[1, ..., 7].isnan().all(), name
            assert getattr(got, name).isnan().sum() <= 2, name
        assert got.expected_entropy.nan_to_num(0).min() >= 0
        with pytest.raises(ValueError, match="no valid probabilities at 1 voxel"):
            fastcal.ensemble_statistics(members, target, maps=MAPS, weights=weights, **reading)
    stream = fastcal.EnsembleAccumulator(
        MAPS, from_logits=False, multilabel="multilabel" in options
    )
    for member in members:
        stream.update(member, temperature=options.get("temperature", 1.0))
    streamed = stream.finalize(target, nan_policy="omit")
    whole = fastcal.ensemble_statistics(members, target, maps=MAPS, nan_policy="omit", **reading)
    assert streamed.calibration == whole.calibration


@on_every_engine
@pytest.mark.parametrize("multilabel", [False, True])
def test_entropies_are_never_negative(multilabel):
    p = torch.tensor([[[1.0009, 1.0, 1.0000001], [-0.0009, 0.0, -1e-7]]])
    got = fastcal.ensemble_statistics(
        [p, p], maps=MAPS, from_logits=False, multilabel=multilabel, nan_policy="omit"
    )
    for name in ("entropy", "expected_entropy", "mutual_information"):
        assert (getattr(got, name) >= 0).all(), name
    assert (fastcal.ensemble_entropy(logits(2, 3, (500,), scale=60.0)) >= 0).all()


# Sums of probabilities


@pytest.mark.parametrize("values", [0.5, 0.0, 0.34], ids=str)
@pytest.mark.parametrize("shape", [(9,), (40, 50, 60)], ids=str)
def test_maps_alone_warn_of_probabilities_that_do_not_sum_to_1(values, shape):
    members = [torch.full((2, 3, *shape), values / 3 if values == 0.5 else values)] * 2
    reading = {"from_logits": False}
    with pytest.warns(UserWarning, match="do not sum to 1 within"):
        fastcal.ensemble_statistics(members, **reading)
    with pytest.warns(UserWarning, match="do not sum to 1 within") as said:
        fastcal.ensemble_entropy(members, **reading)
    assert said[0].filename == __file__
    stream = fastcal.EnsembleAccumulator(**reading)
    for member in members:
        stream.update(member, weight=3.0)
    with pytest.warns(UserWarning, match="do not sum to 1 within"):
        stream.finalize()


def test_maps_alone_do_not_warn_where_sums_are_right_or_do_not_matter():
    members = probabilities(2, 3, (30, 30, 30))
    off = [member * 0.5 for member in members]
    fastcal.ensemble_statistics(members, from_logits=False)
    fastcal.ensemble_statistics(off, from_logits=False, normalise=True)
    fastcal.ensemble_statistics(off, from_logits=False, multilabel=True)
    fastcal.ensemble_statistics(off, from_logits=False, activation="sigmoid")
    fastcal.ensemble_statistics(off, from_logits=False, temperature=2.0)
    fastcal.ensemble_statistics(off)


@pytest.mark.filterwarnings("ignore:.*classes along axis")
def test_more_unnormalised_classes_than_a_brier_score_holds_are_refused():
    z, target = torch.zeros(1, 2001, 3), torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="normalise must be True to count more than 2000 classes"):
        fastcal.ensemble_statistics([z], target, maps=(), activation="sigmoid")
    stream = fastcal.EnsembleAccumulator(activation="sigmoid")
    stream.update(z)
    stream.finalize()
    with pytest.raises(ValueError, match="normalise must be True to count more than 2000 classes"):
        stream.finalize(target)
    statistics = fastcal.CalibrationStatistics(3000)
    with pytest.raises(ValueError, match="more than 2000 classes must sum to 1"):
        statistics.update(torch.ones(1, 3000, 3), target)
    assert statistics.n_voxels == 0
    statistics.update(torch.full((1, 3000, 3), 1 / 3000, dtype=torch.float64), target)
    assert statistics.brier() == pytest.approx(1 - 1 / 3000)


@on_every_engine
@pytest.mark.filterwarnings("ignore:.*classes along axis")
def test_the_brier_score_of_the_most_unnormalised_classes_is_right():
    z = torch.full((1, 2000, 37), 60.0)
    got = fastcal.ensemble_statistics(
        [z], torch.zeros(1, 37, dtype=torch.long), maps=(), activation="sigmoid"
    )
    assert got.calibration.brier() == 1999


# Outputs


@pytest.mark.parametrize(
    ("shape", "strides"),
    [((4, 6), (1, 1)), ((4, 6), (5, 1)), ((4, 6), (0, 1)), ((4, 6), (2, 3)), ((4, 6), (12, 0))],
    ids=str,
)
def test_an_output_that_overlaps_itself_is_refused(shape, strides):
    out = torch.zeros(100).as_strided(shape, strides)
    members = logits(2, 3, (6,), batch=4)
    with pytest.raises(ValueError, match="out for 'entropy' must have memory of its own"):
        fastcal.ensemble_entropy(members, out=out)


@pytest.mark.parametrize("strides", [(6, 1), (1, 4), (7, 1), (12, 2), (1, 9)], ids=str)
def test_an_output_of_any_strides_that_keep_apart_is_taken(strides):
    out = torch.zeros(100).as_strided((4, 6), strides)
    members = logits(2, 3, (6,), batch=4)
    fastcal.ensemble_entropy(members, out=out)
    assert torch.equal(out, fastcal.ensemble_entropy(members))


def test_an_output_that_shares_memory_with_regions_is_refused():
    from fastcal.regions import Regions

    members, target = logits(1, 3, (64,), batch=1), labels(3, (1, 64))
    memory = torch.zeros(1, 64, dtype=torch.uint8)
    regions = Regions(memory, ("one",))
    with pytest.raises(ValueError, match="out for 'label' must not share memory with regions"):
        fastcal.ensemble_statistics(
            members, target, maps=("label",), regions=regions, out={"label": memory}
        )


def _streamed(z, **options):
    stream = fastcal.EnsembleAccumulator(**options)
    stream.update(z)
    return stream.finalize().entropy


@pytest.mark.parametrize(
    "function",
    [
        lambda z: fastcal.ensemble_entropy([z]),
        lambda z: fastcal.ensemble_mean([z]),
        _streamed,
        lambda z: fastcal.ensemble_entropy([z], from_logits=False),
        lambda z: fastcal.ensemble_statistics([z], maps=("label",), from_logits=False).label,
        lambda z: _streamed(z, from_logits=False),
    ],
)
def test_vmap_says_what_to_do_instead(function):
    with pytest.raises(NotImplementedError, match=r"vmap must not .* fold the mapped axis into"):
        torch.func.vmap(function)(torch.randn(5, 2, 3, 8))
