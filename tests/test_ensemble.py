"""Maps of the ensemble pass against the float64 oracle, on every backend and instruction set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import oracle
import pytest
import torch
from engines import on_every_engine
from hypothesis import given
from hypothesis import strategies as st
from members import DTYPES, LAYOUTS, arranged, exact, logits, pairwise, probabilities
from torch import Tensor

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
FLOATS = tuple(name for name in MAPS if name != "label")
PROB_ONLY = ("expected_entropy", "mutual_information", "variance")
CLASSES = (1, 2, 3, 4, 7, 14, 16, 17, 33, 104, 300)


def plain_maps(
    members: list[Tensor],
    *,
    from_logits: bool = True,
    activation: str = "softmax",
    multilabel: bool = False,
    space: str = "prob",
    weights: Sequence[float] | None = None,
    temperatures: Sequence[float] | None = None,
) -> dict[str, Tensor]:
    """Plain PyTorch at the accumulation precision: the yardstick of accuracy."""
    dtype = torch.promote_types(members[0].dtype, torch.float32)
    softmax = activation == "softmax" and not multilabel
    values = torch.stack(members).to(dtype)

    def column(numbers: Sequence[float] | None) -> Tensor:
        numbers = [1.0] * len(members) if numbers is None else numbers
        return torch.tensor(numbers, dtype=dtype).reshape(-1, *[1] * members[0].ndim)

    w, t = column(weights), column(temperatures)
    z = values if from_logits else values.log() if softmax else values.logit()
    p = (z / t).softmax(2) if softmax else (z / t).sigmoid()
    if not from_logits:
        p = torch.where(t == 1, values, p)
    mean = (w * p).sum(0) / w.sum()
    if space == "logit":
        mean_z = (w * z / t).sum(0) / w.sum()
        mean = mean_z.softmax(1) if softmax else mean_z.sigmoid()

    def entropy_of(q: Tensor, axis: int) -> Tensor:
        terms = torch.special.entr(q)
        return (terms + torch.special.entr(1 - q) if multilabel else terms).sum(axis)

    entropy = entropy_of(mean, 1)
    expected = (w[:, 0] * entropy_of(p, 2)).sum(0) / w.sum()
    return {
        "mean": mean,
        "confidence": torch.maximum(mean, 1 - mean) if multilabel else mean.amax(1),
        "entropy": entropy,
        "expected_entropy": expected,
        "mutual_information": (entropy - expected).clamp_min(0),
        "variance": ((w * (p - mean) ** 2).sum(0) / w.sum()).mean(1),
    }


def largest_error(got: Tensor, expected: np.ndarray) -> float:
    got_64 = exact(got)
    assert got_64.shape == expected.shape
    np.testing.assert_array_equal(np.isnan(got_64), np.isnan(expected))
    return float(np.nanmax(np.abs(got_64 - expected), initial=0.0))


def assert_maps_match(
    got: fastcal.EnsembleStatistics,
    expected: oracle.Maps,
    names: tuple[str, ...],
    *,
    plain: dict[str, Tensor] | None = None,
) -> None:
    """Conventions: the error over a volume is at most ``max(1e-6, 2 x plain PyTorch's)``."""
    for name in names:
        values = getattr(got, name)
        assert values is not None, name
        if name == "label":
            assert_labels_match(values, expected)
            continue
        want = getattr(expected, name)
        if name == "disagreement":
            decided = expected.member_margin > 1e-5
            values = torch.where(torch.from_numpy(decided), values, math.nan)
            want = np.where(decided, want, np.nan)
        tolerance = 1e-6
        if plain is not None and name in plain:
            tolerance = max(tolerance, 2 * largest_error(plain[name], want))
        error = largest_error(values, want)
        assert error <= tolerance, f"{name}: error {error:.3g}, tolerance {tolerance:.3g}"


def assert_labels_match(got: Tensor, expected: oracle.Maps) -> None:
    """The same class, or one as probable to within the tolerance of the probabilities."""
    labels = got.numpy().astype(np.int64)
    assert labels.shape == expected.label.shape
    invalid = expected.label < 0
    np.testing.assert_array_equal(labels < 0, invalid)
    p = np.nan_to_num(expected.mean)
    if labels.ndim == p.ndim:
        undecided = np.abs(p - 0.5) < 1e-6
        np.testing.assert_array_equal(labels[~undecided], expected.label[~undecided])
    else:
        chosen = np.take_along_axis(p, np.maximum(labels, 0)[:, None], axis=1)[:, 0]
        assert (chosen >= p.max(axis=1) - 1e-6)[~invalid].all()


def laid_out(members: list[Tensor], layout: str) -> tuple[list[Tensor] | Tensor, int]:
    """The members as the public functions take them, and their class_dim."""
    if layout == "stacked":
        return torch.stack(members), 1
    if layout == "class_first":
        return [m[0] for m in members], 0
    return [arranged(m, layout) for m in members], 1


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
    for n_classes in (*range(1, 35), 47, 48, 49, 63, 64, 65, 128, 1000):
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
    present = {name for name in MAPS if getattr(got, name) is not None}
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


# Extremes


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
    got = fastcal.ensemble_statistics(members, maps=("label", "disagreement"))
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


# Invariances


@on_every_engine
@given(
    st.integers(2, 6),
    st.integers(1, 9),
    st.integers(1, 70),
    st.floats(0.01, 30),
    st.integers(0, 2**31),
    st.randoms(use_true_random=False),
)
def test_maps_are_unchanged_when_members_are_permuted(
    n_members, n_classes, size, scale, seed, random
):
    members = logits(n_members, n_classes, (size,), batch=1, scale=scale, seed=seed)
    shuffled = random.sample(members, n_members)
    a = fastcal.ensemble_statistics(members, maps=MAPS)
    b = fastcal.ensemble_statistics(shuffled, maps=MAPS)
    for name in FLOATS:
        if name != "disagreement":
            torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=2e-6)
    assert torch.equal(a.disagreement, b.disagreement)


