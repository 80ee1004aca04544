"""Members streamed one at a time give what one call gives."""

from __future__ import annotations

import pytest
import torch
from engines import on_every_engine
from members import DTYPES, arranged, labels, logits, pairwise, probabilities

import fastcal

MAPS = (
    "mean",
    "label",
    "confidence",
    "entropy",
    "expected_entropy",
    "mutual_information",
    "variance",
    "disagreement",
)
LOGIT_MAPS = ("mean", "label", "confidence", "entropy", "disagreement")


def assert_same_bits(a: fastcal.EnsembleStatistics, b: fastcal.EnsembleStatistics) -> None:
    for name in MAPS:
        left, right = getattr(a, name, None), getattr(b, name, None)
        assert (left is None) == (right is None), name
        if left is not None:
            assert left.dtype == right.dtype
            assert torch.equal(left.nan_to_num(nan=-9), right.nan_to_num(nan=-9)), name


@on_every_engine
@pytest.mark.parametrize(
    ("dtype", "n_classes", "n_members", "layout"),
    pairwise(DTYPES, (2, 4, 16, 23, 90), (1, 2, 5), ("contiguous", "channels_last", "strided")),
    ids=str,
)
def test_streaming_gives_the_bits_of_one_shot(dtype, n_classes, n_members, layout):
    shape = (3, 5, 71) if n_classes < 20 else (4, 19)
    members = [arranged(m, layout) for m in logits(n_members, n_classes, shape, dtype=dtype)]
    stream = fastcal.EnsembleAccumulator(maps=MAPS)
    for member in members:
        stream.update(member)
    assert stream.n_members == n_members
    assert_same_bits(stream.finalize(), fastcal.ensemble_statistics(members, maps=MAPS))


@on_every_engine
@pytest.mark.parametrize(
    ("reading", "maps"),
    [
        ({"activation": "sigmoid"}, MAPS),
        ({"activation": "sigmoid", "multilabel": True}, MAPS),
        ({"space": "logit"}, LOGIT_MAPS),
        ({"from_logits": False}, MAPS),
        ({"class_dim": 2}, MAPS),
    ],
    ids=str,
)
def test_streaming_gives_the_bits_of_one_shot_for_every_reading(reading, maps):
    make = logits if reading.get("from_logits", True) else probabilities
    members = make(3, 4, (6, 9))
    if "class_dim" in reading:
        members = [m.movedim(1, 2) for m in members]
    weights, temperatures = [1.0, 3.0, 0.5], [1.0, 2.0, 0.7]
    stream = fastcal.EnsembleAccumulator(maps=maps, **reading)
    for member, weight, temperature in zip(members, weights, temperatures, strict=True):
        stream.update(member, weight=weight, temperature=temperature)
    whole = fastcal.ensemble_statistics(
        members, maps=maps, weights=weights, temperature=temperatures, **reading
    )
    assert_same_bits(stream.finalize(), whole)


@on_every_engine
def test_streamed_statistics_are_the_integers_of_one_shot():
    members, target = logits(4, 3, (7, 90)), labels(3, (2, 7, 90))
    stream = fastcal.EnsembleAccumulator(maps=("entropy",))
    for member in members:
        stream.update(member)
    streamed = stream.finalize(target).calibration.state_dict()
    whole = fastcal.ensemble_statistics(members, target).calibration.state_dict()
    assert streamed.keys() == whole.keys()
    for key, value in whole.items():
        same = (
            torch.equal(streamed[key], value)
            if torch.is_tensor(value)
            else (streamed[key] == value)
        )
        assert same, key


@on_every_engine
def test_finalize_leaves_the_state_so_that_members_can_follow():
    members = logits(3, 4, (33,))
    stream = fastcal.EnsembleAccumulator(maps=("entropy", "mean"))
    for n, member in enumerate(members, start=1):
        stream.update(member)
        assert_same_bits(
            stream.finalize(), fastcal.ensemble_statistics(members[:n], maps=("entropy", "mean"))
        )


@on_every_engine
def test_a_member_may_be_overwritten_after_its_update():
    members = logits(3, 4, (33,))
    stream = fastcal.EnsembleAccumulator(maps=("mean",))
    buffer = torch.empty_like(members[0])
    for member in members:
        stream.update(buffer.copy_(member))
    buffer.zero_()
    assert torch.equal(stream.finalize().mean, fastcal.ensemble_mean(members))


def test_finalize_without_members_is_refused():
    with pytest.raises((ValueError, RuntimeError), match="member"):
        fastcal.EnsembleAccumulator(maps=("mean",)).finalize()


@on_every_engine
def test_a_member_of_another_shape_is_refused_and_the_state_kept():
    members = logits(2, 3, (5,))
    stream = fastcal.EnsembleAccumulator(maps=("mean",))
    stream.update(members[0])
    for wrong in (torch.zeros(2, 4, 5), torch.zeros(2, 3, 6), members[0].double()):
        with pytest.raises((TypeError, ValueError), match="member"):
            stream.update(wrong)
    assert stream.n_members == 1
    stream.update(members[1])
    assert torch.equal(stream.finalize().mean, fastcal.ensemble_mean(members))


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_bad_weight_is_refused_by_name(value):
    with pytest.raises(ValueError, match="weight"):
        fastcal.EnsembleAccumulator(maps=("mean",)).update(torch.zeros(1, 2, 3), weight=value)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_bad_temperature_is_refused_by_name(value):
    with pytest.raises(ValueError, match="temperature"):
        fastcal.EnsembleAccumulator(maps=("mean",)).update(torch.zeros(1, 2, 3), temperature=value)


@pytest.mark.parametrize("order", [(0, 1, 4, 3, 2), (0, 4, 3, 2, 1)], ids=["nnU-Net", "NIfTI"])
def test_members_whose_axes_are_turned_give_the_same_bits_and_maps_that_lie_as_they_do(order):
    """Adding them to a state that lies otherwise takes ten times as long."""
    names = ("label", "entropy", "variance", "mean")
    straight, turned = (fastcal.EnsembleAccumulator(names) for _ in range(2))
    for seed in range(3):
        member = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(seed))
        straight.update(member)
        turned.update(member.permute(order).contiguous().permute(order))
    expected, found = straight.finalize(), turned.finalize()
    for name in names:
        one, other = getattr(expected, name), getattr(found, name)
        assert torch.equal(one, other), name
        assert one.is_contiguous()
        # Of the axes of space, the first is the fastest.
        assert other.stride()[-3:] == tuple(sorted(other.stride()[-3:])), name
