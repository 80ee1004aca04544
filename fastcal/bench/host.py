"""Host time of a call: what Python and the launch take when there is little to compute."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

import fastcal
from fastcal.bench.device import Device
from fastcal.bench.points import SIX

_SIDE, _CLASSES = 4, 4
_CALLS, _REPEATS = 200, 7  # the queue of a stream holds more than 200, so that no call waits


@dataclass(frozen=True, slots=True)
class HostTime:
    """Microseconds until a call on 4 x 4 x 4 voxels, with given outputs, returns."""

    call: str
    microseconds: float
    target: float | None
    """The most microseconds that a call on a GPU should take, where such a limit is set."""


def host_times(device: Device) -> list[HostTime]:
    """Time one map of 5 and of 50 members, six maps, and six maps with calibration."""
    generator = torch.Generator(device.torch).manual_seed(0)
    shape = (1, _CLASSES, _SIDE, _SIDE, _SIDE)
    members = [torch.randn(shape, device=device.torch, generator=generator) for _ in range(50)]
    target = torch.zeros((1, *shape[2:]), dtype=torch.int64, device=device.torch)
    out = {name: torch.empty((1, *shape[2:]), device=device.torch) for name in SIX}
    out["mean"] = torch.empty(shape, device=device.torch)
    out["label"] = torch.empty_like(target)
    five = members[:5]

    def entropy(some: list[torch.Tensor]) -> Callable[[], object]:
        return lambda: fastcal.ensemble_entropy(some, out=out["entropy"])

    calls: list[tuple[str, float | None, Callable[[], object]]] = [
        ("entropy, M 5", 25, entropy(five)),
        ("entropy, M 50", 80, entropy(members)),
        ("six maps, M 5", 45, lambda: fastcal.ensemble_statistics(five, maps=SIX, out=out)),
        (
            "six maps + calibration, M 5",
            None,
            lambda: fastcal.ensemble_statistics(five, target, maps=SIX, out=out),
        ),
    ]
    gpu = device.torch.type == "cuda"
    return [
        HostTime(name, _microseconds(run, device), limit if gpu else None)
        for name, limit, run in calls
    ]


def _microseconds(run: Callable[[], object], device: Device) -> float:
    taken = []
    for _ in range(_REPEATS + 1):
        device.synchronize()
        start = time.perf_counter()
        for _ in range(_CALLS):
            run()
        taken.append((time.perf_counter() - start) / _CALLS)
    device.synchronize()
    return statistics.median(taken[1:]) * 1e6
