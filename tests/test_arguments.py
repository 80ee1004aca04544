"""Plain arguments of a wrong type are refused by name, before any op sees them."""

from pathlib import Path

import numpy as np
import pytest
import torch

import fastcal
from fastcal.core.arguments import flag, real_number, whole_number

MEMBERS = [torch.zeros(2, 3, 4)]
TARGET = torch.zeros(2, 4, dtype=torch.int64)
PROBS = torch.full((2, 3, 4), 0.25)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_any_integer_type_is_a_whole_number(value):
    assert type(whole_number(value, "n")) is int
    assert whole_number(value, "n") == 3


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5)])
def test_any_real_type_is_a_number(value):
    assert type(real_number(value, "x")) is float
    assert real_number(value, "x") == 0.5


def test_a_bool_is_no_number_and_a_number_is_no_flag():
    with pytest.raises(TypeError, match="n must be an integer, got True"):
        whole_number(True, "n")
    with pytest.raises(TypeError, match="x must be a number, got True"):
        real_number(True, "x")
    with pytest.raises(TypeError, match="on must be True or False, got 1"):
        flag(1, "on")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_dim": "1"}, "class_dim must be an integer, got '1'"),
        ({"class_dim": 1.0}, "class_dim must be an integer, got 1.0"),
        ({"from_logits": "no"}, "from_logits must be True or False, got 'no'"),
        ({"multilabel": None}, "multilabel must be True or False, got None"),
        ({"normalise": "yes"}, "normalise must be True or False, got 'yes'"),
        ({"temperature": True}, "temperature must be a number, got True"),
        ({"temperature": ["a"]}, r"temperature\[0\] must be a number, got 'a'"),
        ({"weights": 2.0}, "weights must be a list of numbers, one per member, got float"),
        ({"weights": [Path("a")]}, r"weights\[0\] must be a number, got PosixPath"),
        ({"maps": None}, "maps must be names of maps, got NoneType"),
        ({"ignore_index": 1.5}, "ignore_index must be an integer, got 1.5"),
        ({"n_bins": "15"}, "n_bins must be an integer, got '15'"),
        ({"eps": "tiny"}, "eps must be a number, got 'tiny'"),
    ],
)
def test_a_wrong_type_is_refused_by_name(options, message):
    with pytest.raises(TypeError, match=message):
        fastcal.ensemble_statistics(MEMBERS, TARGET, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fastcal.EnsembleAccumulator(class_dim="1"), "class_dim must be an integer"),
        (lambda: fastcal.EnsembleAccumulator(from_logits=1), "from_logits must be True or False"),
        (
            lambda: fastcal.EnsembleAccumulator().update(MEMBERS[0], weight="a"),
            "weight must be a number, got 'a'",
        ),
        (
            lambda: fastcal.EnsembleAccumulator().update(MEMBERS[0], temperature=[1.0]),
            "temperature must be a number, got list",
        ),
        (lambda: fastcal.CalibrationStatistics("3"), "num_classes must be an integer, got '3'"),
        (
            lambda: fastcal.CalibrationStatistics(3).update(PROBS, TARGET, normalise=1),
            "normalise must be True or False, got 1",
        ),
        (
            lambda: fastcal.CalibrationStatistics(3).reliability("edema"),
            "class_index must be an integer, got 'edema'",
        ),
    ],
)
def test_methods_refuse_a_wrong_type_by_name(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_numpy_integers_serve_as_sizes():
    statistics = fastcal.CalibrationStatistics(np.int64(3), n_bins=np.int32(5))
    assert statistics == fastcal.CalibrationStatistics(3, 5)


def test_a_sparse_member_is_refused_by_name():
    with pytest.raises(TypeError, match=r"preds\[0\] must be a dense tensor, got torch.sparse_coo"):
        fastcal.ensemble_entropy([MEMBERS[0].to_sparse()])


def test_an_unknown_calibration_is_refused_under_its_own_name():
    with pytest.raises(ValueError, match=r"calibration must be .*, got 'toplabel'"):
        fastcal.ensemble_statistics(MEMBERS, TARGET, calibration="toplabel")
