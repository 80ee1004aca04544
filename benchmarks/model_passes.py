"""Predicts the time of the CUDA pass from counts of instructions, bytes and warps.

    python -m benchmarks.model_passes

Prints the table of docs/gpu.md. Nothing is measured: `benchmarks/gpu.sh` does that. The counts are
those of tests/test_cuda_counts.py. A warp's time for a tile is the time of its instructions at the
rate of a single warp, or of its copies where those take longer. A multiprocessor cannot go faster
than its schedulers issue and its special function units deliver. The result and the rate of a copy
are combined as the root of the sum of squares of their times, because neither is reached near the
other. Expect errors of a tenth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MULTIPROCESSORS = 132
LATENCY = 600
"""Cycles from the start of a copy until it lands."""
SINGLE_WARP = 0.35
"""Instructions per cycle that one warp issues alone."""
SCHEDULERS = 4
SPECIAL_LANES = 16
"""Exponentials and logarithms per cycle of a multiprocessor."""


@dataclass(frozen=True)
class Device:
    """A device, by the rate of its copy."""

    name: str
    copy: float
    """Bytes per second, read plus written."""
    clock: float


H100, H200 = Device("H100", 3.0e12, 1.755e9), Device("H200", 4.3e12, 1.98e9)


@dataclass(frozen=True)
class Pass:
    """A plain pass of four classes, as a warp sees it."""

    name: str
    element_bytes: int
    voxels: int
    """Of a thread."""
    member_slots: int
    """For one member of a tile."""
    voxel_slots: float
    """For all else, by the voxels of a thread."""
    map_bytes: int
    """Written for a voxel."""
    warps: int
    """Of a multiprocessor, by registers."""
    stages: int
    classes: int = 4

    def rate(self, members: int, device: Device) -> float:
        """Bytes per second that warps, schedulers and special function units allow."""
        rest = self.voxel_slots * self.voxels
        compute = self.member_slots / SINGLE_WARP
        alone = members * max(compute, LATENCY / self.stages) + rest / SINGLE_WARP
        issued = (members * self.member_slots + rest) * self.warps / SCHEDULERS
        special = 32 * self.voxels * (members * (self.classes + 1) + self.classes)
        cycles = max(alone, issued, special * self.warps / SPECIAL_LANES)
        tile = 32 * self.voxels * self.voxel_bytes(members)
        return MULTIPROCESSORS * device.clock * self.warps * tile / cycles

    def voxel_bytes(self, members: int) -> int:
        """Bytes that a voxel needs, read plus written."""
        return members * self.classes * self.element_bytes + self.map_bytes

    def share(self, members: int, device: Device) -> float:
        """The predicted share of the rate of a copy."""
        return 1 / math.hypot(1, device.copy / self.rate(members, device))

    @property
    def in_flight(self) -> int:
        """Bytes on their way to a multiprocessor, at most."""
        return self.warps * self.stages * self.classes * 32 * self.voxels * self.element_bytes


PASSES = (
    Pass("float32 entropy", 4, 4, 145, 38, 4, 16, 3),
    Pass("float32 all maps", 4, 4, 255, 134, 52, 12, 3),
    Pass("bfloat16 entropy", 2, 8, 287, 33, 4, 12, 3),
    Pass("bfloat16 all maps", 2, 8, 518, 115, 52, 12, 3),
)


def table() -> list[str]:
    """Give the lines of the table in docs/gpu.md."""
    lines = [
        "| C = 4 | M | slots per voxel | KB on their way | H100 | measured | H200 | measured |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kernel in PASSES:
        for members in (5, 50):
            slots = members * kernel.member_slots / kernel.voxels + kernel.voxel_slots
            shares = " |  | ".join(f"{kernel.share(members, d):.2f}" for d in (H100, H200))
            lines.append(
                f"| {kernel.name} | {members} | {slots:.0f} | {kernel.in_flight >> 10} "
                f"| {shares} |  |"
            )
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
