"""The backends of the GPU on a GPU: the oracle, the CPU's integers, graphs, streams, threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import fields

import oracle
import pytest
import torch
from map_checks import assert_maps_match, plain_maps
from members import DTYPES, arranged, exact, labels, logits, pairwise, probabilities
from test_ops import LAYOUT, READING, counting
from torch import Tensor

import fastcal
from fastcal import ops
from fastcal.core.problem import MAPS, Counting, Finish

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:.*do not sum to 1"),
    pytest.mark.filterwarnings("ignore:.*classes along axis"),
]
BACKENDS = ("cuda", "triton")


@pytest.fixture(params=BACKENDS, autouse=True, scope="module")
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """The calls of every test go to each backend in turn."""
    backend: str = request.param
    (status,) = (s for s in fastcal.backends.status() if s.name == backend)
    if not status.available:
        pytest.skip(f"backend {backend} cannot run here: {status.reason}")
    with fastcal.backend(backend):
        yield backend


def on_gpu(tensors: list[Tensor], layout: str = "contiguous") -> list[Tensor]:
    return [arranged(tensor.cuda(), layout) for tensor in tensors]


def on_cpu(got: fastcal.EnsembleStatistics) -> fastcal.EnsembleStatistics:
    return fastcal.EnsembleStatistics(**{m: t.cpu() for m, t in got.maps.items()})


def state_of(statistics: fastcal.CalibrationStatistics | None) -> Tensor:
    assert statistics is not None
    return torch.as_tensor(statistics.state_dict()["total"])


def assert_same(a: fastcal.EnsembleStatistics, b: fastcal.EnsembleStatistics) -> None:
    """The same bits of every map and every statistic."""
    for field in fields(a):
        x, y = getattr(a, field.name, None), getattr(b, field.name, None)
        if field.name == "calibration":
            assert x is y is None or x == y
        else:
            same = x is y is None or torch.equal(x.nan_to_num(7), y.nan_to_num(7))
            assert same, field.name


# ----------------------------------------------------------------------------- the oracle


@pytest.mark.parametrize(
    ("dtype", "n_classes", "n_members", "layout"),
    pairwise(
        DTYPES,
        (2, 4, 14, 60, 230),
        (1, 5, 70),
        ("contiguous", "channels_last", "cropped", "strided"),
    ),
    ids=str,
)
def test_maps_match_the_oracle(dtype, n_classes, n_members, layout):
    members = logits(n_members, n_classes, (9, 37), dtype=dtype)
    got = on_cpu(fastcal.ensemble_statistics(on_gpu(members, layout), maps=MAPS))
    expected = oracle.maps([exact(member) for member in members])
    assert_maps_match(got, expected, MAPS, plain=plain_maps(members))


@pytest.mark.parametrize(
    ("dtype", "reading", "space", "n_classes"),
    pairwise(
        (torch.float32, torch.bfloat16),
        (
            {"activation": "softmax"},
            {"activation": "sigmoid"},
            {"multilabel": True},
            {"from_logits": False},
            {"from_logits": False, "multilabel": True},
        ),
        ("prob", "logit"),
        (3, 20),
    ),
    ids=str,
)
def test_every_reading_matches_the_oracle(dtype, reading, space, n_classes):
    made = logits if reading.get("from_logits", True) else probabilities
    members = made(3, n_classes, (8, 33), dtype=dtype)
    weights, temperatures = [1.0, 2.0, 0.5], [1.0, 1.5, 0.8]
    names = MAPS if space == "prob" else ("mean", "label", "confidence", "entropy")
    got = fastcal.ensemble_statistics(
        on_gpu(members),
        maps=names,
        space=space,
        weights=weights,
        temperature=temperatures,
        **reading,
    )
    options = {**reading, "space": space, "weights": weights, "temperatures": temperatures}
    expected = oracle.maps([exact(member) for member in members], **options)
    assert_maps_match(on_cpu(got), expected, names, plain=plain_maps(members, **options))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shift", [0, 1, 2, 4])
def test_members_that_are_not_aligned_are_read_right(dtype, shift):
    members = logits(2, 4, (264,), batch=1, dtype=dtype)
    shifted = []
    for member in members:
        base = torch.empty(4 * 264 + shift, dtype=dtype, device="cuda")
        shifted.append(base[shift:].view(1, 4, 264).copy_(member))
    aligned = fastcal.ensemble_statistics(on_gpu(members), maps=MAPS)
    assert_same(fastcal.ensemble_statistics(shifted, maps=MAPS), aligned)


@pytest.mark.parametrize("n_classes", [3, 18, 70])
def test_an_invalid_voxel_is_nan_and_no_other_voxel_notices(n_classes):
    members = logits(2, n_classes, (50,))
    for place, bad in ((3, torch.nan), (17, torch.inf)):
        members[1][0, 1, place] = bad
    members[0][1, :, 40] = -torch.inf
    got = on_cpu(fastcal.ensemble_statistics(on_gpu(members), maps=MAPS))
    expected = oracle.maps([exact(member) for member in members])
    assert not expected.valid.all()
    assert_maps_match(got, expected, MAPS, plain=plain_maps(members))


@pytest.mark.parametrize("n_classes", [4, 40])
def test_streaming_gives_the_bits_of_one_shot(n_classes):
    members, target = on_gpu(logits(3, n_classes, (31, 17))), labels(n_classes, (2, 31, 17)).cuda()
    stream = fastcal.EnsembleAccumulator(maps=MAPS)
    for member in members:
        stream.update(member)
    assert_same(stream.finalize(target), fastcal.ensemble_statistics(members, target, maps=MAPS))


def test_a_thousand_classes_with_votes_are_finished_beyond_shared_memory():
    members = logits(2, 1000, (70,), batch=1)
    got = on_cpu(fastcal.ensemble_statistics(on_gpu(members), maps=MAPS))
    expected = oracle.maps([exact(member) for member in members])
    assert_maps_match(got, expected, MAPS, plain=plain_maps(members))


# ------------------------------------------------------------------------------ statistics


@pytest.mark.parametrize(
    ("dtype", "n_classes", "n_bins", "closed", "target_dtype"),
    pairwise(
        DTYPES,
        (1, 4, 21, 150),
        (1, 15, 40, 700),
        ("right", "left"),
        (torch.int64, torch.uint8, torch.int16),
    ),
    ids=str,
)
def test_equal_probabilities_give_the_integers_of_the_cpu(
    name, dtype, n_classes, n_bins, closed, target_dtype
):
    (p,) = probabilities(1, n_classes, (41, 61), dtype=dtype, exclusive=n_classes > 1)
    target = labels(max(n_classes, 2), (2, 41, 61)).to(target_dtype)
    mask = labels(5, (2, 41, 61), seed=1) > 0
    states = []
    for backend, device in (("cpu", "cpu"), (name, "cuda")):
        with fastcal.backend(backend):
            statistics = fastcal.CalibrationStatistics(n_classes, n_bins=n_bins, closed=closed)
            statistics.update(
                p.to(device),
                target.to(device),
                mask=mask.to(device),
                ignore_index=1,
                case_id=["a", "b"],
            )
            states.append(statistics)
    assert states[0] == states[1]
    assert torch.equal(*map(state_of, states))


def test_multilabel_probabilities_give_the_integers_of_the_cpu(name):
    (p,) = probabilities(1, 6, (999,), exclusive=False)
    target = labels(2, (2, 6, 999))
    states = []
    for backend, device in (("cpu", "cpu"), (name, "cuda")):
        with fastcal.backend(backend):
            statistics = fastcal.CalibrationStatistics(6, multilabel=True)
            statistics.update(p.to(device), target.to(device))
            states.append(state_of(statistics))
    assert torch.equal(*states)


def test_regions_and_extras_give_the_integers_of_the_cpu(name):
    (p,) = probabilities(1, 5, (41, 61), scale=9.0)
    target = labels(5, (2, 41, 61))
    regions = {"foreground": target > 0, "last": target == 4, "none": target > 9}
    found = []
    for backend, device in (("cpu", "cpu"), (name, "cuda")):
        with fastcal.backend(backend):
            statistics = fastcal.CalibrationStatistics(
                5, regions=tuple(regions), moments=True, fine_bins=512, entropy_bins=9
            )
            masks = {region: mask.to(device) for region, mask in regions.items()}
            statistics.update(p.to(device), target.to(device), regions=masks)
            found.append(statistics)
    assert found[0] == found[1]
    for region in regions:
        assert found[0].region(region) == found[1].region(region)


@pytest.mark.parametrize("background", [0.0, 0.95, 1.0])
def test_two_runs_give_the_same_bits(background):
    members, target = on_gpu(logits(5, 4, (64, 64, 33))), labels(4, (2, 64, 64, 33)).cuda()
    certain = torch.rand(2, 64, 64, 33, device="cuda") < background
    for member in members:
        member[:, 0] += 60.0 * certain
    assert_same(*(fastcal.ensemble_statistics(members, target, maps=MAPS) for _ in range(2)))


def test_bad_targets_are_told_at_the_first_read_and_no_call_waits():
    members, target = on_gpu(logits(3, 4, (33, 65))), labels(4, (2, 33, 65)).cuda()
    bad = target.clone()
    bad[0, 3, :7] = 9

    def work(target: Tensor) -> fastcal.EnsembleStatistics:
        stream = fastcal.EnsembleAccumulator(maps=MAPS)
        for member in members:
            stream.update(member)
        stream.finalize(target)
        return fastcal.ensemble_statistics(members, target, maps=MAPS)

    work(target)  # sets up whatever is set up once
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = work(bad)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert got.calibration is not None
    with pytest.raises(ValueError, match=r"outside \[0, 4\).*at 7 voxels: found 9"):
        got.calibration.ece()


# --------------------------------------------------------------- graphs, streams, threads


def replayed(work: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """The work captured as a graph, after a run that sets up whatever is set up once."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        work()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


