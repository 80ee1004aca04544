"""Maps of the ensemble pass against the float64 oracle, on every backend and instruction set."""

from __future__ import annotations

from functools import cache

import oracle
import pytest
import torch
from engines import on_every_engine
from map_checks import FLOATS, MAPS, assert_maps_match, laid_out, plain_maps
from members import DTYPES, LAYOUTS, arranged, exact, logits, pairwise, probabilities
from torch import Tensor

import fastcal

PROB_ONLY = ("expected_entropy", "mutual_information", "variance")
CLASSES = (2, 3, 4, 7, 14, 16, 17, 33, 104, 300)


@cache
def oracle_case(
    dtype: torch.dtype, n_classes: int, n_members: int, batch: int
) -> tuple[list[Tensor], oracle.Maps, dict[str, Tensor]]:
    """Members with the oracle's and plain PyTorch's maps; a volume of some size where C is large,
    because the yardstick is a maximum over the volume."""
    shape = (3, 5, 7) if n_classes < 100 else (20, 15)
    members = logits(n_members, n_classes, shape, dtype=dtype, batch=batch, seed=n_classes)
    return members, oracle.maps([exact(m) for m in members]), plain_maps(members)


@on_every_engine
@pytest.mark.filterwarnings("ignore:.*classes along axis")
@pytest.mark.parametrize(
    ("dtype", "n_classes", "n_members", "layout"),
    pairwise(DTYPES, CLASSES, (1, 2, 5, 12), LAYOUTS),
    ids=str,
)
def test_maps_match_the_oracle(dtype, n_classes, n_members, layout):
    batch = 1 if layout == "class_first" else 2
    members, expected, plain = oracle_case(dtype, n_classes, n_members, batch)
    preds, class_dim = laid_out(members, layout)
    got = fastcal.ensemble_statistics(preds, maps=MAPS, class_dim=class_dim)
    if layout == "class_first":
        maps = {name: getattr(got, name).unsqueeze(0) for name in MAPS}
        got = fastcal.EnsembleStatistics(**maps)
    assert_maps_match(got, expected, MAPS, plain=plain)


@on_every_engine
@pytest.mark.filterwarnings("ignore:.*classes along axis")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_any_number_of_classes_is_computed(layout):
    """Every specialised count, every tier and the loop beyond: the neighbours of each boundary."""
    for n_classes in (*range(2, 35), 47, 48, 49, 63, 64, 65, 128, 1000):
        size = 19 if n_classes < 40 else 150
        members = [arranged(m, layout) for m in logits(2, n_classes, (size,), seed=n_classes)]
        got = fastcal.ensemble_statistics(members, maps=MAPS)
        expected = oracle.maps([exact(m) for m in members])
        assert_maps_match(got, expected, MAPS, plain=plain_maps(members))


@on_every_engine
@pytest.mark.parametrize("name", MAPS)
def test_maps_have_the_documented_dtype(name):
    for dtype in DTYPES:
        got = getattr(
            fastcal.ensemble_statistics(logits(2, 3, (4,), dtype=dtype), maps=(name,)), name
        )
        real = torch.float64 if dtype == torch.float64 else torch.float32
        assert got.dtype == (torch.int64 if name == "label" else real)


def test_only_the_requested_maps_come_out():
    got = fastcal.ensemble_statistics(logits(2, 3, (4,)), maps=("label", "variance"))
    present = {name for name in MAPS if hasattr(got, name)}
    assert present == {"label", "variance"}
    assert got.calibration is None


@on_every_engine
@pytest.mark.parametrize(
    ("activation", "multilabel", "from_logits", "space", "weights", "temperature", "n_classes"),
    [
        case
        for case in pairwise(
            ("softmax", "sigmoid"),
            (False, True),
            (True, False),
            ("prob", "logit"),
            (None, (0.5, 2.0, 1.0)),
            (1.0, 1.7, (0.5, 1.0, 2.0)),
            (2, 4, 19),
        )
        if not (case[0] == "softmax" and case[1])
    ],
    ids=str,
)
def test_every_reading_matches_the_oracle(
    activation, multilabel, from_logits, space, weights, temperature, n_classes
):
    exclusive = activation == "softmax" and not multilabel
    make = logits if from_logits else probabilities
    extra = {} if from_logits else {"exclusive": exclusive}
    members = make(3, n_classes, (5, 11), seed=1, **extra)
    names = tuple(n for n in MAPS if space == "prob" or n not in PROB_ONLY)
    reading = {
        "from_logits": from_logits,
        "activation": activation,
        "multilabel": multilabel,
        "space": space,
        "weights": weights,
        "temperatures": temperature if isinstance(temperature, tuple) else (temperature,) * 3,
    }
    expected = oracle.maps([exact(m) for m in members], **reading)
    plain = plain_maps(members, **reading)
    got = fastcal.ensemble_statistics(
        members,
        maps=names,
        from_logits=from_logits,
        activation=activation,
        multilabel=multilabel,
        space=space,
        weights=None if weights is None else list(weights),
        temperature=list(temperature) if isinstance(temperature, tuple) else temperature,
    )
    assert_maps_match(got, expected, names, plain=plain)


@on_every_engine
def test_entropy_and_mean_functions_give_the_maps_of_the_full_pass():
    members = logits(3, 4, (6, 17))
    full = fastcal.ensemble_statistics(members, maps=MAPS)
    assert torch.equal(fastcal.ensemble_entropy(members), full.entropy)
    assert torch.equal(fastcal.ensemble_mean(members), full.mean)


@on_every_engine
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1, 15, 16, 17, 31, 63, 64, 65, 127, 1023, 1024, 1025, 2049, 4097])
def test_block_tails_of_every_size_are_computed(dtype, size):
    members = logits(2, 3, (size,), dtype=dtype, batch=1, seed=size)
    got = fastcal.ensemble_statistics(members, maps=MAPS)
    expected = oracle.maps([exact(m) for m in members])
    assert_maps_match(got, expected, MAPS)


@on_every_engine
@pytest.mark.parametrize("size", [(0, 3, 4), (2, 3, 0), (2, 3, 4, 0, 5)])
def test_empty_volumes_give_empty_maps(size):
    got = fastcal.ensemble_statistics([torch.zeros(size)] * 2, maps=MAPS)
    assert got.mean.shape == size
    assert got.entropy.shape == (size[0], *size[2:])


@on_every_engine
def test_a_voxel_does_not_depend_on_its_neighbours():
    """Vector body, tail and block boundary give one voxel the same bits."""
    members = logits(3, 5, (1500,), batch=1)
    whole = fastcal.ensemble_statistics(members, maps=FLOATS)
    for start, stop in ((0, 1), (1, 18), (700, 1400), (1023, 1026), (1499, 1500)):
        part = fastcal.ensemble_statistics([m[..., start:stop] for m in members], maps=FLOATS)
        for name in FLOATS:
            assert torch.equal(getattr(part, name), getattr(whole, name)[..., start:stop]), name


@on_every_engine
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n_classes", [3, 20])
def test_layout_changes_no_bit(layout, n_classes):
    members = logits(3, n_classes, (3, 5, 21), batch=1)
    plain = fastcal.ensemble_statistics(members, maps=MAPS)
    preds, class_dim = laid_out(members, layout)
    got = fastcal.ensemble_statistics(preds, maps=MAPS, class_dim=class_dim)
    for name in MAPS:
        a, b = getattr(got, name), getattr(plain, name)
        assert torch.equal(a, b[0] if layout == "class_first" else b), name
