"""The state of calibration statistics: the same bits, merges, files, and what is left out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import oracle
import pytest
import torch
from counted import assert_same_state, assert_scores_match, counted
from engines import ENGINES, on_every_engine, using
from hypothesis import given
from hypothesis import strategies as st
from members import DTYPES, arranged, exact, labels, logits, probabilities

import fastcal
from fastcal import CalibrationStatistics

pytestmark = pytest.mark.filterwarnings("ignore:.*do not sum to 1")  # rounded to bfloat16


# Same bits, however the voxels arrive


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n_classes", [1, 2, 4, 21])
def test_equal_probabilities_give_equal_integers_on_every_engine(dtype, n_classes):
    (p,) = probabilities(1, n_classes, (2000,), dtype=dtype, exclusive=n_classes > 1, seed=5)
    p[:, :, ::7] = p[:, :, :1]
    target = labels(max(n_classes, 2), (2, 2000))
    results = []
    for chosen in ENGINES:
        with using(chosen):
            results.append(counted(p, target))
    for result in results[1:]:
        assert_same_state(result, results[0])


@on_every_engine
@given(st.lists(st.integers(0, 3000), max_size=4), st.permutations(range(5)))
def test_chunks_in_any_order_give_the_same_bits(cuts, order):
    (p,) = probabilities(1, 3, (3000,), batch=1)
    target = labels(3, (1, 3000))
    whole = counted(p, target)
    bounds = [0, *sorted(cuts), 3000]
    pieces = list(itertools.pairwise(bounds))
    updated, merged = CalibrationStatistics(3), CalibrationStatistics(3)
    for i in (i for i in order if i < len(pieces)):
        start, stop = pieces[i]
        updated.update(p[..., start:stop], target[:, start:stop])
        merged.merge(counted(p[..., start:stop], target[:, start:stop]))
    assert_same_state(updated, whole)
    assert_same_state(merged, whole)


@pytest.fixture
def thread_counts() -> Iterator[tuple[int, ...]]:
    before = torch.get_num_threads()
    yield 1, 2, 5
    torch.set_num_threads(before)


@on_every_engine
def test_the_number_of_threads_changes_no_bit(thread_counts):
    (p,), target = probabilities(1, 4, (10, 900)), labels(4, (2, 10, 900))
    states = []
    for n_threads in thread_counts:
        torch.set_num_threads(n_threads)
        states.append(counted(p, target))
    for state in states[1:]:
        assert_same_state(state, states[0])


@on_every_engine
def test_threads_and_chunks_change_no_bit_of_statistics_from_logits(thread_counts):
    members, target = logits(3, 4, (10, 1500)), labels(4, (2, 10, 1500))
    states = []
    for n_threads in thread_counts:
        torch.set_num_threads(n_threads)
        states.append(fastcal.ensemble_statistics(members, target).calibration)
    split = CalibrationStatistics(4)
    for i in range(10):
        part = [m[:, :, i] for m in members]
        split.merge(fastcal.ensemble_statistics(part, target[:, i]).calibration)
    for state in [*states[1:], split]:
        assert_same_state(state, states[0])


@on_every_engine
def test_plus_adds_without_touching_its_operands():
    (p, q), target = probabilities(2, 3, (40,)), labels(3, (2, 40))
    a, b = counted(p, target), counted(q, target)
    total = a + b
    assert total.n_voxels == 160
    assert a.n_voxels == b.n_voxels == 80
    assert_same_state(a, counted(p, target))
    assert_same_state(total, b + a)
    a.merge(b)
    assert_same_state(a, total)


def test_sum_adds_a_list_of_statistics():
    parts = [CalibrationStatistics(2) for _ in range(3)]
    for part in parts:
        part.update(torch.tensor([[0.75, 0.25]]), torch.tensor([0]))
    assert sum(parts) == parts[0] + parts[1] + parts[2]
    with pytest.raises(TypeError, match="unsupported operand"):
        1 + parts[0]


@pytest.mark.parametrize(
    "other",
    [{"num_classes": 4}, {"n_bins": 10}, {"closed": "left"}, {"calibration": "classwise"}],
    ids=str,
)
def test_statistics_of_another_kind_are_not_merged(other):
    options = {"num_classes": 3, **other}
    with pytest.raises(ValueError, match=next(iter(other))):
        CalibrationStatistics(3).merge(CalibrationStatistics(**options))


@on_every_engine
def test_saved_statistics_come_back_with_every_bit(tmp_path):
    (p,), target = probabilities(1, 3, (4, 40)), labels(3, (2, 4, 40))
    statistics = counted(p, target, case_id=["a", "b"], n_bins=7, closed="left")
    path = tmp_path / "state.npz"
    statistics.save(path)
    loaded = CalibrationStatistics.load(path)
    assert_same_state(loaded, statistics)
    assert loaded.ece(reduction="case") == statistics.ece(reduction="case")
    assert list(tmp_path.iterdir()) == [path]
    again = CalibrationStatistics(3, n_bins=7, closed="left")
    again.load_state_dict(statistics.state_dict())
    again.update(p, target)
    assert again.n_voxels == 2 * statistics.n_voxels


# What is left out


@on_every_engine
@pytest.mark.parametrize("layout", ["contiguous", "strided"])
@pytest.mark.parametrize("ignore", [None, 2, -1, 255])
@pytest.mark.parametrize("masked", [False, True])
def test_ignored_and_masked_voxels_leave_every_number(layout, ignore, masked):
    (p,), target = probabilities(1, 3, (7, 60)), labels(3, (2, 7, 60))
    if ignore is not None:
        target[:, ::3] = ignore
    mask = (labels(4, (2, 7, 60), seed=1) > 0) if masked else None
    want = oracle.scores(
        exact(p),
        target.numpy(),
        edges=oracle.edges(15),
        ignore_index=ignore,
        mask=None if mask is None else mask.numpy(),
    )
    if mask is not None and layout == "strided":
        mask = arranged(mask[:, None].double(), "strided")[:, 0].bool()
        mask = mask.transpose(1, 2).contiguous().transpose(1, 2)
    got = counted(arranged(p, layout), target, mask=mask, ignore_index=ignore)
    assert_scores_match(got, want, exact_input=False)


@on_every_engine
def test_nothing_left_gives_nan_not_zero():
    (p,), target = probabilities(1, 3, (7,)), torch.full((2, 7), 255)
    got = counted(p, target, ignore_index=255)
    assert got.n_voxels == 0
    assert all(math.isnan(v) for v in (got.ece(), got.brier(), got.nll(), got.accuracy()))
    assert np.isnan(got.classwise_ece()).all()
    assert np.isnan(got.per_class("dice", "pooled")).all()
    assert np.isnan(got.reliability().mean_confidence).all()


@on_every_engine
def test_an_absent_class_has_no_dice_and_the_others_keep_theirs():
    p = torch.tensor([[[0.9, 0.1], [0.1, 0.9], [0.0, 0.0]]])
    dice = np.asarray(counted(p, torch.tensor([[0, 1]])).per_class("dice", "pooled"))
    np.testing.assert_array_equal(dice, [1, 1, np.nan])


@on_every_engine
@pytest.mark.parametrize(("value", "count"), [(7, 3), (-2, 1)])
def test_targets_outside_the_classes_say_how_many_and_which(value, count):
    (p,), target = probabilities(1, 3, (50,)), labels(3, (2, 50))
    target[0, 5 : 5 + count] = value
    statistics = CalibrationStatistics(3)
    with pytest.raises(ValueError, match=rf"(?s)\b{count}\b.*{value}|{value}.*\b{count}\b"):
        statistics.update(p, target)


@on_every_engine
def test_an_update_that_fails_leaves_the_statistics_as_they_were():
    (p,), target = probabilities(1, 3, (50,)), labels(3, (2, 50))
    statistics = counted(p, target)
    wrong = target.clone()
    wrong[0, 0] = 9
    with pytest.raises(ValueError):
        statistics.update(p, wrong)
    assert_same_state(statistics, counted(p, target))


@on_every_engine
def test_unnormalised_probabilities_are_used_as_they_are_after_a_warning():
    p = torch.full((1, 2, 4), 0.3)
    p[0, 0] = 0.4
    target = torch.tensor([[0, 0, 0, 1]])
    with pytest.warns(UserWarning, match="sum"):
        got = counted(p, target)
    assert got.reliability().mean_confidence[5] == pytest.approx(0.4, abs=1e-7)


@on_every_engine
def test_modes_keep_only_what_they_count():
    (p,), target = probabilities(1, 3, (50,)), labels(3, (2, 50))
    both = counted(p, target)
    top, classwise = (
        counted(p, target, calibration="top-label"),
        counted(p, target, calibration="classwise"),
    )
    assert top.ece() == both.ece()
    np.testing.assert_array_equal(classwise.classwise_ece(), both.classwise_ece())
    assert top.brier() == classwise.brier() == both.brier()
    with pytest.raises(ValueError, match="classwise"):
        top.classwise_ece()
    with pytest.raises(ValueError, match="top-label"):
        classwise.ece()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes"),
        ({"n_bins": 0}, "n_bins"),
        ({"closed": "both"}, "closed"),
        ({"calibration": "top"}, "calibration"),
    ],
    ids=str,
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        CalibrationStatistics(**{"num_classes": 3, **options})


@pytest.mark.parametrize(
    ("probs", "target", "message"),
    [
        (torch.zeros(1, 4, 5), torch.zeros(1, 5, dtype=torch.int64), "class"),
        (torch.zeros(1, 3, 5), torch.zeros(1, 6, dtype=torch.int64), "target"),
        (torch.zeros(1, 3, 5), torch.zeros(1, 5), "target"),
        (torch.zeros(1, 3, 5, dtype=torch.int64), torch.zeros(1, 5, dtype=torch.int64), "probs"),
    ],
    ids=["classes", "shape", "float target", "integer probs"],
)
def test_bad_arguments_of_update_are_refused_by_name(probs, target, message):
    with pytest.raises((TypeError, ValueError), match=message):
        CalibrationStatistics(3).update(probs, target)


@on_every_engine
def test_a_bad_norm_or_reduction_is_refused_by_name():
    (p,), target = probabilities(1, 3, (20,)), labels(3, (2, 20))
    statistics = counted(p, target)
    with pytest.raises(ValueError, match="norm"):
        statistics.ece(norm="l3")
    with pytest.raises(ValueError, match="reduction"):
        statistics.brier(reduction="mean")
    with pytest.raises((IndexError, ValueError), match="class_index"):
        statistics.reliability(class_index=3)


@given(st.data())
def test_every_engine_counts_awkward_probabilities_alike(data):
    """NaN, numbers out of range, ignored and masked voxels, all options: the same integers."""
    draw = data.draw
    dtype = draw(st.sampled_from(DTYPES))
    n_classes = draw(st.sampled_from([1, 2, 3, 5, 16, 19, 40]))
    multilabel = n_classes == 1 or draw(st.booleans())
    size = draw(st.sampled_from([1, 17, 65, 300, 1100]))
    seed = draw(st.integers(0, 2**31))
    layout = draw(st.sampled_from(["contiguous", "channels_last", "strided"]))
    (p,) = probabilities(
        1, n_classes, (size,), dtype=dtype, exclusive=not multilabel, seed=seed, scale=4
    )
    random = np.random.default_rng(seed)
    values = torch.tensor([math.nan, math.inf, -5e-4, -0.5, 1.0005, 1.5, 0.0, -0.0, 1.0]).to(dtype)
    for _ in range(draw(st.integers(0, 12))):
        where = random.integers(2), random.integers(n_classes), random.integers(size)
        p[where] = values[random.integers(len(values))]
    target = labels(2, p.shape, seed=seed) if multilabel else labels(n_classes, (2, size))
    ignore_index = draw(st.sampled_from([None, 0, 255]))
    if ignore_index == 255:
        target[..., ::5] = 255
    mask = labels(5, (2, size), seed=seed) > 0 if draw(st.booleans()) else None
    normalise = not multilabel and draw(st.booleans())
    options = {
        "n_bins": draw(st.sampled_from([1, 2, 10, 15, 33])),
        "closed": draw(st.sampled_from(["right", "left"])),
        "calibration": draw(st.sampled_from(["both", "top-label", "classwise"])),
        "eps": draw(st.sampled_from([None, 1e-3])),
        "multilabel": multilabel,
    }
    states = []
    for chosen in ENGINES:
        with using(chosen):
            states.append(CalibrationStatistics(n_classes, **options))
            states[-1].update(
                arranged(p, layout),
                target,
                mask=mask,
                ignore_index=ignore_index,
                case_id=["a", "b"],
                normalise=normalise,
                nan_policy="omit",
            )
    for state in states[1:]:
        assert_same_state(state, states[0])


@on_every_engine
def test_normalised_probabilities_are_divided_by_their_sum():
    (p,), target = probabilities(1, 4, (90,), dtype=torch.float64), labels(4, (2, 90))
    scale = 0.5 + torch.rand(2, 1, 90, generator=torch.Generator().manual_seed(0)) / 3
    statistics = CalibrationStatistics(4)
    statistics.update(p * scale, target, normalise=True)
    scaled = (p * scale) / (p * scale).sum(1, keepdim=True)
    want = oracle.scores(
        exact(scaled),
        target.numpy(),
        edges=oracle.edges(15, np.float64),
        eps=float(np.finfo(np.float64).tiny),
    )
    assert_scores_match(statistics, want, exact_input=True)


@on_every_engine
def test_a_voxel_with_one_ignored_class_is_left_out_whole_when_multilabel():
    (p,), y = (
        probabilities(1, 3, (80,), dtype=torch.float64, exclusive=False),
        labels(2, (2, 3, 80)),
    )
    y[0, 1, ::4] = 255
    got = counted(p, y, multilabel=True, ignore_index=255)
    want = oracle.scores(
        exact(p),
        y.numpy(),
        edges=oracle.edges(15, np.float64),
        multilabel=True,
        ignore_index=255,
        eps=float(np.finfo(np.float64).tiny),
    )
    assert got.n_voxels == 140
    assert_scores_match(got, want, exact_input=True)


@on_every_engine
def test_probabilities_a_rounding_below_zero_count_as_in_the_reference():
    p = probabilities(1, 4, (3000,))[0].clone()
    p[0, 1, 100:200] = -5e-4  # counts as 0, but not where the block is read in place
    p[1, 2, 5] = -2e-3  # is no probability
    p[0, 0, 7] = math.nan
    target = labels(4, (2, 3000))

    def count() -> CalibrationStatistics:
        statistics = CalibrationStatistics(4)
        statistics.update(p, target, nan_policy="omit")
        return statistics

    with fastcal.backend("reference"):
        expected = count()
    found = count()
    assert found.n_invalid == 2
    assert_same_state(found, expected)
