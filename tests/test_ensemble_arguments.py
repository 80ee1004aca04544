"""Outputs that the caller gives to the ensemble functions, and arguments that they refuse."""

from __future__ import annotations

import math

import pytest
import torch
from engines import on_every_engine
from map_checks import MAPS
from members import arranged, logits

import fastcal


@on_every_engine
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided", "cropped"])
def test_given_outputs_of_any_strides_are_filled(layout):
    members = logits(3, 4, (5, 37))
    expected = fastcal.ensemble_statistics(members, maps=MAPS)
    out = {}
    for name in MAPS:
        values = torch.full_like(getattr(expected, name), 7)
        out[name] = arranged(values, layout) if values.ndim > 2 else values
    if layout == "cropped":
        out = {name: torch.zeros_like(getattr(expected, name)) for name in MAPS}
        wide = torch.zeros(2, 9, 50)
        out["entropy"] = wide[:, 2:7, 3:40]
    got = fastcal.ensemble_statistics(members, maps=MAPS, out=out)
    for name in MAPS:
        assert torch.equal(out[name], getattr(expected, name)), name
        assert getattr(got, name).data_ptr() == out[name].data_ptr()
    if layout == "cropped":
        assert wide.sum() == pytest.approx(expected.entropy.sum().item(), rel=1e-5)


@on_every_engine
def test_a_tensor_is_taken_where_one_map_comes_out():
    members = logits(3, 4, (5, 7))
    out = torch.empty(2, 5, 7)
    got = fastcal.ensemble_entropy(members, out=out)
    assert got.data_ptr() == out.data_ptr()
    assert torch.equal(out, fastcal.ensemble_entropy(members))


@on_every_engine
@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64], ids=str
)
def test_labels_are_written_in_the_integer_type_given(dtype):
    members = logits(3, 4, (5, 7))
    label = torch.empty(2, 5, 7, dtype=dtype)
    fastcal.ensemble_statistics(members, maps=("label",), out={"label": label})
    assert torch.equal(label.long(), fastcal.ensemble_mean(members).argmax(1))


def test_outputs_that_lie_in_what_is_read_are_refused():
    members = logits(2, 4, (5, 7))
    target = torch.zeros(2, 5, 7, dtype=torch.int64)
    with pytest.raises(ValueError, match="out for 'entropy' must not share memory with preds"):
        fastcal.ensemble_entropy(members, out=members[1][:, 2])
    with pytest.raises(ValueError, match="out for 'label' must not share memory with target"):
        fastcal.ensemble_statistics(members, target, maps=("label",), out={"label": target})
    stream = fastcal.EnsembleAccumulator(maps=("label",))
    stream.update(members[0])
    with pytest.raises(ValueError, match="out for 'label' must not share memory with target"):
        stream.finalize(target, out={"label": target})
    both = torch.empty(3, 5, 7)
    out = {"entropy": both[:2], "confidence": both[1:]}
    with pytest.raises(ValueError, match=r"'confidence' must not .* out for 'entropy'"):
        fastcal.ensemble_statistics(members, maps=("entropy", "confidence"), out=out)


def test_outputs_beside_one_another_in_one_buffer_are_filled():
    members = logits(2, 4, (5, 7))
    both = torch.empty(2, 2, 5, 7)
    out = {"entropy": both[0], "confidence": both[1]}
    fastcal.ensemble_statistics(members, maps=("entropy", "confidence"), out=out)
    assert torch.equal(both[0], fastcal.ensemble_entropy(members))


