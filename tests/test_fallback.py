"""A kernel that cannot be compiled or launched is left to the next backend, and that is told."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import fastcal
from fastcal import backends, info
from fastcal.backends import reference
from fastcal.backends.failures import cannot_launch

CUDA = torch.device("cuda")
OPS = [name for name in vars(backends.Backend) if not name.startswith("_")]


@pytest.fixture
def calls() -> Iterator[list[tuple[str, str]]]:
    """Backends of the GPU whose ops note (backend, op); an op named in `failing` raises."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "_loaded", {})
        patch.setattr(backends, "_failed", {})
        made: list[tuple[str, str]] = []
        for name in ("cuda", "triton", "reference"):
            backends._loaded[name] = noting(name, made)
        yield made


def noting(name: str, made: list[tuple[str, str]], **failing: Exception) -> Any:
    def op_of(op: str) -> Any:
        def run(*_: object) -> None:
            made.append((name, op))
            if op in failing:
                raise failing[op]

        return run

    return SimpleNamespace(**{op: op_of(op) for op in OPS})


def fail(name: str, made: list[tuple[str, str]], **failing: Exception) -> None:
    backends._loaded[name] = noting(name, made, **failing)


@pytest.mark.parametrize("op", OPS)
def test_the_next_backend_takes_over_once_and_for_all(calls, op):
    fail("cuda", calls, **{op: RuntimeError("CUDA error 209: no kernel image is available")})
    message = f"'cuda' cannot compile or launch its kernel of {op}, so that 'triton' takes over"
    with pytest.warns(RuntimeWarning, match=message):
        backends.call(op, CUDA)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backends.call(op, CUDA)
    assert calls == [("cuda", op), ("triton", op), ("triton", op)]
    others = [it for it in OPS if it != op]
    for other in others:
        backends.call(other, CUDA)
    assert calls[3:] == [("cuda", other) for other in others]


def test_a_second_failure_goes_on_to_the_third(calls):
    fail("cuda", calls, class_sums=RuntimeError("CUDA error 701: too many resources requested"))
    fail("triton", calls, class_sums=RuntimeError("PassManager::run failed"))
    with pytest.warns(RuntimeWarning) as told:
        backends.call("class_sums", CUDA)
    assert len(told) == 2
    assert [name for name, _ in calls] == ["cuda", "triton", "reference"]


def test_the_reason_is_kept_for_info(calls, monkeypatch):
    fail("triton", calls, bin_gaps=RuntimeError("first line\nCompilationError: at 78:16"))
    backends._loaded["cuda"] = "no driver"
    with pytest.warns(RuntimeWarning, match="at 78:16"):
        backends.call("bin_gaps", CUDA)
    (status,) = (it for it in backends.status() if it.name == "triton")
    assert status.available
    assert status.failed == {"bin_gaps": "RuntimeError: CompilationError: at 78:16"}
    monkeypatch.setattr(info, "_gpu", lambda: None)
    report = info.render(info.collect()).splitlines()
    line = next(i for i, text in enumerate(report) if text.startswith("backend triton"))
    assert report[line].endswith("works, but for")
    assert report[line + 1].split(maxsplit=1) == [
        "bin_gaps",
        "RuntimeError: CompilationError: at 78:16",
    ]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("voxels must fit in fewer than 2^31 tiles"),
        TypeError("an argument"),
        RuntimeError("CUDA error 700: an illegal memory access was encountered"),
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
        RuntimeError("CUDA error: operation not permitted when stream is capturing"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
    ids=str,
)
def test_other_errors_are_raised_as_they_are(calls, error):
    fail("cuda", calls, class_sums=error)
    with pytest.raises(type(error)) as raised:
        backends.call("class_sums", CUDA)
    assert raised.value is error
    assert calls == [("cuda", "class_sums")]
    assert backends._failed == {}


def test_a_forced_backend_and_the_last_one_have_no_next(calls):
    refused = RuntimeError("CUDA error 209: no kernel image is available")
    fail("cuda", calls, class_sums=refused)
    with fastcal.backend("cuda"), pytest.raises(RuntimeError, match="no kernel image"):
        backends.call("class_sums", CUDA)
    backends._loaded.update(cuda="none", triton="none")
    for name, device in (("reference", CUDA), ("cpu", torch.device("cpu"))):
        fail(name, calls, class_sums=refused)
        with pytest.raises(RuntimeError, match="no kernel image"):
            backends.call("class_sums", device)


def test_what_triton_raises_is_recognised():
    triton = pytest.importorskip("triton", reason="triton is not installed")
    from triton.runtime.errors import OutOfResources

    assert cannot_launch(OutOfResources(300_000, 232_448, "shared memory"))
    assert cannot_launch(triton.CompilationError("def f(): pass", None, "no"))
    assert cannot_launch(RuntimeError("Failed to find C compiler."))
    assert cannot_launch(subprocess.CalledProcessError(1, ["gcc"]))


def test_a_loss_is_that_of_the_reference_where_the_kernels_fail(monkeypatch):
    """The values of a run that falls back are those of the backend that it falls to."""
    monkeypatch.setattr(backends, "_failed", {})
    refused = RuntimeError("CUDA error 209: no kernel image is available")
    broken = noting("cpu", [], **dict.fromkeys(OPS, refused))
    monkeypatch.setattr(backends, "_loaded", {"cuda": broken, "triton": "none"})
    backends._loaded["reference"] = reference
    z = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = (z[:, 0] > 0).long()
    sums = torch.empty(1, 2, 6, 3, dtype=torch.float64)
    reading = fastcal.core.problem.LossReading("softmax", None)
    wanted = fastcal.core.problem.SumsWanted(True, True, True)
    with pytest.warns(RuntimeWarning, match="'reference' takes over"):
        backends.call("class_sums", CUDA, z[None], target[None], reading, wanted, sums)
    p = z.softmax(1)
    torch.testing.assert_close(sums[0, :, 1], p.sum(-1))
    torch.testing.assert_close(sums[0, :, 2], p.square().sum(-1))


def test_every_op_is_run_where_info_is_asked_to(monkeypatch):
    seen: list[str] = []
    call = backends.call

    def noted(op: str, device: torch.device, *arguments: Any) -> None:
        seen.append(op)
        call(op, device, *arguments)

    monkeypatch.setattr(backends, "call", noted)
    info.collect(gpu=False, kernels=True)
    assert set(seen) == set(OPS)
