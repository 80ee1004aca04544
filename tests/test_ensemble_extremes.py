"""Saturated, infinite, invalid and subnormal numbers, ties, and known values of maps."""

from __future__ import annotations

import math

import oracle
import pytest
import torch
from engines import on_every_engine
from map_checks import FLOATS, MAPS, assert_maps_match, largest_error, plain_maps
from members import DTYPES, exact, logits

import fastcal


@on_every_engine
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_saturated_logits_stay_exact(dtype):
    values = torch.tensor([1e4, -1e4, 0.0, 5.0, -1e4]).to(dtype)
    grid = torch.cartesian_prod(values, values, values).T.reshape(1, 3, -1)
    members = [grid, grid.flip(1), grid.roll(1, 1)]
    expected = oracle.maps([exact(m) for m in members])
    got = fastcal.ensemble_statistics(members, maps=MAPS)
    names = tuple(name for name in MAPS if name != "disagreement")
    assert_maps_match(got, expected, names)


@on_every_engine
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_common_offset_of_ten_thousand_costs_no_accuracy(dtype):
    members = [(m.double().round() + 1e4).to(dtype) for m in logits(4, 5, (301,), batch=1)]
    expected = oracle.maps([exact(m) for m in members])
    got = fastcal.ensemble_statistics(members, maps=MAPS[:-1])
    assert_maps_match(got, expected, MAPS[:-1], plain=plain_maps(members))


@on_every_engine
@pytest.mark.parametrize("n_classes", [2, 4, 16, 17, 70])
def test_ties_go_to_the_lowest_class(n_classes):
    members = torch.zeros(2, 1, n_classes, 37)
    members[:, :, 0] = -1.0
    got = fastcal.ensemble_statistics(list(members), maps=("label", "disagreement"))
    assert (got.label == 1).all()
    assert (got.disagreement == 0).all()


@on_every_engine
def test_votes_that_tie_count_the_larger_share_once():
    one_hot = torch.eye(3)[:, None, :, None] * 50  # three members, each for another class
    got = fastcal.ensemble_statistics(one_hot, maps=("disagreement", "label"))
    assert got.disagreement.item() == pytest.approx(2 / 3, abs=1e-6)


@on_every_engine
@pytest.mark.parametrize("n_classes", [2, 4, 20])
def test_minus_infinity_is_probability_zero(n_classes):
    members = logits(3, n_classes, (131,), batch=1)
    for i, m in enumerate(members):
        m[:, i % (n_classes - 1) + 1, ::2] = -math.inf
    expected = oracle.maps([exact(m) for m in members])
    assert expected.valid.all()
    assert_maps_match(fastcal.ensemble_statistics(members, maps=MAPS), expected, MAPS)


@on_every_engine
def test_a_nan_probability_stays_nan_under_a_temperature():
    p = torch.tensor([[math.nan, 0.2], [0.3, 0.8]]).reshape(1, 2, 2)
    got = fastcal.ensemble_mean([p], from_logits=False, activation="sigmoid", temperature=2.0)
    assert got[0, :, 0].isnan().all()
    assert got[0, :, 1].tolist() == pytest.approx([1 / 3, 2 / 3])


@on_every_engine
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf, "all -inf"], ids=str)
@pytest.mark.parametrize("n_classes", [3, 18])
def test_an_invalid_voxel_is_nan_and_no_other_voxel_notices(dtype, bad, n_classes):
    members = logits(3, n_classes, (90,), dtype=dtype, batch=2)
    clean = fastcal.ensemble_statistics(members, maps=MAPS)
    hurt = [m.clone() for m in members]
    places = [0, 33, 64, 89]
    if bad == "all -inf":
        hurt[1][1, :, places] = -math.inf
    else:
        hurt[1][1, 2, places] = bad
    got = fastcal.ensemble_statistics(hurt, maps=MAPS, nan_policy="omit")
    healthy = torch.ones(2, 90, dtype=torch.bool)
    healthy[1, places] = False
    for name in MAPS:
        a, b = getattr(got, name), getattr(clean, name)
        if name == "mean":
            a, b = a.movedim(1, -1), b.movedim(1, -1)
        assert torch.equal(a[healthy], b[healthy]), name
        if name == "label":
            assert (a[~healthy] == -1).all()
        else:
            assert a[~healthy].isnan().all(), name
    assert_maps_match(got, oracle.maps([exact(m) for m in hurt]), MAPS)


