from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata

import pytest
import torch

from fastcal import backends, info


def run_info(*arguments: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "fastcal.info", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    ).stdout


def test_report_names_installed_versions_and_threads() -> None:
    report = info.collect(gpu=False)
    assert report.torch == torch.__version__
    assert report.packages["numpy"] == metadata.version("numpy")
    assert report.cpu.threads == torch.get_num_threads()
    assert report.cpu.model != ""


def test_packages_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info, "OPTIONAL_PACKAGES", ("numpy", "no-such-package-of-anybody"))
    assert list(info.collect(gpu=False).packages) == ["numpy"]


def test_instruction_set_in_use_is_one_the_build_offers() -> None:
    cpu = info.collect(gpu=False).cpu
    assert cpu.isa in cpu.isa_levels


def test_forced_instruction_set_is_the_one_reported() -> None:
    lowest = info.collect(gpu=False).cpu.isa_levels[-1]
    report = run_info("--no-gpu", FASTCAL_ISA=lowest)
    assert f"{lowest} (FASTCAL_ISA)" in report


def test_every_backend_works_or_says_why_not() -> None:
    report = info.collect(gpu=False)
    assert {"reference", "cpu"} <= {backend.name for backend in report.backends}
    for backend in report.backends:
        assert backend.available or backend.reason


def test_reason_of_a_missing_backend_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = backends.BackendStatus("cpu", False, "fastcal._cpu is not built")
    monkeypatch.setattr(backends, "status", lambda **_: [missing])
    report = info.render(info.collect(gpu=False))
    assert report.splitlines()[-1].startswith("backend cpu ")
    assert report.endswith("  no: fastcal._cpu is not built")


def test_json_holds_what_the_text_shows() -> None:
    report = json.loads(run_info("--json", "--no-gpu"))
    assert report["torch"] == torch.__version__
    assert report["gpu"] is None
    assert {"name", "available", "reason", "failed"} == set(report["backends"][0])


def test_gpu_is_not_touched_unless_asked_for() -> None:
    program = (
        "import torch; from fastcal import info; info.collect(gpu=False);"
        "print(torch.cuda.is_initialized())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def test_machine_without_gpu_says_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    report = info.collect()
    assert report.gpu is not None
    assert report.gpu.devices == ()
    assert "gpu  " in info.render(report)


@pytest.mark.gpu
def test_gpu_and_driver_are_named() -> None:
    report = info.collect()
    assert report.gpu is not None
    assert torch.cuda.get_device_name(0) in report.gpu.devices[0]
    assert report.gpu.driver is not None
