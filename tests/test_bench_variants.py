"""The benchmark times the competing designs of the CUDA kernels, and docs/gpu.md predicts them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import fastcal
from benchmarks import model_passes
from fastcal.bench import peers
from fastcal.bench.kernels import run
from fastcal.bench.settings import Settings
from fastcal.bench.timing import Candidate
from fastcal.bench.variants import variant


def test_a_design_is_chosen_for_one_call_and_given_back(monkeypatch):
    chosen = ["persistent"]
    module = SimpleNamespace(variant=lambda: chosen[-1], set_variant=chosen.append)
    monkeypatch.setitem(sys.modules, "fastcal._cuda", module)
    monkeypatch.setattr(fastcal, "_cuda", module, raising=False)
    seen = []
    call = Candidate("fastcal", lambda: seen.append(chosen[-1]), lambda _: 0.0, 1e-6)
    timed = variant(call, "cuda-loads")
    timed.run()
    assert timed.name == "cuda-loads"
    assert seen == ["loads"]
    assert chosen[-1] == "persistent"


def test_without_a_gpu_the_variants_are_left_out_with_the_reason():
    axes = {name: values[:1] for name, values in Settings.default(gpu=False).axes.items()}
    axes |= {"volume": ((8, 8, 8),), "outputs": ("entropy",), "dtype": ("float32",)}
    small = Settings(axes, peers=(), variants=True, device="cpu", seconds=0.01, host=False)
    assert [line for line in run(small).skipped if line.startswith("peer cuda-")] == [
        f"peer {name}: needs a GPU" for name in peers.VARIANTS
    ]


def test_the_page_holds_the_predictions_of_the_model():
    page = (Path(__file__).parent.parent / "docs" / "gpu.md").read_text()
    assert "\n".join(model_passes.table()) in page
    assert "\n".join(model_passes.target_table()) in page


@pytest.mark.parametrize("kernel", model_passes.PASSES, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("device", [model_passes.H100, model_passes.H200], ids=lambda d: d.name)
def test_the_model_stays_below_a_copy_and_gains_from_fewer_slots(kernel, device):
    share = kernel.share(5, device)
    assert 0.5 < share < 1
    heavier = replace(kernel, member_slots=2 * kernel.member_slots)
    assert heavier.share(5, device) < share
