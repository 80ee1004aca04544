"""Bandwidth of a copy and of a clone on the GPU: what kernels are measured against.

    python benchmarks/gpu_roofs.py FILE

It needs torch alone, so that it can run while fastcal is being built, and writes JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch

ROUNDS = 21


def seconds(run: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def bandwidth(run: Callable[[], object], n_bytes: int) -> float:
    """Gigabytes per second of a call that reads and writes so many bytes."""
    return round(
        2 * n_bytes / statistics.median([seconds(run) for _ in range(ROUNDS)][3:]) / 1e9, 1
    )


def roofs(megabytes: int) -> dict[str, float]:
    source = torch.zeros(megabytes * 2**20 // 4, device="cuda")
    target = torch.empty_like(source)
    return {
        f"copy_{megabytes}MiB_GB_per_s": bandwidth(lambda: target.copy_(source), source.nbytes),
        f"clone_{megabytes}MiB_GB_per_s": bandwidth(source.clone, source.nbytes),
    }


def main(file: Path) -> None:
    found: dict[str, object] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
    }
    for megabytes in (256, 1024, 2048):
        found |= roofs(megabytes)
    file.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
