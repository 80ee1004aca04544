"""Counts what a warp issues in a plain pass, in the machine code for compute capability 9.0.

A pass has options that are settled before a warp begins: which maps are wanted, how members lie. A
probe is the kernel compiled with these settled, so that its machine code holds no branch that a
warp never takes. What is left is counted whole, which is an upper bound of what is issued.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fastcal.core.problem import MAPS

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
CLASSES = 4
ELEMENTS = {"float32": ("float", 4), "bfloat16": ("__nv_bfloat16", 8)}
"""Name of a type in C++, and voxels of a thread."""

# The fields of PassArguments and its parts that a probe settles, as they are declared.
FIELDS = {
    "std::int32_t axes = 0;": "1",
    "bool wanted = false;": "false",
    "bool vector = false;": "ALIGNED",
    "bool keeps_entropy = false;": "(MAPS & 48) != 0",
    "bool keeps_square = false;": "(MAPS & 64) != 0",
    "bool keeps_votes = false;": "(MAPS & 128) != 0",
    "bool loads_state = false;": "false",
    "bool stores_state = false;": "false",
    "bool finishes = false;": "true",
    "bool normalise = false;": "false",
    "bool copies_ahead = false;": "true",
    "bool runs = false;": "true",
    "bool interleaved = false;": "false",
    "std::uint32_t wide_maps = 0;": "ALIGNED ? 0xffU : 0U",
    "std::uint32_t maps_like_member = 0;": "0",
    "bool any_staged = false;": "!ALIGNED",
    "std::int32_t n_members = 0;": "5",
    "const MemberEntry *member_table = nullptr;": "nullptr",
}
WANTS = "return a.maps.views[static_cast<int>(map)].data != nullptr;"
PROBE = """
#include "cuda/plain_pass.cuh"
namespace fastcal::cuda {
template __global__ void plain_pass<ELEMENT, 4, VOXELS, (MAPS & 0xf0) != 0>(
    const __grid_constant__ PassArguments);
}
"""
INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,5})\*/\s+(.*?);", re.MULTILINE)


@dataclass(frozen=True)
class Counts:
    """Instructions of a warp."""

    member: int
    """For one member of a tile, together with the copies for a later one."""
    rest: float
    """For all else of a tile, by the voxels of a thread."""
    loads: frozenset[str]
    """Kinds of instructions that read members."""
    stores: frozenset[str]
    registers: int
    stack: int


def nvcc() -> str | None:
    return shutil.which("nvcc")


def tool(name: str) -> Path | None:
    """Find a disassembler that Triton brings; a toolkit of compilers alone has none."""

    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:
        return None
    found = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / name
    return found if found.exists() else None


def _settle(folder: Path) -> None:
    """Copy the kernels with the fields as constants."""
    shutil.copytree(CSRC / "cuda", folder / "cuda")
    arguments = folder / "cuda" / "arguments.h"
    text = arguments.read_text()
    for field, value in FIELDS.items():
        assert text.count(field) == 1, field
        text = text.replace(field, f"static constexpr {field.partition('=')[0]}= {value};")
    arguments.write_text(text)
    finish = folder / "cuda" / "finish.cuh"
    text = finish.read_text()
    assert text.count(WANTS) == 1
    finish.write_text(text.replace(WANTS, "return (MAPS >> static_cast<int>(map) & 1) != 0;"))


def count(folder: Path, dtype: str, maps: tuple[str, ...], *, aligned: bool = True) -> Counts:
    """Compile a probe in an empty folder and count."""
    element, voxels = ELEMENTS[dtype]
    bits = sum(1 << MAPS.index(name) for name in maps)
    _settle(folder)
    source, binary = folder / "probe.cu", folder / "probe.cubin"
    source.write_text(PROBE)
    compiler, disassembler = nvcc(), tool("cuobjdump")
    assert compiler is not None
    assert disassembler is not None
    flags = ["-std=c++17", "-O3", "-arch=sm_90", "--fmad=false", "-cubin"]
    flags += [f"-DELEMENT={element}", f"-DVOXELS={voxels}", f"-DMAPS={bits}"]
    flags += [f"-DALIGNED={str(aligned).lower()}", f"-I{folder}", f"-I{CSRC}"]
    _run(compiler, *flags, "-o", str(binary), str(source))
    resources = _run(str(disassembler), "--dump-resource-usage", str(binary))
    found = re.search(r"REG:(\d+) STACK:(\d+)", resources)
    assert found is not None
    registers, stack = map(int, found.groups())
    code = _run(str(disassembler), "-sass", str(binary))
    member, rest, loop = _loops(code)
    return Counts(
        member,
        rest / voxels,
        frozenset(name for name in loop if name.startswith(("LDG", "LDS."))),
        frozenset(re.findall(r"\bSTG[.\w]*", code)),
        registers,
        stack,
    )


def _loops(code: str) -> tuple[int, int, set[str]]:
    """Count the loop over the members, and the rest of the loop over the tiles around it."""
    listed = [(int(at, 16), text) for at, text in INSTRUCTION.findall(code)]
    issued = [(at, text) for at, text in listed if not text.startswith("NOP")]
    exponentials = [at for at, text in issued if "MUFU.EX2" in text]
    first, last = min(exponentials), max(exponentials)
    loops = []
    for at, text in issued:
        jump = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", text)
        if jump is not None and int(jump.group(1), 16) <= first and at >= last:
            loops.append((int(jump.group(1), 16), at))
    loops.sort(key=lambda loop: loop[1] - loop[0])
    inner, outer = loops[0], loops[1]
    path = _steady(issued, *inner)
    around = sum(outer[0] <= at <= outer[1] for at, _ in issued) - len(path)
    names = {name for text in path for name in re.findall(r"\b(LD[A-Z]*[.\w]*)", text)}
    return len(path), around, names


def _steady(issued: list[tuple[int, str]], first: int, last: int) -> list[str]:
    """Follow the loop from its head to the jump back.

    What reads members, copies them or computes exponentials is passed; what else can be jumped
    over, such as turning to the next tile, is not issued for each member.
    """
    must = [at for at, text in issued if re.search(r"MUFU|LDGSTS|LDS\.|LDG\.", text)]
    path, at = [], first
    by_place = dict(issued)
    places = sorted(by_place)
    while True:
        text = by_place[at]
        path.append(text)
        if at == last:
            return path
        following = places[places.index(at) + 1]
        jump = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", text)
        if jump is not None:
            to = int(jump.group(1), 16)
            if at < to <= last and not any(at < needed < to for needed in must):
                following = to
        at = following


def member_loops(code: str, classes: int) -> list[dict[int, int]]:
    """The innermost loops over members in a kernel whose threads hold so many classes.

    Returns:
        Per loop, what a warp issues at least for a member, by how many loads it passes. Options
        of a pass that are not wanted are jumped over.
    """
    issued = [
        (int(at, 16), text) for at, text in INSTRUCTION.findall(code) if not text.startswith("NOP")
    ]
    loops = []
    for at, text in issued:
        jump = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", text)
        if jump is not None and int(jump.group(1), 16) <= at:
            body = [it for it in issued if int(jump.group(1), 16) <= it[0] <= at]
            if sum("MUFU.EX2" in text for _, text in body) >= classes:
                loops.append(body)
    loops.sort(key=len)
    found: list[list[tuple[int, str]]] = []
    for body in loops:
        if not any(body[0][0] <= it[0][0] and it[-1][0] <= body[-1][0] for it in found):
            found.append(body)
    return [_fewest_slots(body) for body in found]


def _fewest_slots(body: list[tuple[int, str]]) -> dict[int, int]:
    """The shortest way from the head of a loop to its jump back, by the loads on it."""
    place = {at: i for i, (at, _) in enumerate(body)}
    ways: list[dict[int, int]] = [{} for _ in body]
    ways[0][0] = 0
    for i, (_, text) in enumerate(body[:-1]):
        jump = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", text)
        following = [] if jump is None else [place.get(int(jump.group(1), 16), -1)]
        if jump is None or text.startswith("@"):
            following.append(i + 1)
        for loads, slots in ways[i].items():
            passed = loads + ("LDG" in text)
            for to in following:
                if to > i:
                    ways[to][passed] = min(ways[to].get(passed, slots + 1), slots + 1)
    return {loads: slots + 1 for loads, slots in ways[-1].items()}


def disassembled(module: str, kernel: str) -> str:
    """The machine code of a kernel of a built module."""
    disassembler = tool("cuobjdump")
    assert disassembler is not None
    return _run(str(disassembler), "-sass", "-fun", kernel, module)


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@dataclass(frozen=True)
class InFlight:
    """What a warp of a plain pass has on its way, by the numbers of policy.h."""

    bytes_of_warp: int
    shared_of_warp: int
    """Bytes of its ring, which have room for rows that do not begin at a multiple of 16 bytes."""


def in_flight(element_bytes: int, classes: int) -> InFlight:
    """Read the numbers of csrc/cuda/policy.h."""
    stages, stage, row = _policy()[element_bytes, classes]
    return InFlight(stages * classes * row, stages * stage)


@lru_cache(maxsize=1)
def _policy() -> dict[tuple[int, int], tuple[int, int, int]]:
    program = r"""
#include <cstdio>
#include "cuda/policy.h"
using namespace fastcal::cuda;
int main() {
  for (int bytes = 2; bytes <= 4; bytes += 2) {
    for (int classes = 2; classes <= kMaxPlainClasses; ++classes) {
      const int voxels = plain_voxels(bytes, classes);
      std::printf("%d %d %d %d %d\n", bytes, classes, ring_stages(bytes, classes, voxels),
                  stage_bytes(bytes, classes, voxels), row_bytes_of(bytes, voxels));
    }
  }
}
"""
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder) / "policy.cpp", Path(folder) / "policy"
        source.write_text(program)
        compiler = os.environ.get("CXX", "g++")
        _run(compiler, "-std=c++17", f"-I{CSRC}", str(source), "-o", str(binary))
        lines = _run(str(binary)).splitlines()
    table = {}
    for line in lines:
        element, classes, *numbers = map(int, line.split())
        table[element, classes] = (numbers[0], numbers[1], numbers[2])
    return table
