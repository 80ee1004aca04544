"""Predicts the time of the CUDA pass from counts of instructions, bytes and warps.

    python -m benchmarks.model_passes

Prints the tables of docs/gpu.md. Nothing is measured: `benchmarks/gpu.sh` does that. The counts are
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
    """A pass, as a warp sees it."""

    name: str
    element_bytes: int
    voxels: int
    """Of a thread."""
    member_slots: int
    """For one member of a tile."""
    voxel_slots: float
    """For all else, by the voxels of a thread."""
    map_bytes: int
    """Written for a voxel, and read of labels."""
    warps: int
    """Of a multiprocessor, by registers."""
    stages: int
    """Members on their way while another is added; 0: a member is waited for when it is needed."""
    classes: int = 4
    lanes: int = 1
    """That share the classes of a voxel."""

    def rate(self, members: int, device: Device) -> float:
        """Bytes per second that warps, schedulers and special function units allow."""
        rest = self.voxel_slots * self.voxels
        alone = members * self._member_cycles + rest / SINGLE_WARP
        issued = (members * self.member_slots + rest) * self.warps / SCHEDULERS
        held = self.classes / self.lanes
        special = 32 * self.voxels * (members * (held + 1) + held)
        cycles = max(alone, issued, special * self.warps / SPECIAL_LANES)
        tile = 32 * self.voxels / self.lanes * self.voxel_bytes(members)
        return MULTIPROCESSORS * device.clock * self.warps * tile / cycles

    @property
    def _member_cycles(self) -> float:
        """What a member takes a warp that is alone."""
        compute = self.member_slots / SINGLE_WARP
        return max(compute, LATENCY / self.stages) if self.stages else compute + LATENCY

    def voxel_bytes(self, members: int) -> int:
        """Bytes that a voxel needs, read plus written."""
        return members * self.classes * self.element_bytes + self.map_bytes

    def share(self, members: int, device: Device) -> float:
        """The predicted share of the rate of a copy."""
        return 1 / math.hypot(1, device.copy / self.rate(members, device))

    def slots(self, members: int) -> float:
        """Give the issue slots of a warp by the voxels of a thread."""
        return members * self.member_slots / self.voxels + self.voxel_slots

    @property
    def in_flight(self) -> int:
        """Bytes on their way to a multiprocessor, at most."""
        held = self.classes * 32 * self.voxels // self.lanes * self.element_bytes
        return self.warps * max(self.stages, 1) * held


ENTROPY, ALL, SIX = 4, 48, 40
"""Bytes of the maps of a voxel with four classes: labels have eight, all else four."""
# Each score of a class and each of the two histograms, beside the maps; see docs/gpu.md.
_COUNTING = 4 * 25 + (4 + 1) * 20

PASSES = (
    Pass("float32 entropy", 4, 4, 145, 38, ENTROPY, 16, 3),
    Pass("float32 all maps", 4, 4, 255, 134, ALL, 12, 3),
    Pass("bfloat16 entropy", 2, 8, 287, 33, ENTROPY, 12, 3),
    Pass("bfloat16 all maps", 2, 8, 518, 115, ALL, 12, 3),
)
"""Those of docs/gpu.md whose counts tests/test_cuda_counts.py holds to the machine code."""

OTHERS = (
    Pass("float32 entropy, odd rows", 4, 4, 261, 65, ENTROPY, 16, 3),
    Pass("bfloat16 entropy, odd rows", 2, 8, 421, 46, ENTROPY, 12, 3),
    Pass("float32 six maps and both calibrations", 4, 4, 255, 134 + _COUNTING, SIX + 8, 12, 3),
    Pass("float32 entropy, 14 classes", 4, 2, 287, 300, ENTROPY, 12, 0, 14),
    Pass("bfloat16 entropy, 14 classes", 2, 2, 332, 300, ENTROPY, 12, 0, 14),
    Pass("float32 entropy, 104 classes", 4, 1, 559, 1400, ENTROPY, 8, 0, 104, 2),
    Pass("bfloat16 entropy, 104 classes", 2, 1, 605, 1400, ENTROPY, 8, 0, 104, 2),
)
"""Others that docs/gpu.md names targets or shares for."""


def table() -> list[str]:
    """Give the lines of the table of passes in docs/gpu.md."""
    lines = [
        "| C = 4 | M | slots per voxel | KB on their way | H100 | measured | H200 | measured |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kernel in PASSES:
        for members in (5, 50):
            shares = " |  | ".join(f"{kernel.share(members, d):.2f}" for d in (H100, H200))
            lines.append(
                f"| {kernel.name} | {members} | {kernel.slots(members):.0f} "
                f"| {kernel.in_flight >> 10} | {shares} |  |"
            )
    return lines


@dataclass(frozen=True)
class Target:
    """What the kernels are to reach on a device, and the pass that predicts it, if one does."""

    what: str
    wanted: str
    kernel: Pass | None = None
    beside: Pass | None = None
    """The share is that of this pass's share."""
    members: int = 5

    def predicted(self, device: Device) -> str:
        """Give the prediction for a device, or say that there is none."""
        if self.kernel is None:
            return "unknown"
        share = self.kernel.share(self.members, device)
        return f"{share / (self.beside.share(self.members, device) if self.beside else 1):.2f}"