@pytest.mark.parametrize(("n_members", "n_classes"), [(3, 4), (3, 60), (60, 4)])
def test_a_captured_graph_replays_with_changed_members(n_members, n_classes):
    members = on_gpu(logits(n_members, n_classes, (33, 64)))
    out = {"entropy": torch.empty(2, 33, 64, device="cuda")}
    out["mutual_information"] = torch.empty_like(out["entropy"])
    names = tuple(out)
    graph = replayed(lambda: fastcal.ensemble_statistics(members, maps=names, out=out))
    others = on_gpu(logits(n_members, n_classes, (33, 64), seed=9))
    for member, other in zip(members, others, strict=True):
        member.copy_(other)
    graph.replay()
    torch.cuda.synchronize()
    expected = fastcal.ensemble_statistics(others, maps=names)
    for name in names:
        assert torch.equal(out[name], getattr(expected, name)), name


@pytest.mark.parametrize("n_bins", [15, 100])
def test_a_captured_graph_counts_again_at_every_replay(n_bins):
    members, target = on_gpu(logits(3, 4, (33, 64))), labels(4, (2, 33, 64)).cuda()
    thresholds = torch.linspace(0, 1, n_bins + 1)[1:-1].contiguous()
    words = fastcal.core.problem.StatisticsLayout(4, n_bins, "both").words
    rows = torch.zeros(1, words, dtype=torch.int64, device="cuda")
    weights = [1.0] * 3
    counted = Counting(target, None, None, thresholds, False, "both", 1e-30, rows)
    finish = Finish({}, False, counted).flatten()

    def work() -> None:
        ops.ensemble_statistics(members, weights, weights, *READING, *finish)

    graph = replayed(work)
    rows.zero_()
    work()
    once = rows.clone()
    rows.zero_()
    graph.replay()
    assert torch.equal(rows, once)
    graph.replay()
    assert torch.equal(rows[:, 0], 2 * once[:, 0])


