"""Training an ensemble: what it leaves in the run folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from blobs import TINY, same, train, weights, write_blobs

import fastcal.train.curves
from fastcal.data.preprocess import Preprocessing
from fastcal.models import Run, load_member
from fastcal.train import TrainConfig
from fastcal.train.log import read_log


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """For networks this small, waking a second thread costs more than it gains."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blobs(tmp_path_factory.mktemp("data") / "blobs")


@pytest.fixture(scope="module")
def trained(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "ce"
    return train(blobs, folder, members=2)


def test_run_folder_holds_what_prediction_needs(trained: Run, blobs: Path) -> None:
    run = Run.open(trained.path)
    assert [member.name for member in run.members] == ["member_00", "member_01"]
    assert run.unfinished == []
    assert (run.loss, run.head, run.num_classes) == ("ce", "softmax", 3)
    assert run.labels == {"background": 0, "left": 1, "right": 2}
    assert run.preprocessing == Preprocessing(slice_axis=2, size=(14, 18), reorient=None)
    assert run.split == {
        "train": ["blob_00", "blob_01", "blob_02", "blob_03"],
        "val": ["blob_04"],
        "test": [],
    }
    assert TrainConfig.from_json(run.config["training"]) == TINY
    assert (run.path / "dataset.json").read_text() == (blobs / "dataset.json").read_text()
    files = {path.name for path in run.members[0].iterdir()}
    assert files == {"best.safetensors", "last.pt", "log.jsonl", "curves.png", "member.json"}
    rows = [json.loads(line) for line in (run.members[0] / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    finished = json.loads((run.members[0] / "member.json").read_text())
    assert finished["best_val_dice"] == max(row["val_dice"] for row in rows)


@pytest.mark.parametrize("loss", ["ce", "dice"])
def test_either_loss_learns_the_blobs(blobs: Path, tmp_path: Path, loss: str) -> None:
    changes = {"loop.iterations_per_epoch": 20, "loop.max_epochs": 6, "augmentation.mirror": 0.5}
    run = train(blobs, tmp_path / loss, TINY.with_values(changes), loss=loss, members=1)
    rows = [json.loads(line) for line in (run.members[0] / "log.jsonl").read_text().splitlines()]
    assert max(row["val_dice"] for row in rows) > 0.9
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert load_member(run.members[0]).head == {"ce": "softmax", "dice": "sigmoid"}[loss]


def test_members_differ_and_the_same_seed_gives_the_same_bits(
    trained: Run, blobs: Path, tmp_path: Path
) -> None:
    first, second = (weights(member) for member in trained.members)
    assert not same(first, second)
    again = train(blobs, tmp_path / "again", members=1)
    assert same(first, weights(again.members[0]))


def test_members_added_later_are_those_of_one_go(trained: Run, blobs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert train(blobs, folder, members=1).config["members"] == 1
    first = (folder / "member_00" / "best.safetensors").stat().st_mtime_ns
    run = train(blobs, folder, members=2)
    assert Run.open(folder).config["members"] == 2
    assert (folder / "member_00" / "best.safetensors").stat().st_mtime_ns == first
    for member, expected in zip(run.members, trained.members, strict=True):
        assert same(weights(member), weights(expected))


def test_members_trained_side_by_side_are_those_trained_in_turn(
    trained: Run, blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(blobs, tmp_path / "run", members=2, strategy="processes", jobs=2, progress=True)
    for member, expected in zip(run.members, trained.members, strict=True):
        assert same(weights(member), weights(expected))
    lines = [line for line in capsys.readouterr().err.splitlines() if "epoch" in line]
    assert len(lines) == 6
    assert sum(line.startswith("member_01  epoch") for line in lines) == 3


def test_off_a_terminal_progress_is_one_line_per_epoch(
    blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(blobs, tmp_path / "run", members=1, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert "reading 4 + 1 cases" in lines[0]
    assert lines[-5].endswith("sequential; as asked for")
    assert lines[-4].startswith("* marks the best validation Dice")
    assert lines[-3].startswith("member_00  epoch 1/3  loss ")
    marked = [line.split("val Dice ")[1][6] == "*" for line in lines[-3:]]
    assert marked == [row.best for row in read_log(run.members[0])]
    assert lines[-1].endswith("at most 0 s left")


def test_without_matplotlib_a_message_takes_the_place_of_the_curves(
    trained: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert fastcal.train.curves.draw_curves(trained.members[0]) is None
    assert "member_00: curves.png needs matplotlib" in capsys.readouterr().err


def test_a_dice_loss_may_have_a_softmax_head(blobs: Path, tmp_path: Path) -> None:
    config = TINY.with_values({"network.head": "softmax", "loop.max_epochs": 1})
    run = train(blobs, tmp_path / "run", config, loss="dice", members=1)
    assert run.head == load_member(run.members[0]).head == "softmax"


def test_volumes_with_deep_supervision_average_and_event_files(blobs: Path, tmp_path: Path) -> None:
    config = TINY.with_values(
        {
            "preprocessing": {"dims": 3, "normalisation": "zscore"},
            "sampling": {"patch": [8, 12, 4], "batch_size": 2, "oversample": 0.5},
            "network": {"deep_supervision": True, "norm": "instance", "widths": [4, 8, 8]},
            "loss.name": "dice-ce",
            "optimiser": {"name": "sgd", "clip_norm": 1.0, "weight_decay": 1e-4},
            "schedule.name": "poly",
            "loop": {"ema": 0.9, "tensorboard": True, "max_epochs": 2, "checkpointing": True},
        }
    )
    run = train(blobs, tmp_path / "run", config, members=1)
    assert (run.config["patch"], run.preprocessing.dims) == ([8, 12, 4], 3)
    member = run.members[0]
    last = torch.load(member / "last.pt", weights_only=True)
    assert same(weights(member), last["average"])
    assert not same(last["average"], last["model"])
    pytest.importorskip("tensorboard", reason="event files need TensorBoard")
    assert len(list((member / "tensorboard").glob("events.*"))) == 1


def test_snapshots_are_members_from_one_training(blobs: Path, tmp_path: Path) -> None:
    config = TINY.with_values(
        {
            "schedule": {"name": "cyclic", "cycles": 2},
            "loop": {"snapshots": True, "max_epochs": 4},
        }
    )
    run = train(blobs, tmp_path / "run", config, members=2)
    first, second = (weights(member) for member in run.members)
    assert not same(first, second)
    assert same(second, torch.load(run.path / "member_00/last.pt", weights_only=True)["model"])
    rates = [
        json.loads(line)["learning_rate"]
        for line in (run.path / "member_00/log.jsonl").read_text().splitlines()
    ]
    assert rates[0] == rates[2] > rates[1] == rates[3]
    with pytest.raises(ValueError, match="members must be a multiple of 2, the schedule's cycles"):
        train(blobs, run.path, config, members=3)
