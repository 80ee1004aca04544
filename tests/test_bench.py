"""The kernel benchmark: what it counts, what it refuses, what it leaves out, what it writes."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from members import logits
from torch.utils._python_dispatch import TorchDispatchMode

import fastcal
from fastcal.bench import Settings, beside, device, kernels, record, run
from fastcal.bench.peers import PEERS
from fastcal.bench.points import AXES, DTYPES, LAYOUTS, OUTPUTS, SWEEPS, Point, points, read_volume
from fastcal.bench.reference import map_error, maps_64
from fastcal.bench.timing import Candidate, WrongResult, judge, measure
from fastcal.bench.volumes import make_case
from fastcal.bench.workload import lay_out
from fastcal.cli import main

TINY: dict[str, tuple[Any, ...]] = {
    "dtype": ("float32",),
    "classes": (3,),
    "members": (2,),
    "volume": ((6, 5, 7),),
    "background": (0.5,),
    "layout": ("ncdhw",),
    "outputs": ("entropy",),
}


@pytest.fixture(autouse=True)
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache and a copy of a megabyte."""
    monkeypatch.setattr(device, "_CPU_COPY", 10**6)
    monkeypatch.setattr(device, "_last_level_cache", lambda: 10**6)


def tiny(**axes: tuple[Any, ...]) -> Settings:
    return Settings({**TINY, **axes}, peers=(), device="cpu", seconds=1e-3, host=False)


# What is counted


def test_bytes_are_those_of_members_target_and_maps() -> None:
    point = Point("bfloat16", 4, 5, (2, 3, 5), 0.95, "ncdhw", "six-maps+calibration")
    members, target = 5 * 4 * 30 * 2, 30 * 8
    maps = 30 * (4 * 4 + 8 + 4 * 4)  # mean, label, four maps of float32
    assert point.bytes == members + target + maps
    assert replace(point, outputs="entropy").bytes == members + 30 * 4
    assert replace(point, outputs="entropy", dtype="float64").bytes == 4 * members + 30 * 8


def test_star_varies_one_axis_at_a_time_and_product_all() -> None:
    axes = {**TINY, "classes": (4, 2, 14), "members": (5, 1), "outputs": ("entropy", "six-maps")}
    star, product = points(axes, "star"), points(axes, "product")
    assert [(p.classes, p.members, p.outputs) for p in star[::2]] == [
        *((4, 5, "entropy"), (2, 5, "entropy"), (14, 5, "entropy"), (4, 1, "entropy"))
    ]
    assert len(set(star)) == len(star) == 2 * 4
    assert len(set(product)) == len(product) == 2 * 3 * 2


def test_volumes_are_read_as_cubes_or_three_sizes() -> None:
    assert read_volume("96") == (96, 96, 96)
    assert read_volume("240x240x155") == (240, 240, 155)
    for text in ("96x96", "ax1x1", "0", "-1x2x3", ""):
        with pytest.raises(ValueError, match="volumes must"):
            read_volume(text)


@pytest.mark.parametrize("background", [0.0, 0.5, 0.95])
def test_volume_has_the_share_of_saturated_background(background: float) -> None:
    case = make_case(1, 4, (20, 21, 22), background=background)
    sure = case.members[0].softmax(1)[:, 0] > 0.999
    assert sure.double().mean().item() == pytest.approx(background, abs=0.02)
    assert (case.target[sure] == 0).double().mean() > 0.99


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_hold_the_same_values(layout: str) -> None:
    (tensor,) = logits(1, 3, (4, 5, 6), batch=1)
    got = lay_out(tensor, layout)
    assert torch.equal(got, tensor)
    assert got.data_ptr() != tensor.data_ptr()
    assert got.is_contiguous() == (layout == "ncdhw")
    assert (got.stride(1) == 1) == (layout == "channels-last")


# What is refused


def test_reference_is_that_of_the_oracle() -> None:
    members = logits(3, 4, (50,), batch=1, dtype=torch.float64)
    members[1][..., :5] = 0  # ties
    names = OUTPUTS["all-maps"].maps
    want = oracle.maps(np.stack([m.numpy() for m in members]))
    for name, values in maps_64(members, names).items():
        np.testing.assert_allclose(
            values.numpy(), getattr(want, name)[0], rtol=0, atol=1e-12, err_msg=name
        )


def test_labels_are_judged_by_what_their_class_lacks() -> None:
    want = {"mean": torch.tensor([[0.2, 0.5, 0.3], [0.8, 0.5, 0.7]], dtype=torch.float64)}
    want["label"] = torch.tensor([1, 0, 1])
    assert map_error({"label": torch.tensor([1, 1, 1])}, want) == 0
    assert map_error({"label": torch.tensor([1, 0, 0])}, want) == pytest.approx(0.4)
    assert map_error({"label": torch.tensor([1, -1, 1])}, want) == float("inf")


