"""Which backend serves which tensors, and the reasons of those that cannot, with stand-ins for what
needs a driver."""

from __future__ import annotations

import sys
from types import ModuleType

import cuda_shim
import pytest
import torch

import fastcal
from fastcal import backends, info

CUDA = torch.device("cuda")
GPU_BACKENDS = ("cuda", "triton", "reference")


@pytest.fixture
def loads(monkeypatch):
    """Nothing loaded yet; gives a function that lets a backend work, or fail with a reason."""
    found: dict[str, object] = {}
    monkeypatch.setattr(backends, "_loaded", found)

    def put(name: str, reason: str | None = None) -> None:
        module = ModuleType(name)
        module.ensemble_statistics = None  # type: ignore[attr-defined]
        found[name] = module if reason is None else reason

    return put


@pytest.mark.parametrize("best", [0, 1, 2])
def test_cuda_tensors_take_the_first_backend_that_works(loads, best):
    for place, name in enumerate(GPU_BACKENDS):
        loads(name, f"reason of {name}" if place < best else None)
    assert backends.select(CUDA).__name__ == GPU_BACKENDS[best]
    assert backends.preferred("cuda") == GPU_BACKENDS[best]
    reasons = {status.name: status.reason for status in backends.status()}
    for place, name in enumerate(GPU_BACKENDS):
        assert reasons[name] == (f"reason of {name}" if place < best else "")


def test_a_forced_backend_is_taken_where_a_better_one_works(loads):
    for name in GPU_BACKENDS:
        loads(name)
    for name in GPU_BACKENDS:
        with fastcal.backend(name):
            assert backends.select(CUDA).__name__ == name


def test_forcing_a_backend_that_cannot_run_gives_its_reason(loads):
    loads("cuda", "no NVIDIA driver was found")
    with (
        pytest.raises(
            ValueError,
            match="must be one that can run here, got 'cuda': no NVIDIA driver was found",
        ),
        fastcal.backend("cuda"),
    ):
        pass


@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_backends_of_the_gpu_refuse_tensors_of_the_cpu(loads, name):
    loads(name)
    with (
        fastcal.backend(name),
        pytest.raises(ValueError, match=f"tensors for backend {name!r} must be on cuda"),
    ):
        fastcal.ensemble_entropy([torch.zeros(1, 2, 3)])


def test_no_device_but_cpu_and_cuda_is_served():
    with pytest.raises(ValueError, match="tensors must be on cpu or cuda, got meta"):
        backends.select(torch.device("meta"))


@pytest.mark.usefixtures("loads")
def test_backends_of_the_gpu_are_not_asked_when_it_is_left_alone():
    assert [status.name for status in backends.status(gpu=False)] == ["reference", "cpu"]
    assert {"cuda", "triton"}.isdisjoint(backends._loaded)


# The module built for the CPU stands in for `_cuda`, its driver's answers are set by the test.


@pytest.fixture
def module(loads, monkeypatch):  # noqa: ARG001
    built = cuda_shim.load(cuda_shim.build())
    monkeypatch.setitem(sys.modules, "fastcal._cuda", built)
    monkeypatch.setattr(fastcal, "_cuda", built, raising=False)
    monkeypatch.delitem(sys.modules, "fastcal.backends.cuda", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")


def reason_of_cuda() -> str:
    (status,) = (status for status in backends.status() if status.name == "cuda")
    assert status.available == (status.reason == "")
    return status.reason


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("DRIVER", "0", "no NVIDIA driver was found"),
        (
            "DRIVER",
            "12080",
            "the NVIDIA driver is too old: it runs CUDA 12.8, these kernels were built with 13.0",
        ),
        ("DEVICES", "0", "the NVIDIA driver shows no GPU"),
        (
            "CAPABILITY",
            "70",
            "the kernels were compiled for 75-real 80-real 90-real 100-real 120, "
            "the GPUs here have compute capability 7.0",
        ),
        # No machine code of this generation, and the PTX is of a later one.
        (
            "CAPABILITY",
            "110",
            "the kernels were compiled for 75-real 80-real 90-real 100-real 120, "
            "the GPUs here have compute capability 11.0",
        ),
        ("CAPABILITY", "75", ""),
        ("CAPABILITY", "89", ""),
        ("CAPABILITY", "103", ""),
        ("CAPABILITY", "121", ""),
        ("CAPABILITY", "130", ""),
    ],
)
def test_the_reason_is_what_the_driver_answers(monkeypatch, variable, value, reason):
    monkeypatch.setenv(f"FASTCAL_SHIM_{variable}", value)
    assert reason_of_cuda() == reason


@pytest.mark.usefixtures("module")
def test_a_torch_without_cuda_is_the_reason_before_any_driver(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert reason_of_cuda() == f"torch {torch.__version__} was built without CUDA"


def test_a_build_without_the_module_says_so(loads, monkeypatch):  # noqa: ARG001
    monkeypatch.setitem(sys.modules, "fastcal._cuda", None)
    monkeypatch.delattr(fastcal, "_cuda", raising=False)
    monkeypatch.delitem(sys.modules, "fastcal.backends.cuda", raising=False)
    reason = "not built: this installation was made without nvcc or with FASTCAL_CUDA=OFF"
    assert reason_of_cuda() == reason


@pytest.mark.usefixtures("module")
def test_info_names_the_backend_of_cuda_tensors_and_why_no_better_one(monkeypatch, loads):
    loads("triton")
    monkeypatch.setenv("FASTCAL_SHIM_DRIVER", "12080")
    report = info.collect()
    assert report.gpu is not None
    assert report.gpu.backend == "triton"
    lines = info.render(report).splitlines()
    assert any(line.startswith("backend cuda ") and "too old" in line for line in lines)
