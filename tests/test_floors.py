"""The floors of the architecture, as data, and a reader of imports and includes that holds them.

An arrow may point down, or to the left on its own floor; docs/architecture.md draws the floors.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from package_sources import Module, circles, imports_between, modules

ROOT = Path(__file__).resolve().parent.parent

# Lowest floor first; within a floor, left to right. A room is a module or a package of fastcal;
# "fastcal" is the package's own __init__, the public face of the heart.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("_cpu", "_cuda"),
    ("core",),
    ("triton_kernels",),
    ("backends",),
    ("ops",),
    ("calibration",),
    ("regions", "segments", "results", "ensemble", "accumulator", "functional", "fastcal"),
    ("data", "models", "losses", "torchmetrics", "monai"),
    ("cases", "scores", "report"),
    ("convert", "evaluate", "predict", "recalibrate", "quality", "ood", "train", "viewer"),
    ("info", "study", "bench"),
    ("cli",),
    ("__main__",),
)
POSITION = {
    room: (floor, place) for floor, rooms in enumerate(FLOORS) for place, room in enumerate(rooms)
}
# What users do: none of these stands on another, not on the one to its left either.
SIBLINGS = frozenset(
    {"convert", "evaluate", "predict", "recalibrate", "quality", "ood", "train", "viewer"}
)

# Folder of csrc -> folders whose headers it may include, and a pattern for the <...> headers.
STANDARD = r"[a-z_0-9]+"
POSIX = (
    r"dlfcn\.h|pthread\.h|unistd\.h|sched\.h|cpuid\.h|immintrin\.h|arm_neon\.h|"
    r"sys/auxv\.h|sys/mman\.h|asm/hwcap\.h"
)
CUDA = r"cuda\w*\.h|cub/.*|cuda/.*|mma\.h|cooperative_groups.*"
PYBIND11 = r"pybind11/.*"
INCLUDES: dict[str, tuple[frozenset[str], str]] = {
    "core": (frozenset({"core"}), STANDARD),
    "cpu": (frozenset({"core", "cpu"}), f"{STANDARD}|{POSIX}"),
    "cuda": (frozenset({"core", "cuda"}), f"{STANDARD}|{CUDA}"),
    "python": (frozenset({"core", "cpu", "cuda", "python"}), f"{STANDARD}|{PYBIND11}"),
}
# A std:: header compiled for AVX-512 may become everybody's copy of its inline functions: SIGILL.
ISA_FILE = re.compile(r"_(baseline|avx2|avx512|neon)\.cpp$|\.inl$")
ISA_HEADERS = r"cstdint|cstring|immintrin\.h|arm_neon\.h"
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)

# Doors between floors: fastcal.load_ensemble and fastcal.view, opened when they are asked for.
DOORS = {("fastcal", "models"), ("fastcal", "viewer")}

FORBIDDEN_AT_IMPORT = (
    *("triton", "matplotlib", "scipy", "nibabel", "monai"),
    *("typer", "rich", "pydantic", "yaml", "jinja2", "sklearn", "crepes", "pandas"),
)


# --- Python ---------------------------------------------------------------------------------------


def imported_rooms(module: Module) -> set[str]:
    rooms = set()
    for name in module.imported():
        top, _, rest = name.partition(".")
        if top == "fastcal":
            room = rest.partition(".")[0]
            # "from fastcal import ensemble_entropy" asks the package's own __init__.
            rooms.add(room if room in POSITION else "fastcal")
    return rooms - {module.room}


def arrow_offences(package: Path) -> list[str]:
    offences = []
    for module in modules(package):
        importer, where = module.room, module.where
        if importer not in POSITION:
            offences.append(f"{where}: the room {importer!r} stands on no floor")
            continue
        floor = POSITION[importer][0]
        for room in sorted(imported_rooms(module)):
            if (importer, room) in DOORS:
                continue
            if POSITION[room][0] > floor:
                offences.append(f"{where}: {importer} imports {room}, which points up")
            elif POSITION[room] > POSITION[importer]:
                offences.append(f"{where}: {importer} imports {room}, which points to the right")
            elif POSITION[room][0] == floor and room in SIBLINGS:
                offences.append(f"{where}: {importer} imports {room}, which is its sibling")
    return offences


def listing_offences(package: Path) -> list[str]:
    """Rooms that are listed and do not exist, and those that exist and are not listed."""
    there = {
        entry.stem
        for entry in package.iterdir()
        if entry.suffix in {".py", ".pyi"} or (entry.is_dir() and any(entry.glob("*.py")))
    } - {"__init__"}
    listed = POSITION.keys() - {"fastcal"}
    return [
        *(f"{room} is listed and does not exist" for room in sorted(listed - there)),
        *(f"{room} exists and is not listed" for room in sorted(there - listed)),
    ]


def circle_offences(package: Path) -> list[str]:
    """Files that import one another, on whatever way round, with imports for type checkers."""
    found = modules(package)
    rooms = {module.name: module.room for module in found}
    arrows = {
        name: {target for target in targets if (rooms[name], rooms[target]) not in DOORS}
        for name, targets in imports_between(found).items()
    }
    return [" <-> ".join(group) for group in circles(arrows)]


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


def test_every_room_is_listed_and_every_room_listed_exists() -> None:
    assert listing_offences(ROOT / "fastcal") == []


def test_the_page_on_architecture_shows_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = set(re.findall(r"\w+", page.partition("```")[2].partition("```")[0]))
    python_only = {"_cpu", "_cuda", "fastcal", "__main__"}
    assert POSITION.keys() - python_only <= drawn


def test_every_python_import_points_down_or_left() -> None:
    assert arrow_offences(ROOT / "fastcal") == []


def test_no_files_import_one_another() -> None:
    assert circle_offences(ROOT / "fastcal") == []


@pytest.mark.parametrize(
    ("file", "line", "direction"),
    [
        ("ops.py", "from fastcal.cli import app", "up"),
        ("ensemble.py", "from fastcal.functional import brier_score", "to the right"),
        ("data/nifti.py", "import fastcal.study.demo", "up"),
        ("data/nifti.py", "from ..train import loop", "up"),
        ("data/nifti.py", "def f():\n    from fastcal import predict", "up"),
        ("core/problem.py", "from fastcal import ensemble_entropy", "up"),
        ("predict/run.py", "import importlib\nimportlib.import_module('fastcal.train')", "right"),
        ("train/loop.py", "from fastcal.predict import predict_cases", "sibling"),
        ("garage.py", "import torch", "no floor"),
    ],
)
def test_planted_upward_import_is_caught(
    tmp_path: Path, file: str, line: str, direction: str
) -> None:
    package = write(tmp_path, {f"fastcal/{file}": line}) / "fastcal"
    (offence,) = arrow_offences(package)
    assert file in offence
    assert direction in offence


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("ensemble.py", "from fastcal.calibration import CalibrationStatistics"),
        ("train/loop.py", "from fastcal.models import build_network"),
        ("monai/inferer.py", "from fastcal.models.window import sliding_window"),
        ("predict/run.py", "from fastcal import EnsembleAccumulator"),
        (
            "data/nifti.py",
            "from .preprocess import crop\nfrom fastcal.core.errors import DataError",
        ),
    ],
)
def test_downward_and_leftward_imports_are_allowed(tmp_path: Path, file: str, line: str) -> None:
    assert arrow_offences(write(tmp_path, {f"fastcal/{file}": line}) / "fastcal") == []


def test_planted_rooms_of_the_list_and_of_the_package_are_compared(tmp_path: Path) -> None:
    rooms = {f"fastcal/{room}.py": "" for room in POSITION if room not in ("fastcal", "ops")}
    extra = {"fastcal/garage/car.py": "", "fastcal/templates/page.html": ""}
    package = write(tmp_path, rooms | extra) / "fastcal"
    assert listing_offences(package) == [
        "ops is listed and does not exist",
        "garage exists and is not listed",
    ]


CHECKED = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("from fastcal.train.two import b", "from fastcal.train.one import a"),
        ("from fastcal.train.two import b", f"{CHECKED}from fastcal.train.one import a"),
        ("from .two import b", "def f():\n    from fastcal.train import one"),
        ("from fastcal.train.three import c", "from fastcal.train import one"),
        ("from fastcal.train import b", ""),
    ],
)
def test_planted_circle_between_files_is_caught(tmp_path: Path, one: str, two: str) -> None:
    files = {
        "fastcal/train/__init__.py": "from fastcal.train.one import a",
        "fastcal/train/one.py": one,
        "fastcal/train/two.py": two,
        "fastcal/train/three.py": "from fastcal.train import two",
    }
    (circle,) = circle_offences(write(tmp_path, files) / "fastcal")
    assert "fastcal.train.one" in circle


def test_the_door_of_load_ensemble_is_no_circle(tmp_path: Path) -> None:
    files = {
        "fastcal/__init__.py": f"{CHECKED}from fastcal.models.ensemble import load_ensemble",
        "fastcal/models/ensemble.py": "from fastcal import EnsembleAccumulator",
    }
    assert circle_offences(write(tmp_path, files) / "fastcal") == []


# --- C++ ------------------------------------------------------------------------------------------


def sources(csrc: Path) -> list[Path]:
    kinds = {".h", ".cpp", ".inl", ".cu", ".cuh"}
    return sorted(file for file in csrc.rglob("*") if file.suffix in kinds)


def includes(file: Path, csrc: Path) -> tuple[list[Path], list[str]]:
    """The headers of ours a file includes, and the names it includes in angle brackets.

    A quoted header that is not found is returned as it is written, below csrc.
    """
    own, foreign = [], []
    for quoted, angled in INCLUDE.findall(file.read_text(encoding="utf-8")):
        if angled:
            foreign.append(angled)
        else:
            beside = file.parent / quoted
            own.append(beside if beside.exists() else csrc / quoted)
    return own, foreign


def include_offences(csrc: Path) -> list[str]:
    offences = []
    for file in sources(csrc):
        where = file.relative_to(csrc)
        folders, pattern = INCLUDES[where.parts[0]]
        own, foreign = includes(file, csrc)
        for header in own:
            name = header.resolve().relative_to(csrc.resolve())
            if not header.exists():
                offences.append(f"{where}: {name} is not a header of ours")
            elif name.parts[0] not in folders:
                offences.append(f"{where}: includes {name}, which is not below it")
        offences += [
            f"{where}: <{name}> is not for csrc/{where.parts[0]}"
            for name in foreign
            if not re.fullmatch(pattern, name)
        ]
    return offences


def isa_offences(csrc: Path) -> list[str]:
    """Headers that the files compiled once per instruction set reach, directly or not."""
    offences, seen = [], set()
    pending = [file for file in sources(csrc) if ISA_FILE.search(file.name)]
    while pending:
        file = pending.pop()
        if file.resolve() in seen or not file.exists():
            continue
        seen.add(file.resolve())
        own, foreign = includes(file, csrc)
        pending += own
        offences += [
            f"{file.relative_to(csrc)}: <{name}> in code compiled for one instruction set"
            for name in foreign
            if not re.fullmatch(ISA_HEADERS, name)
        ]
    return offences


def include_circles(csrc: Path) -> list[str]:
    arrows = {
        str(file.relative_to(csrc)): {
            str(header.resolve().relative_to(csrc.resolve())) for header in includes(file, csrc)[0]
        }
        for file in sources(csrc)
    }
    return [" <-> ".join(group) for group in circles(arrows)]


def test_every_cpp_include_points_down() -> None:
    assert len(sources(ROOT / "csrc")) > 0
    assert include_offences(ROOT / "csrc") == []


def test_no_headers_include_one_another() -> None:
    assert include_circles(ROOT / "csrc") == []


def test_planted_circle_between_headers_is_caught(tmp_path: Path) -> None:
    csrc = write(
        tmp_path,
        {"core/bins.h": '#include "core/math.h"\n', "core/math.h": '#include "bins.h"\n'},
    )
    assert include_circles(csrc) == ["core/bins.h <-> core/math.h"]


def test_files_compiled_per_instruction_set_reach_no_standard_inline_code() -> None:
    assert any(ISA_FILE.search(file.name) for file in sources(ROOT / "csrc"))
    assert isa_offences(ROOT / "csrc") == []


@pytest.mark.parametrize(
    ("file", "line", "offence"),
    [
        ("core/math.h", '#include "cpu/isa.h"', "not below"),
        ("core/math.h", '#include "../cpu/isa.h"', "not below"),
        ("core/math.h", "#include <torch/torch.h>", "not for csrc/core"),
        ("core/math.h", "#include <cuda_runtime.h>", "not for csrc/core"),
        ("cpu/ensemble.h", "  #  include <pybind11/pybind11.h>", "not for csrc/cpu"),
        ("cuda/ensemble.h", '#include "cpu/isa.h"', "not below"),
        ("python/cpu_module.cpp", "#include <ATen/ATen.h>", "not for csrc/python"),
    ],
)
def test_planted_upward_include_is_caught(
    tmp_path: Path, file: str, line: str, offence: str
) -> None:
    csrc = write(tmp_path, {"cpu/isa.h": "#include <string>\n", file: line + "\n"})
    (caught,) = include_offences(csrc)
    assert caught.startswith(file)
    assert offence in caught


def test_planted_standard_header_behind_an_instruction_set_file_is_caught(tmp_path: Path) -> None:
    csrc = write(
        tmp_path,
        {
            "cpu/ensemble_avx512.cpp": '#include "ensemble_kernel.inl"\n',
            "cpu/ensemble_kernel.inl": '#include <cstdint>\n#include "core/math.h"\n',
            "core/math.h": "#include <algorithm>\n",
        },
    )
    assert isa_offences(csrc) == [
        "core/math.h: <algorithm> in code compiled for one instruction set"
    ]


# --- what an import loads -------------------------------------------------------------------------


def test_importing_fastcal_loads_no_optional_package_and_touches_no_gpu() -> None:
    program = (
        "import sys, fastcal, torch\n"
        f"print([name for name in {FORBIDDEN_AT_IMPORT!r} if name in sys.modules],"
        " torch.cuda.is_initialized())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[] False"
