"""The resources that the compiled CUDA kernels need, read from the module per architecture."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import cuda_counts
import pytest

CMAKE = Path(__file__).parent.parent / "cmake" / "cuda.cmake"
SHARED_BYTES = 227 << 10
"""Of a multiprocessor of compute capability 9.0."""
ARCHITECTURES = {"sm_75", "sm_80", "sm_90", "sm_100", "sm_120"}
ELEMENTS = {"f": "float32", "6__half": "float16", "13__nv_bfloat16": "bfloat16", "d": "float64"}
MANGLED = re.compile(
    r"(ensemble|plain)_passI(f|d|6__half|13__nv_bfloat16)Li(\d+)ELi(\d+)ELb([01])EEEv.*?\n"
    r"\s*REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)"
)

ANY = re.compile(r"Function (\S+):\s*\n\s*REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)")
"""What the disassembler says of a kernel, whichever it is."""
OF_DOUBLES = re.compile(r"[a-z]Id[LEN]")
"""In the name of a kernel whose first template argument is double."""
SUM_NAMES = ("sum_classes", "sum_bins", "write_gradient", "sum_temperature", "add_segments")
SUMS = re.compile(rf"({'|'.join(SUM_NAMES)})I(f|d|6__half|13__nv_bfloat16)")
SUM_REGISTERS = 128
"""Of a thread in the passes of losses and temperatures, which leaves room for four blocks."""


@dataclass(frozen=True)
class Kernel:
    architecture: str
    plain: bool
    """One of csrc/cuda/plain_pass.cuh."""
    dtype: str
    tier: int
    """Classes held in registers; 0: class by class."""
    voxels: int
    """Voxels that a thread reads at once."""
    variant: bool
    """Of plain kernels, that which writes all maps and counts; of others, several lanes a voxel."""
    registers: int
    stack: int
    """Bytes of the stack frame, where spilled registers go."""
    local: int


def cuobjdump() -> Path | None:
    """Find the disassembler that Triton brings; a toolkit of compilers alone has none."""
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:
        return None
    tool = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return tool if tool.exists() else None


@pytest.fixture(scope="module")
def report() -> str:
    """What the disassembler says of every kernel of the built module."""
    module = importlib.util.find_spec("fastcal._cuda")
    if module is None or module.origin is None:
        pytest.skip("this installation was built without CUDA")
    tool = cuobjdump()
    if tool is None:
        pytest.skip("no cuobjdump: triton is not installed")
    return subprocess.run(
        [str(tool), "--dump-resource-usage", module.origin],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.fixture(scope="module")
def kernels(report: str) -> list[Kernel]:
    found = []
    for part in re.split(r"(?m)^arch = ", report)[1:]:
        architecture = part.split(None, 1)[0]
        for match in MANGLED.finditer(part):
            name, element, tier, voxels, variant, registers, stack, local = match.groups()
            numbers = int(registers), int(stack), int(local)
            found.append(
                Kernel(
                    architecture,
                    name == "plain",
                    ELEMENTS[element],
                    int(tier),
                    int(voxels),
                    variant == "1",
                    *numbers,
                )
            )
    return found


def test_every_architecture_holds_every_kernel(kernels):
    by_architecture = {
        name: {
            (k.plain, k.dtype, k.tier, k.voxels, k.variant)
            for k in kernels
            if k.architecture == name
        }
        for name in {k.architecture for k in kernels}
    }
    assert by_architecture.keys() <= ARCHITECTURES
    assert len({frozenset(held) for held in by_architecture.values()}) == 1
    for dtype in ("float32", "float16", "bfloat16"):
        tiers = {k.tier for k in kernels if k.dtype == dtype and not k.plain}
        assert {0, 12, 16, 32, 52} == tiers
        classes = {(k.tier, k.variant) for k in kernels if k.dtype == dtype and k.plain}
        assert {(n, full) for n in range(2, 9) for full in (False, True)} == classes


def test_wheels_hold_every_architecture():
    """A build by make is for one alone, and takes minutes less."""
    default = re.findall(r"set\(CMAKE_CUDA_ARCHITECTURES ([^)]*)\)", CMAKE.read_text())
    newest = {f"sm_{number}" for number in re.findall(r"\d+", default[-1])}
    assert newest == ARCHITECTURES


def test_no_kernel_spills_or_keeps_a_stack(report):
    """Whatever its name. Kernels for float64 are left out, because their logarithms are long."""
    found = ANY.findall(report)
    assert len(found) > 50
    offences = [
        (name, f"{stack} bytes of stack, {local} local")
        for name, _, stack, local in found
        if OF_DOUBLES.search(name) is None and (int(stack) > 0 or int(local) > 0)
    ]
    assert offences == []


def warps_that_fit(kernel: Kernel) -> int:
    """How many warps of a kernel the registers of a multiprocessor hold, in blocks of four."""
    per_warp = -(-kernel.registers // 8) * 8 * 32  # registers are given out in eights
    return 65536 // (4 * per_warp) * 4


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize(
    ("dtype", "tier", "blocks"), [("float32", 16, 3), ("bfloat16", 16, 3), ("bfloat16", 52, 2)]
)
def test_registers_leave_room_for_blocks_enough_to_hide_latency(
    kernels, architecture, dtype, tier, blocks
):
    if architecture not in {k.architecture for k in kernels}:
        pytest.skip(f"this module was built without {architecture}: make build ARCHITECTURES=...")
    (kernel,) = (
        k
        for k in kernels
        if (k.architecture, k.plain, k.dtype, k.tier, k.variant)
        == (architecture, False, dtype, tier, False)
    )
    assert warps_that_fit(kernel) >= 4 * blocks


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_plain_kernels_have_64_kb_on_their_way(kernels, dtype):
    """For odd rows too, whose stages are larger: by registers and by shared memory."""
    element_bytes = 4 if dtype == "float32" else 2
    if "sm_90" not in {k.architecture for k in kernels}:
        pytest.skip("this module was built without sm_90: make build ARCHITECTURES=90")
    for kernel in kernels:
        if (kernel.architecture, kernel.plain, kernel.dtype) != ("sm_90", True, dtype):
            continue
        flight = cuda_counts.in_flight(element_bytes, kernel.tier)
        warps = min(warps_that_fit(kernel), SHARED_BYTES // flight.shared_of_warp)
        assert warps * flight.bytes_of_warp >= 64 << 10, kernel


def test_sums_of_losses_temperatures_and_segments_leave_room_for_blocks(report):
    """Those of float64 are left out, as above."""
    kinds = set()
    for name, registers, _, _ in ANY.findall(report):
        match = SUMS.search(name)
        if match is not None:
            kind, element = match.groups()
            kinds.add((kind, ELEMENTS[element]))
            if element != "d":
                assert int(registers) <= SUM_REGISTERS, name
    assert kinds == {(name, element) for name in SUM_NAMES for element in ELEMENTS.values()}
