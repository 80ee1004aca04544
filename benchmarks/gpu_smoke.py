"""The smallest thing first: do the kernels of each backend agree with float64 on this GPU?

    python -m benchmarks.gpu_smoke               # every backend that works, a second or two each
    python -m benchmarks.gpu_smoke --profile 4   # launches of the main kernel alone, for ncu

Types, few and many classes, even and odd sizes, with all maps and statistics; a loss with its
gradient; the sums of temperature scaling. Ends with 1 where a number is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import fastcal
from fastcal import ops
from fastcal.core.problem import MAPS, TemperatureProblem
from fastcal.losses import DiceCELoss, HardL1ACELoss, SoftL1ACELoss

SIZES = {"even": (32, 32, 32), "odd": (33, 31, 35)}
MAP_TOLERANCE, LOSS_TOLERANCE, SUM_TOLERANCE = 2e-5, 2e-4, 1e-5
Check = tuple[str, Callable[[], float], float]


def make(shape: tuple[int, ...], classes: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(classes)
    made = [3 * torch.randn(1, classes, *shape, generator=generator) for _ in range(3)]
    return [it.to(device, dtype) for it in made]


def labels_of(shape: tuple[int, ...], classes: int, device: str) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(classes, (1, *shape), generator=generator).to(device)


def map_error(members: list[Tensor], target: Tensor) -> float:
    """The worst map, and a count of the statistics that must be exact."""
    got = fastcal.ensemble_statistics(members, target, maps=MAPS)
    mean = torch.stack([it.double().softmax(1) for it in members]).mean(0)
    entropy = -torch.xlogy(mean, mean).sum(1)
    assert got.mean is not None
    assert got.entropy is not None
    assert got.calibration is not None
    worst = max(
        (got.mean - mean).abs().max().item(), (got.entropy - entropy).abs().max().item() / 4
    )
    with fastcal.backend("cpu"):
        again = fastcal.CalibrationStatistics(mean.shape[1])
        again.update(got.mean.cpu(), target.cpu())
    return worst if again == got.calibration else float("inf")


def loss_error(members: list[Tensor], target: Tensor, loss: torch.nn.Module) -> float:
    """The gradient beside that of float64 on the CPU, relative to its norm."""
    found = []
    for z in (members[0], members[0].cpu().double()):
        own = z.clone().requires_grad_()
        loss(own, target.to(z.device)).backward()
        assert own.grad is not None
        found.append(own.grad.cpu().double())
    return ((found[0] - found[1]).norm() / found[1].norm()).item()


def temperature_error(members: list[Tensor], target: Tensor, per_class: bool) -> float:
    found = []
    classes = members[0].shape[1]
    inverse = [0.8] * (classes if per_class else 1)
    words = 1 + len(inverse) + len(inverse) ** 2
    for z in (members[0], members[0].cpu().double()):
        values, wanted = z.movedim(1, 0), target.to(z.device)
        problem = TemperatureProblem(values, wanted, None, None, True, False, False, 1e-30, 1e-8)
        sums = torch.zeros(words, dtype=torch.float64, device=z.device)
        counts = torch.zeros(3, dtype=torch.int64, device=z.device)
        ops.temperature_sums(*problem.flatten(), inverse, per_class, counts, sums)
        found.append(sums.cpu())
    return ((found[0] - found[1]).abs().max() / found[1].abs().max()).item()


def checks(device: str) -> Iterator[Check]:
    for name, shape in SIZES.items():
        for dtype in (torch.float32, torch.bfloat16):
            for classes in (4, 60):
                members = make(shape, classes, dtype, device)
                target = labels_of(shape, classes, device)
                what = f"{name} {dtype} C {classes}"
                yield f"maps, {what}", lambda m=members, t=target: map_error(m, t), MAP_TOLERANCE
                # A gradient in bfloat16 has three digits.
                factor = 100 if dtype == torch.bfloat16 else 1
                for loss in (DiceCELoss(), SoftL1ACELoss(), HardL1ACELoss()):
                    yield (
                        f"{type(loss).__name__}, {what}",
                        lambda m=members, t=target, it=loss: loss_error(m, t, it),
                        LOSS_TOLERANCE * factor,
                    )
                for per_class in (False, True):
                    yield (
                        f"temperature per class {per_class}, {what}",
                        lambda m=members, t=target, it=per_class: temperature_error(m, t, it),
                        SUM_TOLERANCE,
                    )


def run(device: str, backends: list[str]) -> int:
    """How many checks failed."""
    failed = 0
    for backend in backends:
        with fastcal.backend(backend):
            for name, error_of, tolerance in checks(device):
                try:
                    error = error_of()
                    good = error <= tolerance
                    text = f"{error:.2e}, {tolerance:.0e} allowed"
                except Exception as error_raised:  # whatever fails is the finding
                    good = False
                    lines = str(error_raised).strip().splitlines() or [""]
                    text = f"{type(error_raised).__name__}: {lines[-1][:200]}"
                failed += not good
                print(f"{'ok  ' if good else 'FAIL'} {backend} {name}: {text}", flush=True)
    return failed


def profile(launches: int) -> None:
    """The kernel of the base points: all maps of float32 and bfloat16, one after another."""
    for i in range(launches):
        dtype = (torch.float32, torch.bfloat16)[i % 2]
        names = MAPS if i % 4 > 1 else ("entropy",)
        members = [torch.randn(1, 4, 240, 240, 155, device="cuda").to(dtype) for _ in range(5)]
        fastcal.ensemble_statistics(members, maps=names)
    torch.cuda.synchronize()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_smoke", description=__doc__)
    parser.add_argument("--profile", type=int, metavar="LAUNCHES")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backends", nargs="+")
    options = parser.parse_args()
    if options.profile is not None:
        profile(options.profile)
        return 0
    wanted = options.backends
    if wanted is None:
        wanted = ["cuda", "triton"]
        for status in fastcal.backends.status():
            if status.name in wanted and not status.available:
                print(f"FAIL {status.name}: {status.reason}")
                return 1
    failed = run(options.device, wanted)
    print(f"{failed} wrong" if failed else "all right")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
