"""Instruction sets of the cpu backend: the table, the override, one result each."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

_cpu = pytest.importorskip("fastcal._cpu", reason="the native module fastcal._cpu is not built")

from members import labels, logits  # noqa: E402

import fastcal  # noqa: E402

KNOWN = ("avx512", "avx2", "neon", "baseline")
PROGRAM = """
import torch, fastcal
from fastcal import _cpu
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
members = [torch.randn(1, 4, 2500, generator=generator) for _ in range(3)]
with fastcal.backend("cpu"):
    entropy = fastcal.ensemble_entropy(members)
print(_cpu.isa(), entropy.double().sum().item())
"""


@pytest.fixture(scope="module")
def runs() -> dict[str, tuple[int, str, str]]:
    """Exit code, output and errors of `PROGRAM` under every FASTCAL_ISA, "" being none."""
    plain = {k: v for k, v in os.environ.items() if k != "FASTCAL_ISA"}
    started = {}
    for isa in ("", *_cpu.isa_levels(), "sse9"):
        started[isa] = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**plain, "FASTCAL_ISA": isa} if isa else plain,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    results = {}
    for isa, process in started.items():
        out, err = process.communicate(timeout=300)
        results[isa] = process.returncode, out, err
    return results


def test_levels_are_listed_best_first_and_end_in_the_baseline():
    levels = _cpu.isa_levels()
    assert levels[-1] == "baseline"
    assert levels == [name for name in KNOWN if name in levels]


@pytest.mark.parametrize("isa", _cpu.isa_levels())
def test_the_environment_chooses_the_level(runs, isa):
    code, out, err = runs[isa]
    assert code == 0, err
    used, total = out.split()
    assert used == isa
    generator = torch.Generator().manual_seed(0)
    members = [torch.randn(1, 4, 2500, generator=generator) for _ in range(3)]
    with fastcal.backend("reference"):
        expected = fastcal.ensemble_entropy(members).double().sum().item()
    assert float(total) == pytest.approx(expected, abs=1e-6 * 2500)


def test_the_best_level_is_the_default(runs):
    code, out, err = runs[""]
    assert code == 0, err
    assert out.split()[0] == _cpu.isa_levels()[0]


def test_an_unknown_level_is_an_error_that_lists_the_known_ones(runs):
    code, _, err = runs["sse9"]
    assert code != 0
    message = err.strip().splitlines()[-1]
    assert "sse9" in message
    assert "baseline" in message
    with pytest.raises(ValueError, match=r"must be .*baseline.*, got 'sse9'"):
        _cpu.set_isa("sse9")


def test_levels_agree_on_maps_within_tolerance_and_on_counts_of_clear_voxels():
    members, target = logits(3, 4, (2000,), scale=8), labels(4, (2, 2000))
    before, results = _cpu.isa(), []
    try:
        for isa in _cpu.isa_levels():
            _cpu.set_isa(isa)
            assert _cpu.isa() == isa
            with fastcal.backend("cpu"):
                results.append(
                    fastcal.ensemble_statistics(members, target, maps=("mean", "entropy"))
                )
    finally:
        _cpu.set_isa(before)
    for result in results[1:]:
        torch.testing.assert_close(result.mean, results[0].mean, rtol=0, atol=1e-6)
        torch.testing.assert_close(result.entropy, results[0].entropy, rtol=0, atol=2e-6)
        assert result.calibration.ece() == pytest.approx(results[0].calibration.ece(), abs=1e-6)
