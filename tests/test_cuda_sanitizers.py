"""The CUDA kernels under the address and undefined-behaviour sanitizers of the C++ compiler."""

from __future__ import annotations

import os
import subprocess
import sys

import cuda_shim
import pytest

# In its own process, so that torch uses the allocator of the sanitizer.
PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
import torch
torch.set_num_threads(1)
import cuda_shim, kernel_cases
from fastcal import backends
backends._loaded["cpu"] = cuda_shim.whole(Path(sys.argv[1]))
print("clean", kernel_cases.run("cpu"))
"""


@pytest.mark.slow
def test_the_kernels_touch_nothing_that_is_not_theirs():
    library = cuda_shim.build(sanitized=True)
    # The interpreter is not instrumented, so that the runtime must be in the process first.
    compiler = os.environ.get("CXX", "g++")
    runtimes = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(library)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cuda_shim.ROOT,
        env={
            **os.environ,
            "LD_PRELOAD": " ".join(runtimes),
            "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        },
    )
    assert result.returncode == 0, result.stderr[-8000:]
    clean, n_cases = result.stdout.split()
    assert clean == "clean"
    assert int(n_cases) > 50