@on_every_engine
@given(st.integers(1, 6), st.integers(2, 9), st.integers(1, 70), st.integers(0, 2**31))
def test_maps_keep_their_bounds(n_members, n_classes, size, seed):
    members = logits(n_members, n_classes, (size,), batch=1, scale=20, seed=seed)
    got = fastcal.ensemble_statistics(members, maps=MAPS)
    assert (got.mutual_information >= 0).all()
    assert (got.entropy <= math.log(n_classes) + 1e-6).all()
    assert (got.entropy >= -1e-6).all()
    assert (got.confidence >= 1 / n_classes - 1e-6).all()
    assert (got.confidence <= 1 + 1e-6).all()
    assert (got.variance >= 0).all()
    assert ((got.disagreement >= 0) & (got.disagreement <= 1 - 1 / n_members + 1e-6)).all()
    assert torch.equal(got.confidence, got.mean.amax(1))
    assert torch.equal(got.label, got.mean.argmax(1))


@on_every_engine
@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 2**31))
def test_permuting_classes_permutes_the_mean_and_leaves_the_entropy(n_classes, n_members, seed):
    members = logits(n_members, n_classes, (40,), batch=1, seed=seed)
    order = torch.randperm(n_classes, generator=torch.Generator().manual_seed(seed))
    a = fastcal.ensemble_statistics(members, maps=MAPS)
    b = fastcal.ensemble_statistics([m[:, order] for m in members], maps=MAPS)
    torch.testing.assert_close(b.mean, a.mean[:, order], rtol=0, atol=1e-6)
    torch.testing.assert_close(b.entropy, a.entropy, rtol=0, atol=2e-6)
    torch.testing.assert_close(b.confidence, a.confidence, rtol=0, atol=1e-6)


@on_every_engine
def test_weights_are_relative():
    members = logits(3, 4, (50,))
    a = fastcal.ensemble_entropy(members, weights=[1.0, 2.0, 4.0])
    b = fastcal.ensemble_entropy(members, weights=[0.25, 0.5, 1.0])
    assert torch.equal(a, b)


@on_every_engine
def test_a_weight_of_zero_leaves_a_member_out():
    members = logits(3, 4, (50,))
    a = fastcal.ensemble_mean(members, weights=[1.0, 0.0, 1.0])
    b = fastcal.ensemble_mean([members[0], members[2]])
    assert torch.equal(a, b)


# Outputs given by the caller


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


# Bad input


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
