"""Every Triton kernel compiles with the oldest Triton that the oldest allowed torch brings."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OLDEST = {"2.10": "3.6"}
"""The oldest torch of pyproject.toml, and the Triton that it brings."""
# Together every kernel once; `EVERYWHERE` of test_triton_aot and the bins.
KERNELS = ("one shot", "streaming", "temperature", "losses", "segments", "bins")
EXPECTED = {
    *("statistics_kernel", "accumulate_kernel", "finalize_kernel", "fold_kernel"),
    *("table_kernel", "temperature_kernel", "segment_kernel"),
    *("class_sums_kernel", "class_gradient_kernel"),
    *("bin_gaps_kernel", "bin_gradient_kernel"),
}


def oldest() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (torch,) = (it for it in project["dependencies"] if it.startswith("torch>="))
    least = re.match(r"torch>=([\d.]+)", torch)
    assert least is not None
    assert least[1] in OLDEST, f"OLDEST must name the Triton of torch {least[1]}"
    return OLDEST[least[1]]


@pytest.fixture(scope="module")
def folder() -> Path:
    """The oldest Triton in a folder of its own, fetched once for all later runs."""
    pytest.importorskip("triton", reason="triton is not installed")
    version = oldest()
    made = ROOT / "build" / f"triton-{version}"
    if made.is_dir():
        return made
    partial = made.with_name(f"{made.name}.{os.getpid()}")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    command += ["--disable-pip-version-check", "--retries", "1", "--timeout", "20"]
    command += ["--only-binary", ":all:", "--target", str(partial), f"triton=={version}.*"]
    try:
        fetched = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=300
        ).stderr
    except subprocess.TimeoutExpired:
        fetched = "the registry took longer than 300 s"
    if not (partial / "triton").is_dir():
        shutil.rmtree(partial, ignore_errors=True)
        lines = fetched.strip().splitlines() or ["pip gave no reason"]
        pytest.skip(f"triton {version} could not be fetched: {lines[-1]}")
    try:
        partial.rename(made)
    except OSError:  # another process was faster
        shutil.rmtree(partial, ignore_errors=True)
    return made


def launches(folder: Path, *names: str) -> dict[str, list[str] | str]:
    path = [str(folder), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "tests" / "triton_oldest.py"), *names],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    found = json.loads(result.stdout)
    assert found["triton"].startswith(oldest() + ".")
    launched: dict[str, list[str] | str] = found["launches"]
    return launched


def test_the_kernels_are_all_that_the_sources_hold() -> None:
    found = set()
    for file in (ROOT / "fastcal" / "triton_kernels").glob("*.py"):
        found |= set(re.findall(r"^def (\w+_kernel)\(", file.read_text(), re.MULTILINE))
    assert found == EXPECTED


def test_every_kernel_compiles_with_the_oldest_triton(folder: Path) -> None:
    found = launches(folder, *KERNELS)
    failed = {name: error for name, error in found.items() if isinstance(error, str)}
    assert failed == {}
    assert {kernel for kernels in found.values() for kernel in kernels} == EXPECTED


@pytest.mark.slow
def test_every_variant_compiles_with_the_oldest_triton(folder: Path) -> None:
    assert [it for it in launches(folder).items() if isinstance(it[1], str)] == []
