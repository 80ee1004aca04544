"""The one command for a machine with a GPU, its steps faked: it goes on, keeps time, sums up."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu.sh"
STEPS = ("machine", "build", "info", "tests", "kernels", "targets")

# Stands for python3: notes the call, then fails in the build, hangs in `targets`, else succeeds.
PYTHON = """#!/bin/bash
echo "$@" >> "$CALLS"
case "$*" in
  *"pip install"*) echo "no nvcc here" >&2; exit 3 ;;
  *"-m pytest"*) echo "== 7 passed, 1 skipped in 2.00s ==" ;;
  *product*) sleep 60 ;;
esac
"""


@pytest.fixture
def fake(tmp_path: Path) -> dict[str, str]:
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python), "CALLS": str(tmp_path / "calls")}
    return {**environment, "FASTCAL_COMMIT": "abc1234"}


def gpu(environment: dict[str, str], *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPT), *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_it_goes_on_after_failures_keeps_its_time_and_sums_up(
    fake: dict[str, str], tmp_path: Path
) -> None:
    words = ("--seconds", "7", "--steps", "build,tests,targets,calibration")
    result = gpu(fake, *words, tmp_path / "out")
    assert result.returncode == 1
    assert "| no nvcc here" in result.stdout
    summary = (tmp_path / "out" / "summary.txt").read_text()
    lines = {line.split()[0]: line for line in summary.splitlines() if line.startswith("  ")}
    assert set(lines) == {"build", "tests", "targets", "calibration"}
    assert "FAILED (3)" in lines["build"]
    assert "ok" in lines["tests"]
    assert lines["tests"].endswith(": 7 passed, 1 skipped in 2.00s")
    assert "stopped after" in lines["targets"]
    assert lines["calibration"].endswith("not run: the time was up")
    assert "commit abc1234" in summary
    assert summary in result.stdout
    calls = Path(fake["CALLS"]).read_text()
    assert "-m fastcal bench --device cuda --budget 20" in calls
    assert "tests/test_gpu.py" in calls


def test_dry_run_runs_nothing_and_shows_every_step_within_ten_minutes(
    fake: dict[str, str], tmp_path: Path
) -> None:
    result = gpu(fake, "--dry-run", tmp_path / "out")
    assert result.returncode == 0
    assert not Path(fake["CALLS"]).exists()
    assert not (tmp_path / "out").exists()
    shown = [line.split() for line in result.stdout.splitlines()]
    assert [words[0] for words in shown][: len(STEPS)] == list(STEPS)
    assert sum(int(words[1]) for words in shown if words[1].isdigit()) <= 600


@pytest.mark.parametrize(
    ("words", "message"),
    [(("--fast",), "unknown option --fast"), (("--seconds", "soon"), "takes a number, got soon")],
)
def test_a_wrong_option_is_told(fake: dict[str, str], words: tuple[str, ...], message: str) -> None:
    result = gpu(fake, *words)
    assert result.returncode == 2
    assert message in result.stderr
