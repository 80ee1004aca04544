"""No loss and no temperature pass makes the host wait for the device: shown on a fake device.

The tensors have torch's device ``meta`` in place of a GPU. A mode sees every operator, and with it
each copy between host and device and each number that is read back. A launch of Triton ends before
the driver would be asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from fastcal import losses
from fastcal.backends import reference_losses
from fastcal.backends.gpu_sums import GpuSums
from fastcal.core import bins
from fastcal.core.problem import (
    GapBins,
    LossReading,
    SumsWanted,
    TemperatureLayout,
    TemperatureProblem,
)

ROOT = Path(__file__).resolve().parent.parent
SHAPE = (6, 7)
CLASSES = 4
HARMLESS = {
    *("cudaLaunchKernelEx", "cudaGetDevice", "cudaSetDevice", "cudaGetDeviceCount"),
    *("cudaDeviceGetAttribute", "cudaFuncSetAttribute", "cudaGetErrorString"),
    *("cudaOccupancyMaxActiveBlocksPerMultiprocessor",),
    *("cudaDriverGetVersion", "cudaRuntimeGetVersion"),
}
"""Calls of the CUDA runtime that return at once, and may be made while a graph is captured."""


class Waits(TorchDispatchMode):
    """Collects operators after which the host has waited for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func)
        tensors = [it for it in (*args, result) if isinstance(it, Tensor)]
        crosses = len({it.device.type for it in tensors if it.ndim > 0}) > 1
        copies = any(word in name for word in ("copy", "device_put", "lift"))
        reads = "local_scalar_dense" in name or "nonzero" in name
        if (crosses and copies) or (reads and tensors[0].device.type != "cpu"):
            self.found.append(name)
        return result


class Made(TorchFunctionMode):
    """Adds tensors made of numbers of the host, which reach a device by a copy too."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        device = torch.device((kwargs or {}).get("device") or "cpu")
        if func in (torch.tensor, torch.as_tensor) and device.type != "cpu":
            self._found.append(func.__name__)
        return func(*args, **(kwargs or {}))


@contextmanager
def fake_device() -> Iterator[Waits]:
    bins.thresholds_on.cache_clear()
    with Waits() as waits, Made(waits.found):
        yield waits
    bins.thresholds_on.cache_clear()


def volume(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    z = torch.randn(1, 2, CLASSES, *SHAPE, dtype=dtype, device="meta")
    return z, torch.zeros(1, 2, *SHAPE, dtype=torch.int64, device="meta")


def class_passes(backend: Any) -> None:
    z, target = volume()
    sums = torch.empty(1, 2, 6, CLASSES, dtype=torch.float64, device="meta")
    for head in ("softmax", "sigmoid"):
        given = (z, target, LossReading(head, 1), SumsWanted(True, True, True))
        backend.class_sums(*given, sums)
        backend.class_gradient(*given, sums, torch.empty_like(z))


def bin_passes(backend: Any) -> None:
    z, target = volume()
    for count in (1, 20):
        sums = torch.empty(1, 2, CLASSES, 2 * count + 1, dtype=torch.float64, device="meta")
        for soft in (False, True):
            given = (z, target, LossReading("softmax", None), GapBins(count, soft))
            backend.bin_gaps(*given, sums)
            backend.bin_gradient(*given, sums, torch.empty_like(z))


def temperature_passes(backend: Any) -> None:
    z, target = volume()
    mask = torch.ones(2, *SHAPE, dtype=torch.bool, device="meta")
    for n in (1, CLASSES):
        problem = TemperatureProblem(
            z[0].movedim(1, 0), target[0], mask, 0, True, False, False, 1e-30, 1e-8
        )
        sums = torch.zeros(TemperatureLayout(n).words, dtype=torch.float64, device="meta")
        counts = torch.zeros(3, dtype=torch.int64, device="meta")
        backend.temperature_sums(problem, [0.7] * n, n > 1, counts, sums)


class Triton:
    """The launchers, without a GPU that they would have to make current."""

    def __getattr__(self, op: str) -> Any:
        import importlib

        file = {"class_gradient": "class_sums", "bin_gradient": "bin_gaps"}.get(op, op)
        return getattr(importlib.import_module(f"fastcal.triton_kernels.{file}"), op)


@pytest.fixture
def triton_launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    pytest.importorskip("triton", reason="triton is not installed")
    from triton.runtime.jit import JITFunction

    from fastcal.triton_kernels import policy

    launched: list[str] = []

    def launch(self: Any, *_: object, **__: object) -> None:
        launched.append(self.__name__)

    monkeypatch.setattr(JITFunction, "run", launch)
    monkeypatch.setattr(policy, "resident_programs", lambda _: 132)
    return launched


PASSES = {"classes": class_passes, "bins": bin_passes, "temperature": temperature_passes}


@pytest.mark.parametrize("name", PASSES)
def test_no_triton_launcher_waits_after_its_first_call(
    name: str, triton_launches: list[str]
) -> None:
    with fake_device() as waits:
        PASSES[name](Triton())
        once = list(triton_launches)
        waits.found.clear()
        PASSES[name](Triton())
    assert waits.found == []
    assert triton_launches == once * 2
    assert once


class Module:
    """Stands for the compiled module: notes its calls, which launch and return."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def __getattr__(self, op: str) -> Any:
        def call(*_: object) -> int:
            self.called.append(op)
            return 64

        return call


@pytest.mark.parametrize("name", PASSES)
def test_no_pass_of_the_cuda_backend_waits_after_its_first_call(name: str) -> None:
    module = Module()
    backend = GpuSums(module, lambda _: (0, 0))
    with fake_device() as waits:
        PASSES[name](backend)
        once = list(module.called)
        waits.found.clear()
        PASSES[name](backend)
    assert waits.found == []
    assert module.called == once * 2
    assert once


def test_the_cuda_module_calls_nothing_that_waits_or_cannot_be_captured() -> None:
    """Neither copies from the host nor synchronises nor allocates; checked in its sources."""
    called = set()
    for file in (ROOT / "csrc" / "cuda").iterdir():
        called |= set(re.findall(r"\bcu(?:da)?[A-Z]\w+(?=\()", file.read_text()))
    assert called <= HARMLESS
    assert "cudaLaunchKernelEx" in called


@pytest.mark.parametrize("name", ["classes", "bins"])
def test_no_pass_of_the_reference_waits_after_its_first_call(name: str) -> None:
    with fake_device() as waits:
        PASSES[name](reference_losses)
        waits.found.clear()
        PASSES[name](reference_losses)
    assert waits.found == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: losses.DiceCELoss(weight=[0.5, 1.0, 2.0, 1.5], label_smoothing=0.1, ignore_index=3),
        lambda: losses.DiceLoss(head="sigmoid"),
        lambda: losses.PaperDiceLoss(),
        lambda: losses.HardL1ACELoss(),
        lambda: losses.SoftL1ACELoss(head="sigmoid", ignore_index=0),
    ],
)
def test_no_loss_waits_forward_or_backward(make: Callable[[], torch.nn.Module]) -> None:
    """Around the passes, which are the fakes of the ops here."""
    loss = make()
    with fake_device() as waits:
        on_device = loss.to("meta")
        z, target = volume()
        waits.found.clear()
        value = on_device(z[0].requires_grad_(), target[0])
        value.backward()
    assert waits.found == []


@pytest.mark.usefixtures("triton_launches")
def test_a_copy_from_pageable_memory_is_noticed() -> None:
    with fake_device() as waits:
        torch.ones(3).to("meta")
        torch.tensor([1.0, 2.0], device="meta")
    assert len(waits.found) == 2
