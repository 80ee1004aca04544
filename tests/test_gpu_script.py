"""The one command for a machine with a GPU, its steps faked: it goes on, keeps time, sums up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from benchmarks import bench_losses

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu.sh"
STEPS = {
    "a": [
        *("machine", "build", "smoke", "points", "layouts", "ncu"),
        *("tests", "triton", "losses", "compiled"),
    ],
    "b": [
        *("build", "racecheck", "memcheck", "kernels", "peers"),
        *("calibration", "training-losses", "training"),
    ],
}
MOST_SECONDS = 560
"""Of the limits of a part together; a command on a borrowed machine may last 600."""

# Stands for python3: notes the call, then fails or hangs where the test wants it to.
PYTHON = """#!/bin/bash
echo "$@" >> "$CALLS"
[[ -n $FAILS && "$*" == *$FAILS* ]] && { echo "no nvcc here" >&2; exit 3; }
[[ -n $HANGS && "$*" == *$HANGS* ]] && sleep 60
case "$*" in
  *"-m pytest"*) echo "== 7 passed, 1 skipped in 2.00s ==" ;;
esac
exit 0
"""


@pytest.fixture
def fake(tmp_path: Path) -> dict[str, str]:
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python), "CALLS": str(tmp_path / "calls")}
    return {**environment, "FASTCAL_COMMIT": "abc1234", "FAILS": "", "HANGS": ""}


def gpu(environment: dict[str, str], *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPT), *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def summary(folder: Path) -> dict[str, str]:
    lines = (folder / "summary.txt").read_text().splitlines()
    found = [line for line in lines if line.startswith("  ")]
    return {line[2:17].strip(): line[17:].strip() for line in found}


def test_it_goes_on_after_failures_keeps_its_time_and_sums_up(
    fake: dict[str, str], tmp_path: Path
) -> None:
    fake |= {"FAILS": "bench_losses", "HANGS": "eager"}
    words = ("--part", "b", "--seconds", "6")
    steps = ("--steps", "kernels,training-losses,peers,calibration")
    out = tmp_path / "out"
    result = gpu(fake, *words, *steps, out)
    assert result.returncode == 1
    lines = summary(out)
    assert list(lines) == ["kernels", "peers", "calibration", "training-losses"]
    assert lines["kernels"].startswith("ok")
    assert lines["peers"].startswith("stopped after")
    assert lines["calibration"] == "not run: the time was up"
    assert "commit abc1234" in (out / "summary.txt").read_text()
    # A handful of files: the results and one tar.
    assert sorted(it.name for it in out.iterdir()) == ["logs.tar.gz", "summary.txt"]
    with tarfile.open(out / "logs.tar.gz") as logs:
        assert "logs/kernels.log" in logs.getnames()


def test_a_failure_is_shown_with_its_last_lines(fake: dict[str, str], tmp_path: Path) -> None:
    fake["FAILS"] = "test_loss_gpu"
    result = gpu(fake, "--steps", "losses,tests,compiled", tmp_path)
    assert "| no nvcc here" in result.stdout
    lines = summary(tmp_path)
    assert lines["losses"].startswith("FAILED (3)")
    assert "FAILED" in lines["tests"]  # the same file
    assert re.search("test_loss_gpu.* -k compiled", Path(fake["CALLS"]).read_text())


def test_without_a_build_nothing_else_runs(fake: dict[str, str], tmp_path: Path) -> None:
    fake["FAILS"] = "pip install"
    result = gpu(fake, "--steps", "build,smoke,tests", tmp_path)
    assert result.returncode == 1
    assert summary(tmp_path)["the rest"] == "not run: there is no build"
    calls = Path(fake["CALLS"]).read_text()
    assert "FASTCAL_CUDA=ON" in calls
    assert "-m pytest" not in calls


def test_where_the_smoke_test_fails_it_is_looked_into_and_the_rest_is_left(
    fake: dict[str, str], tmp_path: Path
) -> None:
    fake["FAILS"] = "gpu_smoke"
    assert gpu(fake, "--steps", "smoke,memcheck,points,tests", tmp_path).returncode == 1
    lines = summary(tmp_path)
    assert list(lines) == ["smoke", "memcheck", "the rest"]
    assert "fastcal bench" not in Path(fake["CALLS"]).read_text()


@pytest.mark.parametrize("part", ["a", "b"])
def test_dry_run_runs_nothing_and_shows_every_step_within_its_limit(
    fake: dict[str, str], tmp_path: Path, part: str
) -> None:
    result = gpu(fake, "--dry-run", "--part", part, tmp_path / "out")
    assert result.returncode == 0
    assert not Path(fake["CALLS"]).exists()
    assert not (tmp_path / "out").exists()
    shown = {words[0]: int(words[1]) for words in map(str.split, result.stdout.splitlines())}
    assert [name for name in shown if name != "memcheck" or part == "b"] == STEPS[part]
    assert all(limit > 0 for limit in shown.values())
    # memcheck of part A runs only where everything after it does not.
    total = sum(limit for name, limit in shown.items() if name != "memcheck" or part == "b")
    assert total <= MOST_SECONDS


def test_every_command_of_a_dry_run_exists(fake: dict[str, str], tmp_path: Path) -> None:
    shown = "".join(gpu(fake, "--dry-run", "--part", part, tmp_path).stdout for part in "ab")
    for module in set(re.findall(r"-m benchmarks\.(\w+)", shown)):
        assert (ROOT / "benchmarks" / f"{module}.py").exists(), module
    for file in set(re.findall(r"(?:tests|benchmarks)/\w+\.\w+", shown)):
        assert (ROOT / file).exists(), file


def test_the_options_of_the_benchmark_are_its_own(fake: dict[str, str], tmp_path: Path) -> None:
    shown = "".join(gpu(fake, "--dry-run", "--part", part, tmp_path).stdout for part in "ab")
    program = "import sys; from fastcal.cli import main; sys.exit(main(['bench', '--help']))"
    command = [sys.executable, "-c", program]
    help_text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in shown.splitlines():
        if "fastcal bench" in line:
            for option in re.findall(r"--[a-z-]+", line.partition("fastcal bench")[2]):
                assert option in help_text, option


def test_gpu_tests_run_where_optional_packages_are_missing(fake: dict[str, str]) -> None:
    """The files that the script runs first are read without pydantic, MONAI and the like."""
    listed = re.search(r"^plain=\((.*)\)$", SCRIPT.read_text(), re.MULTILINE)
    trained = re.search(r"^trained=\((.*)\)$", SCRIPT.read_text(), re.MULTILINE)
    assert listed is not None
    assert trained is not None
    plain = listed[1].split()
    marked = {
        f"tests/{file.name}"
        for file in (ROOT / "tests").glob("test_*.py")
        if re.search(r"mark\.gpu\b", file.read_text()) and file.name != Path(__file__).name
    }
    assert marked == {*plain, *trained[1].split()}
    program = (
        "import importlib, sys\n"
        "for name in 'pydantic monai nibabel scipy typer rich safetensors sklearn'.split():\n"
        "    sys.modules[name] = None\n"
        "sys.path.insert(0, 'tests')\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
    )
    names = [Path(file).stem for file in plain]
    environment = {name: value for name, value in fake.items() if name != "PYTHON"}
    result = subprocess.run(
        [sys.executable, "-c", program, *names],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment,
    )
    assert result.returncode == 0, result.stderr[-2000:]


def test_losses_are_timed_where_monai_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its column is that of the same loss in plain PyTorch then."""
    monkeypatch.setitem(sys.modules, "monai", None)
    settings = bench_losses.Settings(volume=(1, 8, 8, 8), slices=(2, 8, 8), rounds=1)
    rows, _ = bench_losses.run(settings)
    assert {name for row in rows for name in row.others} == {"plain"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--fast",), "unknown option --fast"),
        (("--seconds", "soon"), "takes a number, got soon"),
        (("--part", "c"), "--part takes a or b, got c"),
    ],
)
def test_a_wrong_option_is_told(fake: dict[str, str], words: tuple[str, ...], message: str) -> None:
    result = gpu(fake, *words)
    assert result.returncode == 2
    assert message in result.stderr