def named(name: str) -> Pass:
    """Give the pass of that name."""
    (kernel,) = (kernel for kernel in (*PASSES, *OTHERS) if kernel.name == name)
    return kernel


def targets() -> list[Target]:
    """Give what is to be reached, in the order of the table in docs/gpu.md."""
    shares = [
        Target("float32 entropy", "0.90 of a clone, H200 0.85", named("float32 entropy")),
        Target("float32 all maps", "0.90 of a clone, H200 0.85", named("float32 all maps")),
        Target("bfloat16 entropy", "0.80 of a clone", named("bfloat16 entropy")),
        Target("bfloat16 all maps", "0.75 of a clone", named("bfloat16 all maps")),
        *(
            Target(
                f"{dtype} entropy, odd rows",
                "0.85 of even ones",
                named(f"{dtype} entropy, odd rows"),
                named(f"{dtype} entropy"),
            )
            for dtype in ("float32", "bfloat16")
        ),
        Target(
            "six maps and both calibrations, 95 % background",
            "0.75 of a clone",
            named("float32 six maps and both calibrations"),
        ),
        Target("the same, diffuse", "0.50 of a clone"),
        *(
            Target(
                f"{dtype} entropy, C = {classes}",
                "0.70 of a clone" if classes == 104 else "none",
                named(f"{dtype} entropy, {classes} classes"),
            )
            for classes in (14, 104)
            for dtype in ("float32", "bfloat16")
        ),
    ]
    return shares + [Target(what, wanted) for what, wanted in UNKNOWN.items()]


UNKNOWN = {
    "entropy beside PyTorch": "3 x eager",
    "all maps beside PyTorch": "8 x eager, 1.8 x torch.compile",
    "maps and calibrations beside the plain pipeline": "30 x",
    "host time of a call: one map, six maps, M = 50": "25, 45, 80 us",
    "CUDA beside Triton": "no slower at any point",
    "Dice + CE beside MONAI": "5 x",
    "training, 2-D 192 x 160, batch 128, bfloat16": "1,800 images/s, H100 0.9 of it",
    "training, 3-D 128^3, batch 4": "35 volumes/s, H100 0.9 of it",
    "data path of the training": "within 10 %",
    "ten members vectorised beside the best sequential": "1.5 x",
}
"""Targets that need times of other programs, of the host or of whole networks."""


def target_table() -> list[str]:
    """Give the lines of the table of targets in docs/gpu.md."""
    lines = [
        "| M = 5, C = 4 | target | predicted, H100 | predicted, H200 | measured |",
        "|---|---|---|---|---|",
    ]
    for target in targets():
        shares = " | ".join(target.predicted(device) for device in (H100, H200))
        lines.append(f"| {target.what} | {target.wanted} | {shares} |  |")
    return lines


if __name__ == "__main__":
    print("\n".join([*table(), "", *target_table()]))