def test_no_candidate_is_timed_before_all_are_right() -> None:
    calls = []
    right = Candidate("right", lambda: calls.append("right"), lambda _: 0.0, 1e-6)
    wrong = Candidate("wrong", lambda: None, lambda _: float("nan"), 1e-6)
    with pytest.raises(WrongResult, match="wrong: error nan above 1e-06; not timed"):
        measure([right, wrong], rounds=3)
    assert calls == ["right"]
    with pytest.raises(WrongResult):
        judge(wrong)


def test_a_wrong_pass_gets_no_time_and_the_command_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    true = fastcal.ensemble_statistics

    def off(*args: Any, **options: Any) -> Any:
        got = true(*args, **options)
        options["out"]["entropy"] += 1e-4
        return got

    monkeypatch.setattr(fastcal, "ensemble_statistics", off)
    words = "--volume 8 --classes 2 --members 2 --dtype float32 --background 0 --layout ncdhw"
    words += " --output entropy --no-peers --device cpu -q -o"
    assert main(["bench", *words.split(), str(tmp_path)]) == 1
    (row,) = json.loads((tmp_path / "kernels.json").read_text())["rows"]
    assert row["fastcal"] is row["bytes_per_second"] is None
    assert "error 0.0001 above 1e-06" in row["refused"]
    assert not (tmp_path / "roofline.png").exists()
    assert "REFUSED" in capsys.readouterr().out


# What is left out


def test_points_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny(volume=((6, 5, 7), (4000, 4000, 4000)))
    results = run(settings)
    assert len(results.rows) == 1
    (line,) = results.skipped
    assert line.startswith("float32, C 3, M 2, 4000x4000x4000, 50% background, ncdhw: needs")
    monkeypatch.setattr(device.Cpu, "free_bytes", lambda _: 10**4)
    assert run(tiny()).rows == []


def test_points_after_the_budget_are_named() -> None:
    results = run(replace(tiny(members=(2, 3)), budget=1e-9))
    assert results.rows == []
    assert len(results.skipped) == 2
    assert all("the budget of 1e-09 s was spent" in line for line in results.skipped)


