"""The CUDA kernels under the address and undefined-behaviour sanitizers of the C++ compiler."""

from __future__ import annotations

import os
import subprocess
import sys

import cuda_shim

# A case of every kind of kernel and reading, on volumes that end inside a tile. In a process of its
# own, so that the sanitizer's allocator is the one that torch uses.
PROGRAM = """
import sys
sys.path.insert(0, "tests")
import torch
torch.set_num_threads(1)
import fastcal, cuda_shim
from fastcal import backends
from members import arranged, labels, logits, pairwise, probabilities
from pathlib import Path
backends._loaded["cpu"] = cuda_shim.backend(Path(sys.argv[1]))
maps = ("mean", "label", "confidence", "entropy", "expected_entropy", "mutual_information",
        "variance", "disagreement")
dtypes = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
counts = (2, 3, 4, 5, 8, 11, 16, 31, 52, 60, 130, 210)
sizes = {"contiguous": 264, "channels_last": 37, "cropped": 67}
for n_classes, dtype, layout in pairwise(counts, dtypes, tuple(sizes)):
    shape = (2, sizes[layout] if n_classes < 16 else 36)
    members = [arranged(m, layout) for m in logits(2, n_classes, shape, dtype=dtype)]
    fastcal.ensemble_statistics(
        members, labels(n_classes, (2, *shape)), maps=maps, n_bins=n_classes, case_id=["a", "b"])
kinds = (
    {"activation": "sigmoid", "multilabel": True},
    {"from_logits": False},
    {"from_logits": False, "temperature": 2.0, "normalise": True},
)
for dtype, n_classes, space, kind in pairwise(dtypes, (2, 9, 40), ("prob", "logit"), kinds):
    names = maps[:4] + (maps[7:] if space == "logit" else maps[4:])
    multilabel = kind.get("multilabel", False)
    made = probabilities if kind.get("from_logits") is False else logits
    members = made(3, n_classes, (77,), dtype=dtype)
    truth = (probabilities(1, n_classes, (77,))[0] > 0.5).int()
    target = truth if multilabel else labels(n_classes, (2, 77))
    stream = fastcal.EnsembleAccumulator(
        maps=names, space=space,
        **{k: v for k, v in kind.items() if k not in ("temperature", "normalise")})
    for member in members:
        stream.update(member, temperature=kind.get("temperature", 1.0))
    stream.finalize(target, mask=torch.rand(2, 77) > 0.2, nan_policy="omit")
    fastcal.ensemble_statistics(
        members, target, maps=names, space=space, nan_policy="omit", **kind)
members = logits(60, 3, (40,))
fastcal.ensemble_statistics(members, labels(3, (2, 40)), n_bins=100)
fastcal.ensemble_statistics(members, labels(3, (2, 40)), n_bins=6000)
# Tiles in the workspace, and more cases than it has room for at once.
members = logits(1, 1000, (33,), batch=70)
fastcal.ensemble_statistics(
    members, labels(1000, (70, 33)), maps=("disagreement",), case_id=list(range(70)),
    calibration="top-label")
print("clean")
"""


def test_the_kernels_touch_nothing_that_is_not_theirs():
    library = cuda_shim.build(sanitized=True)
    # The interpreter is not instrumented: the runtime must be in the process before it.
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
    assert result.stdout.strip() == "clean"