@pytest.mark.parametrize(
    ("preds", "message"),
    [
        ([], "preds"),
        ([torch.zeros(1, 3, 4), torch.zeros(1, 2, 4)], r"preds\[1\]"),
        ([torch.zeros(1, 3, 4), torch.zeros(1, 3, 4, dtype=torch.float64)], r"preds\[1\]"),
        ([torch.zeros(1, 3, 4, dtype=torch.int64)], "int64"),
        ([torch.zeros(3)], "preds"),
        ([torch.zeros(1, 0, 4)], "class"),
        ("members", "preds"),
    ],
    ids=["none", "classes differ", "dtypes differ", "integers", "no voxel axis", "no class", "str"],
)
def test_bad_members_are_refused_by_name(preds, message):
    with pytest.raises((TypeError, ValueError), match=message):
        fastcal.ensemble_statistics(preds, maps=("entropy",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maps": ("entropie",)}, "entropie"),
        ({"activation": "relu"}, "activation.*relu"),
        ({"space": "log"}, "space.*log"),
        ({"class_dim": 5}, "class_dim.*5"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": [1.0, 2.0]}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"weights": [1.0]}, "weights"),
        ({"weights": [1.0, -1.0, 1.0]}, "weights"),
        ({"weights": [0.0, 0.0, 0.0]}, "weights"),
        ({"nan_policy": "ignore"}, "nan_policy"),
        ({"space": "logit", "maps": ("mutual_information",)}, "mutual_information"),
        ({"space": "logit", "maps": ("expected_entropy",)}, "expected_entropy"),
        ({"space": "logit", "maps": ("variance",)}, "variance"),
        ({"out": {"entropy": torch.zeros(2, 4)}}, "out.*entropy"),
        ({"out": {"entropy": torch.zeros(2, 5, dtype=torch.int64)}}, "out.*entropy"),
        ({"out": {"mean": torch.zeros(2, 3, 5)}}, "out.*mean"),
        ({"maps": ("label",), "out": {"label": torch.zeros(2, 5)}}, "out.*label"),
        ({"out": {"entropy": torch.zeros(2, 1).expand(2, 5)}}, "out.*entropy"),
    ],
    ids=str,
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises((TypeError, ValueError), match=f"(?s){message}"):
        fastcal.ensemble_statistics(logits(3, 3, (5,)), **{"maps": ("entropy",), **options})


def test_more_than_256_classes_draw_a_warning_that_suggests_class_dim():
    with pytest.warns(UserWarning, match="class_dim"):
        fastcal.ensemble_entropy([torch.zeros(1, 257, 2)])


@on_every_engine
@pytest.mark.parametrize("policy", ["raise", "omit"])
def test_invalid_voxels_raise_unless_omitted(policy):
    members = logits(2, 3, (50,), batch=1)
    members[1][0, 1, [4, 40]] = math.nan
    target = torch.zeros(1, 50, dtype=torch.int64)
    if policy == "raise":
        with pytest.raises(ValueError, match="2 "):
            fastcal.ensemble_statistics(members, target, maps=("entropy",), nan_policy=policy)
    else:
        got = fastcal.ensemble_statistics(members, target, maps=("entropy",), nan_policy=policy)
        assert got.calibration.n_invalid == 2
        assert got.calibration.n_voxels == 48


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_one_class_is_refused_unless_it_is_multilabel(activation, from_logits):
    members = [torch.rand(2, 1, 5) for _ in range(3)]
    reading = {"activation": activation, "from_logits": from_logits}
    message = (
        r"multilabel must be True .* one class, got False for class_dim 1 of shape \(2, 1, 5\)"
    )
    stream = fastcal.EnsembleAccumulator(**reading)
    calls = [
        lambda: fastcal.ensemble_entropy(members, **reading),
        lambda: fastcal.ensemble_mean(members, **reading),
        lambda: fastcal.ensemble_statistics(members, maps=("label", "variance"), **reading),
        lambda: fastcal.ensemble_statistics(members, torch.zeros(2, 5).long(), maps=(), **reading),
        lambda: stream.update(members[0]),
        lambda: stream.update(members[0], weight=0),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()
    assert stream.n_members == 0
    label = fastcal.ensemble_statistics(
        members, maps=("label",), multilabel=True, from_logits=from_logits
    ).label
    mean = fastcal.ensemble_mean(members, multilabel=True, from_logits=from_logits)
    assert torch.equal(label, (mean > 0.5).long())