def test_a_peer_that_fails_is_named_and_the_others_are_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fastcal.bench import plain

    def fails(_: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(plain, "mean_probabilities", fails)
    settings = replace(tiny(outputs=("calibration",)), peers=("torchmetrics", "monai", "triton"))
    results = run(settings)
    (row,) = results.rows
    assert row.left_out == {"torchmetrics": "no such kernel"}
    assert list(row.peers) == ["monai"]
    assert results.skipped == ["peer triton: needs a GPU"]
    line = "not measured: torchmetrics at base, calibration: no such kernel"
    assert line in record.notes(results)


def test_a_slow_peer_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_SLOW", -1.0)
    (row,) = run(replace(tiny(), peers=("eager",))).rows
    assert row.left_out == {"eager": "one call takes 0 s"}
    assert row.timing is not None


# What is written


def test_run_is_written_as_json_markdown_and_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--volume 8 --classes 2 --members 2 3 --dtype bfloat16 --background 0.5 --layout"
    words += " cropped --output six-maps all-maps six-maps+calibration --peer eager plain"
    words += " --seconds 0.001 --device cpu -q -o"
    assert main(["bench", *words.split(), str(tmp_path)]) == 0
    found = json.loads((tmp_path / "kernels.json").read_text())
    assert len(found["rows"]) == 6
    for row in found["rows"]:
        assert row["bytes_per_second"] == pytest.approx(
            row["bytes"] / row["fastcal"]["median_ms"] * 1e3
        )
        assert row["share_of_copy"] == row["bytes_per_second"] / found["copy_bytes_per_second"]
        assert row["fastcal"]["error"] < 1e-6
        (peer,) = row["peers"].values()
        assert peer["fastcal_times_faster"] > 0
    assert {row["members"] for row in found["rows"]} == {2, 3}
    assert found["machine"]["versions"]["torch"]
    assert found["machine"]["commit"]
    assert found["host"][0]["call"] == "entropy, M 5"
    page = (tmp_path / "kernels.md").read_text()
    assert "Base: bfloat16, C 2, M 2, 8x8x8, 50% background, cropped." in page
    assert "| M 3 |" in page
    assert (tmp_path / "roofline.png").read_bytes()[:4] == b"\x89PNG"
    assert "six-maps+calibration" in capsys.readouterr().out


def test_command_offers_what_there_is() -> None:
    assert {str(x) for x in command_enum("Dtype")} == set(DTYPES)
    assert [str(x) for x in command_enum("Layout")] == list(LAYOUTS)
    assert [str(x) for x in command_enum("OutputsName")] == list(OUTPUTS)
    assert [str(x) for x in command_enum("PeerName")] == list(PEERS)
    assert [str(x) for x in command_enum("Sweep")] == list(SWEEPS)


def command_enum(name: str) -> Any:
    return getattr(importlib.import_module("fastcal.cli.bench"), name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--volume 3x4", "volumes must be N or NxNxN, got '3x4'"),
        ("--device tpu", "--device must be cpu, cuda or cuda:N, got 'tpu'"),
        ("--classes 1", "classes must be from 2 to 65535, got 1"),
        ("--background 95", "--background must be from 0 to 1, got 95"),
        ("--seconds 0", "seconds must be positive, got 0"),
        ("--threads 0", "threads must be from 1 to 4096, got 0"),
        ("--dtype float8", "float8"),
    ],
)
def test_bad_option_is_one_line(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words if "--device" in words else f"{words} --device cpu"
    assert main(["bench", *words.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize("gpu", [False, True])
def test_default_settings_vary_every_axis_of_the_issue(gpu: bool) -> None:
    whole = Settings.default(gpu=gpu)
    assert set(whole.axes) == set(AXES)
    assert set(whole.axes["classes"]) == {2, 4, 14, 104}
    assert set(whole.axes["members"]) == {1, 5, 10, 50}
    assert set(whole.axes["background"]) == {0, 0.5, 0.95}
    assert Settings.quick(gpu=gpu).budget < 60


@pytest.mark.gpu
def test_benchmark_on_a_gpu_refuses_nothing() -> None:
    axes = {**TINY, "outputs": tuple(OUTPUTS), "layout": LAYOUTS, "dtype": tuple(DTYPES)}
    axes["volume"] = ((33, 31, 65),)
    settings = Settings(axes, peers=("eager", "triton"), device="cuda", seconds=0.01)
    results = run(settings)
    assert [row.refused for row in results.refused] == []
    assert all(row.timing is not None for row in results.rows)
    assert device.open_device(None).torch.type == "cuda"


def test_a_gpu_is_timed_with_a_clean_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Written lines would go back to memory in the time of the call, so a reading comes last."""
    done: list[str] = []

    class Event:
        def __init__(self, **_: object) -> None: ...

        def record(self) -> None:
            done.append("event")

        def synchronize(self) -> None:
            done.append("wait")

        def elapsed_time(self, _: object) -> float:
            return 3.0

    class Noting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            done.append(str(func).split(".")[1])
            return func(*args, **(kwargs or {}))

    monkeypatch.setattr(torch.cuda, "Event", Event)
    gpu = object.__new__(device.Cuda)
    gpu._scratch, gpu._clean = torch.zeros(64, dtype=torch.int64), torch.zeros(9, dtype=torch.int64)
    gpu._seen = torch.zeros((), dtype=torch.int64)
    with Noting():
        assert gpu.seconds(lambda: done.append("call")) == 3e-3
    assert done == ["zero_", "amax", "event", "call", "event", "wait"]


def test_shares_of_a_clone_stand_beside_those_of_the_copy() -> None:
    results = run(tiny(outputs=("entropy", "six-maps")))
    found = record.to_json(results)
    for row in found["rows"]:
        assert row["share_of_clone"] == row["bytes_per_second"] / found["clone_bytes_per_second"]
    assert "| of copy | of clone |" in record.markdown(results)


def test_results_are_kept_after_every_volume() -> None:
    kept: list[int] = []
    run(
        tiny(members=(1, 2), outputs=("entropy",)),
        keep=lambda results: kept.append(len(results.rows)),
    )
    assert kept == [1, 2]


def test_two_devices_are_shown_side_by_side(tmp_path: Path) -> None:
    files = []
    for name, share in (("NVIDIA H100", 0.9), ("NVIDIA H200", 0.8)):
        found = record.to_json(run(tiny()))
        found["device"] = "cuda:0"
        found["machine"]["gpu"] = {"devices": [f"{name}, sm_90, 80 GiB"]}
        found["rows"][0] |= {"share_of_copy": share, "share_of_clone": share / 2}
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps(found))
    head, _, row = beside.table([beside.read_run(file) for file in files]).splitlines()
    assert head == "| point | NVIDIA H100: of copy | of clone | NVIDIA H200: of copy | of clone |"
    assert row.endswith("| 0.90 | 0.45 | 0.80 | 0.40 |")


@pytest.mark.parametrize("text", ["[]", "{}", '{"machine": {"gpu": null}, "device": "cpu"}', "3"])
def test_a_file_that_is_no_run_is_refused_by_name(tmp_path: Path, text: str, capsys) -> None:
    file = tmp_path / "kernels.json"
    file.write_text(text)
    assert main(["bench", "--beside", str(file), "--device", "cpu"]) == 2
    assert capsys.readouterr().err.startswith(f"fastcal: {file}: not a kernels.json")