def test_work_goes_to_the_stream_of_the_caller():
    """Elsewhere it would not wait for the stream's earlier work, and read the members too early."""
    members, others = (on_gpu(logits(3, 4, (128, 128), seed=seed)) for seed in (0, 1))
    target = labels(4, (2, 128, 128)).cuda()
    wanted = fastcal.ensemble_statistics(others, target, maps=MAPS)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        for member, other in zip(members, others, strict=True):
            member.copy_(other)
        got = fastcal.ensemble_statistics(members, target, maps=MAPS)
        assert not stream.query()
        stream.synchronize()
        assert_same(got, wanted)


def test_two_threads_do_not_disturb_each_other(name):
    members, target = on_gpu(logits(3, 4, (40, 50))), labels(4, (2, 40, 50)).cuda()
    wanted = state_of(fastcal.ensemble_statistics(members, target).calibration)
    torch.cuda.synchronize()
    found: list[Tensor] = []

    def work() -> None:
        with fastcal.backend(name), torch.cuda.stream(torch.cuda.Stream()):
            found.extend(
                state_of(fastcal.ensemble_statistics(members, target).calibration)
                for _ in range(20)
            )

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    assert all(torch.equal(state, wanted) for state in found)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_tensors_of_another_device_than_the_current_one_are_served():
    members = logits(3, 4, (33, 65))
    wanted = fastcal.ensemble_entropy(on_gpu(members))
    got = fastcal.ensemble_entropy([member.to("cuda:1") for member in members])
    assert torch.cuda.current_device() == 0
    assert got.device.index == 1
    assert torch.equal(got.cpu(), wanted.cpu())


