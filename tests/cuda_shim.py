"""Builds the CUDA kernels for the CPU (tests/cpp/cuda_shim) and offers them as a backend."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pybind11

from fastcal.backends.gpu_passes import GpuPasses
from fastcal.backends.gpu_sums import GpuSums

ROOT = Path(__file__).resolve().parent.parent
SHIM = ROOT / "tests" / "cpp" / "cuda_shim"
CSRC = ROOT / "csrc"
FLAGS = (
    *("-std=c++17", "-O1", "-g1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
)
# Warnings are left to the plain build: instrumented code causes false ones in foreign headers.
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wno-error")


def sources() -> list[Path]:
    return [
        *sorted((CSRC / "cuda").glob("*.cu")),
        *sorted((CSRC / "cuda").glob("*.cpp")),
        SHIM / "fibres.cpp",
        CSRC / "python" / "cuda_module.cpp",
    ]


def _digest(flags: tuple[str, ...]) -> str:
    text = hashlib.sha256(repr((flags, sys.version)).encode())
    folders = (CSRC / "cuda", CSRC / "core", CSRC / "python", SHIM)
    for file in sorted(file for folder in folders for file in folder.iterdir()):
        text.update(file.read_bytes())
    return text.hexdigest()[:16]


def build(*, sanitized: bool = False) -> Path:
    """Compile the extension module, unless the sources are those of the last time."""
    flags = FLAGS + (SANITIZERS if sanitized else ())
    folder = ROOT / "build" / "cuda_shim" / ("sanitized" if sanitized else "plain")
    library = folder / f"_cuda_shim{sysconfig.get_config_var('EXT_SUFFIX')}"
    stamp = folder / "digest"
    digest = _digest(flags)
    if library.exists() and stamp.exists() and stamp.read_text() == digest:
        return library
    folder.mkdir(parents=True, exist_ok=True)
    includes = (SHIM, CSRC, pybind11.get_include(), sysconfig.get_path("include"))
    compiler = os.environ.get("CXX", "g++")

    def compile_one(source: Path) -> Path:
        made = folder / f"{source.name}.o"
        command = [compiler, *flags, "-DFASTCAL_CUDA_MODULE=_cuda_shim"]
        command += [f"-I{path}" for path in includes]
        run([*command, "-x", "c++", "-c", str(source), "-o", str(made)])
        return made

    with ThreadPoolExecutor(max_workers=2) as pool:
        objects = list(pool.map(compile_one, sources()))
    run([compiler, *flags, "-shared", *map(str, objects), "-o", str(library)])
    stamp.write_text(digest)
    return library


def run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def load(library: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("_cuda_shim", library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def backend(library: Path) -> GpuPasses:
    """Return the passes of ensembles as a backend for tensors on the CPU."""
    return GpuPasses(load(library), lambda _: (0, 0))


def sums(library: Path) -> GpuSums:
    """Return the passes of losses and temperature scaling in the same way."""
    return GpuSums(load(library), lambda _: (0, 0))


def whole(library: Path) -> SimpleNamespace:
    """Return all of them as one backend."""
    found = {}
    for passes in (backend(library), sums(library)):
        names = [name for name in dir(passes) if not name.startswith("_")]
        found |= {name: getattr(passes, name) for name in names}
    return SimpleNamespace(**found)