@on_every_engine
def test_an_invalid_voxel_sets_every_bit_of_an_unsigned_label():
    members = logits(2, 3, (5,), batch=1)
    members[0][0, 0, 3] = math.nan
    label = torch.zeros(1, 5, dtype=torch.uint8)
    fastcal.ensemble_statistics(members, maps=("label",), out={"label": label}, nan_policy="omit")
    assert label[0, 3] == 255
    assert (label[0, [0, 1, 2, 4]] < 3).all()


@on_every_engine
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_subnormal_numbers_are_ordinary_numbers(dtype):
    tiny = torch.finfo(dtype).tiny
    z = torch.tensor([[[tiny / 4, -tiny / 2, 0.0]], [[0.0, tiny / 8, tiny]]], dtype=dtype)
    z = z.reshape(1, 2, 3)
    got = fastcal.ensemble_statistics([z, z], maps=MAPS[:-1])
    assert_maps_match(got, oracle.maps([exact(z)] * 2), MAPS[:-1])
    p = torch.tensor([[[tiny / 4, 1e-30 if dtype != torch.float16 else 0.0], [1.0, 1.0]]])
    p = p.to(dtype)
    got = fastcal.ensemble_statistics([p], maps=MAPS, from_logits=False)
    assert_maps_match(got, oracle.maps([exact(p)], from_logits=False), MAPS)


@on_every_engine
@pytest.mark.filterwarnings("ignore:.*do not sum to 1")
def test_probabilities_out_of_range_are_invalid_and_rounding_below_zero_is_clamped():
    p = torch.tensor([[[0.5, -5e-4, -2e-3, 1.0005, 1.01], [0.5, 1.0, 1.0, 0.0, 0.0]]])
    got = fastcal.ensemble_statistics(
        [p], maps=("mean", "entropy", "label"), from_logits=False, nan_policy="omit"
    )
    expected = oracle.maps([exact(p)], from_logits=False)
    assert expected.valid.tolist() == [[True, True, False, True, False]]
    assert_maps_match(got, expected, ("mean", "entropy", "label"))
    assert got.mean[0, 0, 1] == 0


@on_every_engine
def test_values_of_known_ensembles():
    """torch-uncertainty: H([.5 .5]) = ln 2; MI of opposite one-hots = ln 2, of equal members 0."""
    half = torch.zeros(1, 2, 1)
    left, right = torch.tensor([[[1.0], [0.0]]]), torch.tensor([[[0.0], [1.0]]])
    names = ("entropy", "mutual_information", "variance", "disagreement")
    even = fastcal.ensemble_statistics([half, half], maps=names)
    split = fastcal.ensemble_statistics([left, right], maps=names, from_logits=False)
    same = fastcal.ensemble_statistics([left, left], maps=names, from_logits=False)
    assert even.entropy.item() == pytest.approx(math.log(2), abs=1e-6)
    assert even.mutual_information.item() == pytest.approx(0, abs=1e-6)
    assert split.mutual_information.item() == pytest.approx(math.log(2), abs=1e-6)
    assert split.variance.item() == 0.25
    assert split.disagreement.item() == 0.5
    assert [getattr(same, name).item() for name in names] == [0, 0, 0, 0]


@on_every_engine
@pytest.mark.parametrize("n_classes", [2, 5, 40])
def test_float64_members_are_computed_in_float64(n_classes):
    members = logits(3, n_classes, (257,), dtype=torch.float64, batch=1)
    got = fastcal.ensemble_statistics(members, maps=FLOATS)
    expected = oracle.maps([exact(m) for m in members])
    for name in FLOATS:
        assert largest_error(getattr(got, name), getattr(expected, name)) < 1e-12, name
