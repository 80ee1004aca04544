"""Losses and temperature scaling on a GPU: the values of the CPU, the same bits again, no waiting,
and CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from members import arranged, labels, logits
from torch import Tensor, nn

import fastcal
from fastcal import ops
from fastcal.core.problem import TemperatureLayout, TemperatureProblem
from fastcal.losses import DiceCELoss, HardL1ACELoss, PaperDiceLoss, SoftL1ACELoss

pytestmark = pytest.mark.gpu

LOSSES: dict[str, nn.Module] = {
    "dice-ce": DiceCELoss(weight=[0.5, 1.0, 2.0, 1.5, 1.0], label_smoothing=0.1, ignore_index=3),
    "dice": PaperDiceLoss(head="sigmoid"),
    "hard": HardL1ACELoss(),
    "soft": SoftL1ACELoss(head="sigmoid", ignore_index=0),
}


@pytest.fixture(params=["cuda", "triton"], autouse=True, scope="module")
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The calls of every test on GPU tensors go to each backend in turn."""
    chosen: str = request.param
    (status,) = (s for s in fastcal.backends.status() if s.name == chosen)
    if not status.available:
        pytest.skip(f"backend {chosen} cannot run here: {status.reason}")
    with fastcal.backend(chosen):
        yield chosen


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "cropped"])
def test_values_and_gradients_are_those_of_the_cpu(backend: str, name: str, layout: str) -> None:
    (z,) = logits(1, 5, (37, 41, 23), dtype=torch.float64)
    target = labels(5, (2, 37, 41, 23))
    found = []
    for device, serving in (("cpu", "cpu"), ("cuda", backend)):
        own = arranged(z.to(device), layout).requires_grad_()
        with fastcal.backend(serving):
            value = LOSSES[name].to(device)(own, target.to(device))
            (gradient,) = torch.autograd.grad(value, own)
        found.append((value.item(), gradient.cpu()))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-11)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_narrow_types_follow_float64(dtype: torch.dtype) -> None:
    (z,) = logits(1, 4, (24, 24, 24), dtype=dtype)
    target = labels(4, (2, 24, 24, 24)).cuda()
    loss = DiceCELoss().cuda()
    gradients = []
    for kind in (dtype, torch.float64):
        own = z.cuda().to(kind).requires_grad_()
        gradients.append(torch.autograd.grad(loss(own, target), own)[0].double())
    scale = gradients[1].abs().max().item()
    tolerance = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(*gradients, rtol=0, atol=tolerance * scale)


def test_a_loss_has_the_same_bits_every_time() -> None:
    (z,) = logits(1, 4, (128, 96, 80))
    own, target = z.cuda().requires_grad_(), labels(4, (2, 128, 96, 80)).cuda()
    values = [DiceCELoss()(own, target) + SoftL1ACELoss()(own, target) for _ in range(5)]
    gradients = [torch.autograd.grad(value, own)[0] for value in values]
    for value, gradient in zip(values[1:], gradients[1:], strict=True):
        assert torch.equal(value, values[0])
        assert torch.equal(gradient, gradients[0])


def test_members_are_mapped_over() -> None:
    (z,) = logits(1, 4, (16, 16), dtype=torch.float64, batch=6)
    members, target = z.view(3, 2, 4, 16, 16).cuda(), labels(4, (2, 16, 16)).cuda()
    step = torch.func.grad_and_value(DiceCELoss())
    gradients, values = torch.func.vmap(step, in_dims=(0, None))(members, target)
    for m in range(3):
        gradient, value = step(members[m], target)
        torch.testing.assert_close(values[m], value, rtol=1e-12, atol=0)
        torch.testing.assert_close(gradients[m], gradient, rtol=1e-10, atol=1e-14)


def test_a_target_that_is_no_class_makes_the_loss_nan() -> None:
    (z,) = logits(1, 4, (16, 16))
    target = labels(4, (2, 16, 16)).cuda()
    target[0, 0, 0] = 9
    assert DiceCELoss()(z.cuda(), target).isnan()


# --- temperature scaling


def fit_problem(z: Tensor, target: Tensor) -> TemperatureProblem:
    return TemperatureProblem(
        *(z.movedim(1, 0), target, None, None, True, False, False), 1e-30, 1e-8
    )


def fit_sums(problem: TemperatureProblem, inverse: list[float]) -> tuple[Tensor, Tensor]:
    words = TemperatureLayout(len(inverse)).words
    sums = torch.zeros(words, dtype=torch.float64, device=problem.values.device)
    counts = torch.zeros(3, dtype=torch.int64, device=problem.values.device)
    ops.temperature_sums(*problem.flatten(), inverse, len(inverse) > 1, counts, sums)
    return counts, sums


@pytest.mark.parametrize("inverse", [[0.8], [0.8, 1.2, 0.5, 1.0]])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_temperature_sums_are_those_of_the_cpu(
    backend: str, inverse: list[float], dtype: torch.dtype
) -> None:
    (z,) = logits(1, 4, (37, 41, 23), dtype=dtype)
    target = labels(4, (2, 37, 41, 23))
    with fastcal.backend("cpu"):
        counts, wanted = fit_sums(fit_problem(z, target), inverse)
    with fastcal.backend(backend):
        found_counts, found = fit_sums(fit_problem(z.cuda(), target.cuda()), inverse)
    assert torch.equal(found_counts.cpu(), counts)
    scale = wanted.abs().max().item()
    tolerance = 1e-11 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(found.cpu(), wanted, rtol=0, atol=tolerance * scale)


# --- no waiting, and CUDA graphs


def steps() -> dict[str, Callable[[], Tensor]]:
    """A step of each loss and of each temperature pass on tensors that stay."""
    (z,) = logits(1, 5, (24, 25, 26))
    own, target = z.cuda().requires_grad_(), labels(5, (2, 24, 25, 26)).cuda()
    found: dict[str, Callable[[], Tensor]] = {}
    for name, loss in LOSSES.items():
        there = loss.cuda()
        found[name] = lambda loss=there: torch.autograd.grad(loss(own, target), own)[0]
    problem = fit_problem(own.detach(), target)
    for inverse in ([0.8], [0.8, 1.2, 0.5, 1.0, 0.9]):
        found[f"temperature {len(inverse)}"] = lambda b=inverse: fit_sums(problem, b)[1]
    return found


@pytest.mark.parametrize("name", [*LOSSES, "temperature 1", "temperature 5"])
def test_no_call_waits_for_the_device(name: str) -> None:
    step = steps()[name]
    step()  # sets up whatever is set up once
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", [*LOSSES, "temperature 1", "temperature 5"])
def test_a_captured_step_replays_the_same_bits(name: str) -> None:
    step = steps()[name]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        wanted = step().clone()  # the warm-up that docs/gpu.md asks for
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    for _ in range(2):
        found.zero_()
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(found, wanted)
