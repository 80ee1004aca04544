"""The calibration benchmark: exact before timed, deviations told, a state that stays small."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

import fastcal
from fastcal.bench.device import Cpu

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.bench_calibration")


def test_every_row_is_exact_and_written_beside_its_peers(bench: ModuleType, tmp_path: Path) -> None:
    bench.main(["--shape", "10x11x12", "--rounds", "1", "-o", str(tmp_path)])
    found = json.loads((tmp_path / "calibration.json").read_text())
    assert [row["workload"] for row in found["rows"]] == [
        f"{what}, {where}"
        for where in ("95% background", "diffuse")
        for what in ("top-label", "top-label + classwise")
    ]
    assert all(row["fastcal"]["error"] <= 1e-12 for row in found["rows"])
    assert set(found["rows"][0]["others"]) >= {"torchmetrics"}
    assert set(found["rows"][1]["others"]) == {"monai"}
    assert any(note.startswith("diffuse, monai: ") for note in found["notes"])
    assert any("after one volume" in note for note in found["notes"])
    assert "| top-label, diffuse |" in (tmp_path / "calibration.md").read_text()


def test_a_wrong_error_is_refused(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = bench.Settings(shape=(6, 6, 6), rounds=1)
    volume = bench.ProbabilityVolume(settings, 0.0, Cpu())
    true = fastcal.CalibrationStatistics.ece
    monkeypatch.setattr(fastcal.CalibrationStatistics, "ece", lambda *args: true(*args) + 1e-9)
    with pytest.raises(bench.harness.WrongResult, match="fastcal: error 1e-09 above 1e-12"):
        bench.harness.judge(volume.ours("top-label"))


class Hoarder:
    """A metric that keeps what it is given."""

    def __init__(self, _: int) -> None:
        self.kept: list[torch.Tensor] = []

    def update(self, probs: torch.Tensor, _: torch.Tensor) -> None:
        self.kept.append(probs.clone())


def test_a_growing_state_is_refused(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "CalibrationStatistics", Hoarder)
    with pytest.raises(bench.harness.WrongResult, match="state grew from"):
        bench.state_sizes(2, 3)
