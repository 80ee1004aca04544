"""The CUDA kernels executed without a GPU, by a fibre a lane (tests/cpp/cuda_shim).

The tests of the pass are those of the other backends, sent to these kernels instead.
"""

from __future__ import annotations

from collections.abc import Iterator

import cuda_shim
import pytest
import test_accumulator
import test_calibration
import test_ensemble
import test_ops
from test_calibration import sample, thread_counts  # noqa: F401

import fastcal
from fastcal import backends
from fastcal.backends.launch import Passes

for _module in (test_ensemble, test_calibration, test_accumulator, test_ops):
    for _name, _test in list(vars(_module).items()):
        _marks = getattr(_test, "pytestmark", []) if _name.startswith("test_") else []
        if any(mark.name == "usefixtures" and "engine" in mark.args for mark in _marks):
            globals()[_name] = _test


@pytest.fixture(scope="module")
def kernels() -> Passes:
    return cuda_shim.backend(cuda_shim.build())


@pytest.fixture
def engine(kernels: Passes, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """In place of the engines of the other files: calls on the CPU reach the CUDA kernels."""
    monkeypatch.setitem(backends._loaded, "cpu", kernels)
    with fastcal.backend("cpu"):
        yield "cuda"