def test_compiled_with_graphs_it_gives_the_same_bits():
    from torch._dynamo.utils import counters

    first, second = (on_gpu(logits(3, 4, (33, 64), seed=seed)) for seed in (0, 1))

    def both(members: list[Tensor]) -> tuple[Tensor, Tensor]:
        return fastcal.ensemble_entropy(members), fastcal.ensemble_mean(members)

    compiled = torch.compile(both, mode="reduce-overhead", fullgraph=True)
    skipped = counters["inductor"]["cudagraph_skips"]
    for members in (first, first, first, second, first):
        torch.compiler.cudagraph_mark_step_begin()
        got = [tensor.clone() for tensor in compiled(members)]
        for found, expected in zip(got, both(members), strict=True):
            assert torch.equal(found, expected)
    assert counters["inductor"]["cudagraph_skips"] == skipped


# ------------------------------------------------------------------------------ the ops


def arguments_of(op: str) -> tuple[object, ...]:
    members = on_gpu(logits(3, 4, (5, 9)))
    state = torch.zeros(LAYOUT.planes, 2, 5, 9, device="cuda")
    out = {
        "entropy": torch.empty(2, 5, 9, device="cuda"),
        "mean": torch.empty(2, 4, 5, 9, device="cuda"),
    }
    if op == "ensemble_statistics":
        finish = Finish(out, False, counting(labels(4, (2, 5, 9)).cuda(), 4))
        return (members, [1.0] * 3, [1.0] * 3, *READING, *finish.flatten())
    accumulate = (members[0], 1.0, 1.0, *READING, *LAYOUT.flatten(), state)
    if op == "ensemble_accumulate":
        return accumulate
    ops.ensemble_accumulate(*accumulate)
    finish = Finish(out, False, None).flatten()
    return (state, 1, 1.0, *READING, *LAYOUT.flatten(), *finish)


@pytest.mark.parametrize("op", ["ensemble_statistics", "ensemble_accumulate", "ensemble_finalize"])
def test_opcheck_passes(op):
    torch.library.opcheck(getattr(ops, op), arguments_of(op))


# ------------------------------------------------------------------------- large volumes


def test_volumes_beyond_two_to_the_31_voxels_are_addressed_in_64_bits():
    n = 2**31 + 4099
    free = torch.cuda.mem_get_info()[0] / 2**30
    if free < 24:
        pytest.skip(f"needs 24 GiB of GPU memory, {free:.0f} are free")
    member = torch.zeros(1, 2, n, dtype=torch.bfloat16, device="cuda")
    member[..., -4099:] = torch.tensor([3.0, -1.0], device="cuda")[:, None]
    got = fastcal.ensemble_entropy([member])
    ends = fastcal.ensemble_entropy([member[..., -5000:].contiguous()])
    assert torch.equal(got[..., -5000:], ends)
    assert bool((got[..., :1000] == ends[..., 0]).all())
    del got
    target = torch.zeros(1, n, dtype=torch.uint8, device="cuda")
    target[..., -1] = 1
    counted = fastcal.ensemble_statistics([member], target, maps=()).calibration
    assert counted is not None
    row = state_of(counted)
    assert row[0].item() == n
    assert row[1].item() == n - 1
