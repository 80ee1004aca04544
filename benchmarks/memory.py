"""Memory that a call takes beyond its inputs and given outputs: the peak resident size.

``python -m benchmarks.memory CANDIDATE M C SHAPE DTYPE THREADS`` prints bytes. Inputs and outputs
are written first. A call on a crop warms up imports, pools and thread stacks. Then the peak is
reset (``/proc/self/clear_refs``), and the call is made.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CANDIDATES = ("fastcal", "eager")


@dataclass(frozen=True)
class Extra:
    """Peak extra memory of the six maps into given outputs."""

    candidate: str
    members: int
    megabytes: float

    def __str__(self) -> str:
        return (
            f"extra memory of {self.candidate}, M = {self.members}, six maps into given outputs"
            f"{' + both calibrations' * (self.candidate == 'fastcal')}: {self.megabytes:.1f} MB"
        )


def extra(
    n_members: int, n_classes: int, shape: Sequence[int], dtype: str, threads: int
) -> list[Extra]:
    """Measure every candidate in a process of its own; none where the system cannot tell."""
    if not Path("/proc/self/clear_refs").exists():
        return []
    size = "x".join(map(str, shape))
    found = []
    for candidate in CANDIDATES:
        command = [sys.executable, "-m", "benchmarks.memory", candidate]
        command += [str(n_members), str(n_classes), size, dtype, str(threads)]
        run = subprocess.run(
            command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
        )
        found.append(Extra(candidate, n_members, int(run.stdout) / 1e6))
    return found


def status_bytes(key: str) -> int:
    """Read a size of this process from ``/proc/self/status``, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}")


def _measure(candidate: str, n_members: int, n_classes: int, size: str, dtype: str) -> int:
    import torch

    import fastcal
    from fastcal.bench import plain
    from fastcal.bench.points import SIX
    from fastcal.bench.volumes import make_case

    shape = tuple(int(n) for n in size.split("x"))
    case = make_case(n_members, n_classes, shape, background=0.95, dtype=getattr(torch, dtype))
    real = torch.promote_types(case.members[0].dtype, torch.float32)
    out = {name: torch.ones(1, *shape, dtype=real) for name in SIX}
    out["mean"] = torch.ones(1, n_classes, *shape, dtype=real)
    out["label"] = torch.ones(1, *shape, dtype=torch.int64)

    def call(corner: slice) -> None:
        members = [m[:, :, corner] for m in case.members]
        buffers = {
            name: values[:, :, corner] if name == "mean" else values[:, corner]
            for name, values in out.items()
        }
        if candidate == "eager":
            plain.six_maps_into(members, buffers)
        else:
            target = case.target[:, corner]
            fastcal.ensemble_statistics(members, target, maps=SIX, out=buffers)

    call(slice(0, 2))
    before = status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    call(slice(None))
    return max(0, status_bytes("VmHWM") - before)


if __name__ == "__main__":
    name, members, classes, volume, kind, n_threads = sys.argv[1:]
    import torch as _torch

    _torch.set_num_threads(int(n_threads))
    print(_measure(name, int(members), int(classes), volume, kind))
