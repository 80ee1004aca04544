"""The registered ops and what surrounds them: torch.compile, autograd, foreign arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engines import on_every_engine
from members import labels, logits, probabilities
from torch import Tensor

import fastcal
from fastcal import ops
from fastcal.core.problem import (
    Counting,
    Extras,
    Finish,
    GapBins,
    LossReading,
    Reading,
    StateLayout,
    StatisticsLayout,
    SumsWanted,
    TemperatureProblem,
)
from fastcal.core.segment_problem import SegmentProblem, SegmentWords

READING = Reading(1, True, "softmax", False, "prob").flatten()
LAYOUT = StateLayout(4, entropy=True, square=True, votes=True)
THRESHOLDS = torch.from_numpy(np.linspace(0, 1, 16)[1:-1]).float()


def counting(target: Tensor, n_classes: int) -> Counting:
    words = StatisticsLayout(n_classes, 15, "both").words
    statistics = torch.zeros(1, words, dtype=torch.int64, device=target.device)
    return Counting(target, None, None, THRESHOLDS, False, "both", 1e-30, statistics)


def statistics_arguments() -> tuple[object, ...]:
    members = logits(3, 4, (5, 9))
    out = {"entropy": torch.empty(2, 5, 9), "label": torch.empty(2, 5, 9, dtype=torch.int64)}
    finish = Finish(out, False, counting(labels(4, (2, 5, 9)), 4))
    return (members, [1.0] * 3, [1.0] * 3, *READING, *finish.flatten())


def accumulate_arguments() -> tuple[object, ...]:
    (member,) = logits(1, 4, (5, 9))
    state = torch.zeros(LAYOUT.planes, 2, 5, 9)
    return (member, 1.0, 1.0, *READING, *LAYOUT.flatten(), state)


def finalize_arguments() -> tuple[object, ...]:
    *_, state = arguments = accumulate_arguments()
    ops.ensemble_accumulate(*arguments)
    out = {"entropy": torch.empty(2, 5, 9), "mean": torch.empty(2, 4, 5, 9)}
    finish = Finish(out, False, None)
    return (state, 1, 1.0, *READING, *LAYOUT.flatten(), *finish.flatten())


def temperature_arguments() -> tuple[object, ...]:
    values = logits(1, 4, (5, 9))[0].movedim(1, 0)
    reading = (None, None, True, False, False, 1e-30, 1e-8)
    out = torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.float64)
    return (values, labels(4, (2, 5, 9)), *reading, [0.7], False, *out)


def segment_arguments() -> tuple[object, ...]:
    (mean,) = probabilities(1, 4, (5, 9))
    maps = (torch.zeros(2, 5, 9), None, mean.round(), torch.ones(2, 5, 9, dtype=torch.bool))
    problem = SegmentProblem(mean, labels(4, (2, 5, 9)), *maps, -1, False, True, False)
    return (*problem.flatten(), torch.zeros(2, 4, SegmentWords.COUNT, dtype=torch.int64))


@pytest.mark.parametrize(
    "struct",
    [
        Reading(0, False, "sigmoid", True, "logit"),
        StateLayout(7, entropy=True, square=False, votes=True),
        LossReading("sigmoid", 255),
        SumsWanted(overlaps=True),
        GapBins(20, soft=True),
        TemperatureProblem(
            *(torch.zeros(3, 5), torch.zeros(5).int(), None, 1),
            *(True, False, False, 1e-30, 1e-8),
        ),
        Counting(
            *(torch.zeros(2, 5).int(), None, 3, THRESHOLDS, True, "classwise", 1e-6),
            *(torch.zeros(2, 90).long(), torch.ones(2, 5).byte(), 4, Extras(True, 64, 9)),
        ),
        Finish({"label": torch.zeros(2, 5).long()}, True, counting(labels(3, (2, 5)), 3)),
    ],
    ids=lambda struct: type(struct).__name__,
)
def test_a_struct_is_the_same_after_the_way_through_an_op(struct):
    assert type(struct).unflatten(struct.flatten()) == struct


def test_trailing_arguments_that_equal_their_default_may_be_missing():
    counted = counting(labels(3, (2, 5)), 3)
    assert Counting.unflatten(counted.flatten()[:8]) == counted
    assert Counting.unflatten(counted.flatten()[:9]) == counted


def test_nothing_is_counted_without_a_target():
    assert len(Finish({}, False, None).flatten()) == 3
    assert Finish.unflatten(([], [], False)).counting is None
    assert Finish.unflatten(([], [], False, None, None)).counting is None


@on_every_engine
@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        (ops.ensemble_statistics, statistics_arguments),
        (ops.ensemble_accumulate, accumulate_arguments),
        (ops.ensemble_finalize, finalize_arguments),
        (ops.temperature_sums, temperature_arguments),
        (ops.segment_sums, segment_arguments),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_opcheck_passes(op, arguments):
    torch.library.opcheck(op, arguments())


def all_of_it(members: list[Tensor], target: Tensor, out: Tensor, stats: Tensor) -> Tensor:
    mean = torch.empty_like(members[0])
    finish = (False, target, None, None, THRESHOLDS, False, "both", 1e-30, stats)
    ops.ensemble_statistics(
        members, [1.0, 1.0], [1.0, 1.0], *READING, ["entropy", "mean"], [out, mean], *finish
    )
    return mean.sum(1) + out


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_ops_compile_without_a_graph_break(backend):
    members, target = logits(2, 4, (6, 7)), labels(4, (2, 6, 7))
    words = StatisticsLayout(4, 15, "both").words
    results = []
    for function in (all_of_it, torch.compile(all_of_it, fullgraph=True, backend=backend)):
        out, stats = torch.zeros(2, 6, 7), torch.zeros(1, words, dtype=torch.int64)
        results.append((function(members, target, out, stats), out, stats))
    for eager, compiled in zip(*results, strict=True):
        assert torch.equal(eager, compiled)


@on_every_engine
def test_public_functions_compile_without_a_graph_break():
    members = logits(3, 4, (6, 7))

    def both(members: list[Tensor]) -> tuple[Tensor, Tensor]:
        return fastcal.ensemble_entropy(members), fastcal.ensemble_mean(members)

    entropy, mean = torch.compile(both, fullgraph=True, backend="aot_eager")(members)
    assert torch.equal(entropy, fastcal.ensemble_entropy(members))
    assert torch.equal(mean, fastcal.ensemble_mean(members))


@on_every_engine
def test_members_that_require_grad_give_detached_results():
    members = logits(3, 4, (6, 7))
    expected = fastcal.ensemble_statistics(members, maps=("mean", "entropy"))
    for member in members:
        member.requires_grad_()
    got = fastcal.ensemble_statistics(members, maps=("mean", "entropy"))
    for name in ("mean", "entropy"):
        assert not getattr(got, name).requires_grad
        assert torch.equal(getattr(got, name), getattr(expected, name))
    stream = fastcal.EnsembleAccumulator(maps=("mean",))
    for member in members:
        stream.update(member)
    assert not stream.finalize().mean.requires_grad


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numpy_in_gives_numpy_out(dtype):
    members = logits(3, 4, (6, 7))
    arrays = [m.numpy().astype(dtype) for m in members]
    target = labels(4, (2, 6, 7))
    got = fastcal.ensemble_statistics(arrays, target.numpy(), maps=("mean", "label", "entropy"))
    want = fastcal.ensemble_statistics(
        [torch.from_numpy(a) for a in arrays], target, maps=("mean", "label", "entropy")
    )
    for name in ("mean", "label", "entropy"):
        assert isinstance(getattr(got, name), np.ndarray)
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name).numpy())
    assert got.calibration.ece() == want.calibration.ece()
    assert isinstance(fastcal.ensemble_entropy(arrays), np.ndarray)
    assert isinstance(fastcal.ensemble_mean(np.stack(arrays)), np.ndarray)


def test_numpy_views_with_negative_strides_are_read_right():
    array = logits(1, 4, (6, 7))[0].numpy()
    got = fastcal.ensemble_entropy([array[:, :, ::-1]])
    np.testing.assert_array_equal(got, fastcal.ensemble_entropy([array])[:, ::-1])


def test_read_only_numpy_arrays_are_accepted():
    array = logits(1, 4, (6, 7))[0].numpy()
    want = fastcal.ensemble_entropy([array.copy()])
    array.flags.writeable = False
    np.testing.assert_array_equal(fastcal.ensemble_entropy([array]), want)


class Foreign:
    """An array of another library: DLPack and nothing else."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def __dlpack__(self, **options: object) -> object:
        return self._tensor.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._tensor.__dlpack_device__()


