"""Build the CPU module with sanitizers of the compiler, and run tests that use it.

``python tests/sanitize.py address,undefined`` or ``python tests/sanitize.py thread``, as
``make sanitize`` does one after the other. What a sanitizer finds ends the run with its report.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

RUNTIMES = {
    "address,undefined": ("libasan.so", "libubsan.so", "libstdc++.so"),
    "thread": ("libtsan.so", "libstdc++.so"),
}
TESTS = {
    "address,undefined": (
        "test_accumulator.py",
        "test_calibration.py",
        "test_ensemble_extremes.py",
        "test_isa.py",
        "test_loss_sums.py",
        "test_numbers.py",
        "test_regions.py",
        "test_saved_integers.py",
        "test_segment_sums.py",
        "test_temperature.py",
    ),
    # Torch and Python are not instrumented, so that only what is ours is looked at.
    "thread": ("test_threads.py",),
}
LEFT_OUT = {
    # Its bits are those of a build that the compiler optimises, with products and sums in one step.
    "address,undefined": "test_maps_and_sums_from_logits_are_those_saved",
    # The runtime ends when torch starts threads in a forked child; a C++ test forks under it.
    "thread": "fork",
}
SUPPRESSIONS = """\
called_from_lib:libtorch_cpu.so
called_from_lib:libgomp
race:libgomp
"""


def main() -> None:
    """Build, then run the C++ tests and those of Python."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sanitizers", choices=RUNTIMES)
    parser.add_argument(
        "--isas", nargs="+", help="instruction sets to build; by default those this machine runs"
    )
    parser.add_argument("--module", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.module is not None:
        sys.exit(run_tests(options.module, options.sanitizers))
    folder = ROOT / "build" / options.sanitizers.replace(",", "-")
    module = build(folder, options.sanitizers, options.isas or isas_here())
    environment = settings(folder)
    ctest = ["ctest", "--test-dir", str(folder), "--output-on-failure", "--no-tests=error"]
    subprocess.run([*fixed_addresses(), *ctest], check=True, env=environment)
    preloaded = {**environment, "LD_PRELOAD": " ".join(runtimes(options.sanitizers))}
    again = [sys.executable, __file__, options.sanitizers, "--module", str(module)]
    subprocess.run([*fixed_addresses(), *again], check=True, env=preloaded, cwd=ROOT)
    print(f"{options.sanitizers}: clean")


def isas_here() -> list[str]:
    """Give the instruction sets that this machine runs."""
    from fastcal import _cpu

    return _cpu.isa_levels()


def build(folder: Path, sanitizers: str, isas: list[str]) -> Path:
    """Build the module and the C++ tests, and give the path of the module."""
    import pybind11

    configure = {
        "SKBUILD": "2",
        "SKBUILD_PROJECT_NAME": "fastcal",
        "SKBUILD_PROJECT_VERSION": "0",
        "FASTCAL_CUDA": "OFF",
        "FASTCAL_BUILD_TESTS": "ON",
        "FASTCAL_SANITIZE": sanitizers,
        "FASTCAL_ISAS": ";".join(isas),
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
    }
    settings = [f"-D{name}={value}" for name, value in configure.items()]
    subprocess.run(
        ["cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", *settings], check=True
    )
    subprocess.run(["cmake", "--build", str(folder)], check=True)
    (module,) = folder.glob("_cpu*.so")
    return module


def settings(folder: Path) -> dict[str, str]:
    """Give the environment of the runs."""
    suppressions = folder / "suppressions.txt"
    suppressions.write_text(SUPPRESSIONS)
    return {
        **os.environ,
        # Python frees little at its end, and the stacks of torch's threads are not instrumented.
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        # A test forks a process that has threads, and uses the pool in the child.
        "TSAN_OPTIONS": f"suppressions={suppressions}:halt_on_error=1:die_after_fork=0:"
        "ignore_noninstrumented_modules=1",
        "OMP_NUM_THREADS": "1",
    }


def fixed_addresses() -> list[str]:
    """Give the command that turns address randomisation off, which older runtimes need."""
    return ["setarch", "--addr-no-randomize"]


def runtimes(sanitizers: str) -> list[str]:
    """Find the libraries that have to be loaded before an interpreter that lacks them."""
    compiler = os.environ.get("CXX", "g++")
    return [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in RUNTIMES[sanitizers]
    ]


def run_tests(module: Path, sanitizers: str) -> int:
    """Run the test files with this module in place of the installed one."""
    import pytest

    spec = importlib.util.spec_from_file_location("fastcal._cpu", module)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["fastcal._cpu"] = loaded
    spec.loader.exec_module(loaded)
    files = [str(ROOT / "tests" / name) for name in TESTS[sanitizers]]
    options = ["-q", "-x", "-p", "no:xdist", "-p", "no:cacheprovider"]
    # What a sanitizer writes when it ends the process would be lost in pytest's file.
    options += ["--capture=sys", "-k", f"not {LEFT_OUT[sanitizers]}"]
    return pytest.main([*options, *files])


if __name__ == "__main__":
    main()
