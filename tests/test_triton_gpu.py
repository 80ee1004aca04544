"""The Triton backend on a GPU: the oracle, the integers of the CPU, graphs, streams, threads."""

from __future__ import annotations

import threading

import oracle
import pytest
import torch
from members import DTYPES, arranged, exact, labels, logits, pairwise, probabilities
from torch import Tensor

import fastcal
from fastcal import ops
from fastcal.problem import MAPS

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _on_triton():
    with fastcal.backend("triton"):
        yield


def on_gpu(tensors: list[Tensor], layout: str = "contiguous") -> list[Tensor]:
    return [arranged(tensor.cuda(), layout) for tensor in tensors]


def state_of(statistics: fastcal.CalibrationStatistics) -> Tensor:
    return torch.as_tensor(statistics.state_dict()["total"])


@pytest.mark.parametrize(
    ("dtype", "n_classes", "n_members", "layout"),
    pairwise(
        DTYPES,
        (2, 4, 14, 17, 104),
        (1, 5, 70),
        ("contiguous", "channels_last", "cropped", "strided"),
    ),
    ids=str,
)
def test_maps_match_the_oracle(dtype, n_classes, n_members, layout):
    members = logits(n_members, n_classes, (9, 37), dtype=dtype)
    expected = oracle.maps([exact(member) for member in members])
    got = fastcal.ensemble_statistics(on_gpu(members, layout), maps=MAPS)
    tolerance = 1e-12 if dtype == torch.float64 else 4e-6
    for name in MAPS:
        if name not in ("label", "disagreement"):
            values = getattr(got, name).double().cpu().numpy()
            assert abs(values - getattr(expected, name)).max() < tolerance, name
    certain = expected.confidence > 0.5 + 1e-5
    assert (got.label.cpu().numpy() == expected.label)[certain].all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n_classes", [1, 2, 4, 21])
@pytest.mark.filterwarnings("ignore:.*do not sum to 1")
def test_equal_probabilities_give_the_integers_of_the_cpu(dtype, n_classes):
    (p,) = probabilities(1, n_classes, (5000,), dtype=dtype, exclusive=n_classes > 1)
    target = labels(max(n_classes, 2), (2, 5000))
    states = []
    for device in ("cpu", "cuda"):
        statistics = fastcal.CalibrationStatistics(n_classes)
        with fastcal.backend("reference" if device == "cpu" else "triton"):
            statistics.update(p.to(device), target.to(device))
            states.append(state_of(statistics).cpu())
    assert torch.equal(*states)


def test_two_runs_give_the_same_bits():
    members, target = on_gpu(logits(5, 4, (64, 64, 33))), labels(4, (2, 64, 64, 33)).cuda()
    first, second = (fastcal.ensemble_statistics(members, target, maps=MAPS) for _ in range(2))
    for name in MAPS:
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert torch.equal(state_of(first.calibration), state_of(second.calibration))


@pytest.mark.parametrize("n_classes", [4, 40])
def test_streaming_gives_the_bits_of_one_shot(n_classes):
    members = on_gpu(logits(3, n_classes, (31, 17)))
    stream = fastcal.EnsembleAccumulator(maps=MAPS)
    for member in members:
        stream.update(member)
    streamed, whole = stream.finalize(), fastcal.ensemble_statistics(members, maps=MAPS)
    for name in MAPS:
        assert torch.equal(getattr(streamed, name), getattr(whole, name)), name


def test_a_captured_graph_replays_with_changed_members():
    members = on_gpu(logits(3, 4, (33, 65)))
    out = torch.empty(2, 33, 65, device="cuda")
    fastcal.ensemble_entropy(members, out=out)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        fastcal.ensemble_entropy(members, out=out)
    for member, other in zip(members, on_gpu(logits(3, 4, (33, 65), seed=9)), strict=True):
        member.copy_(other)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(out, fastcal.ensemble_entropy(members))


def test_work_goes_to_the_stream_of_the_caller():
    members = on_gpu(logits(3, 4, (128, 128)))
    wanted = fastcal.ensemble_entropy(members)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        got = fastcal.ensemble_entropy(members)
        assert not stream.query()
    stream.synchronize()
    assert torch.equal(got, wanted)


def test_two_threads_do_not_disturb_each_other():
    members, target = on_gpu(logits(3, 4, (40, 50))), labels(4, (2, 40, 50)).cuda()
    wanted = state_of(fastcal.ensemble_statistics(members, target).calibration)
    found: list[Tensor] = []

    def work() -> None:
        with fastcal.backend("triton"):
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


def test_opcheck_passes():
    members = on_gpu(logits(3, 4, (5, 9)))
    out = [torch.empty(2, 5, 9, device="cuda")]
    reading = (1, True, "softmax", False, "prob")
    nothing = (False, None, None, None, None, False, "both", 0.0, None)
    arguments = (members, [1.0] * 3, [1.0] * 3, *reading, ["entropy"], out, *nothing)
    torch.library.opcheck(ops.ensemble_statistics, arguments)


def test_volumes_beyond_two_to_the_31_elements_are_addressed_in_64_bits():
    n = 2**30 + 4099
    if torch.cuda.mem_get_info()[0] < 12 * 2**30:
        pytest.skip("needs 12 GiB of free GPU memory")
    member = torch.zeros(1, 2, n, dtype=torch.bfloat16, device="cuda")
    member[..., -4099:] = torch.tensor([3.0, -1.0], device="cuda")[:, None]
    got = fastcal.ensemble_entropy([member])
    ends = fastcal.ensemble_entropy([member[..., -5000:].contiguous()])
    assert torch.equal(got[..., -5000:], ends)
    assert bool((got[..., :1000] == ends[..., 0]).all())