def test_anything_with_dlpack_is_accepted():
    members, target = logits(3, 4, (6, 7)), labels(4, (2, 6, 7))
    got = fastcal.ensemble_statistics([Foreign(m) for m in members], Foreign(target))
    want = fastcal.ensemble_statistics(members, target)
    assert torch.equal(torch.as_tensor(got.entropy), want.entropy)
    assert got.calibration.ece() == want.calibration.ece()


def test_calibration_takes_numpy_and_dlpack():
    (p,), target = probabilities(1, 3, (50,)), labels(3, (2, 50))
    scores = []
    for probs, truth in ((p, target), (p.numpy(), target.numpy()), (Foreign(p), Foreign(target))):
        statistics = fastcal.CalibrationStatistics(3)
        statistics.update(probs, truth)
        scores.append(statistics.ece())
    assert scores[0] == scores[1] == scores[2]


def test_a_backend_that_is_not_there_is_a_clear_error():
    with pytest.raises(ValueError, match="reference"), fastcal.backend("opencl"):
        pass


def test_the_choice_of_backend_ends_with_its_block():
    members = logits(2, 3, (9,))
    before = fastcal.ensemble_entropy(members)
    with fastcal.backend("reference"):
        inside = fastcal.ensemble_entropy(members)
    assert torch.equal(fastcal.ensemble_entropy(members), before)
    torch.testing.assert_close(inside, before, rtol=0, atol=2e-6)
