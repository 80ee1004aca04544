"""Files of a run folder that are damaged or contradict each other are refused, never used."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from blobs import TINY, train, write_blobs
from cohort import write_run

from fastcal.core.doors import read_checkpoint, sealed
from fastcal.core.errors import DataError, DataWarning
from fastcal.models import UNet, load_ensemble, save_weights
from fastcal.models.run import Run
from fastcal.models.weights import read_weights
from fastcal.train.config import TrainConfig


def flips(path: Path, read: Callable[[Path], object], step: int = 1) -> list[int]:
    """Places where a flipped bit is not found, of every ``step``-th byte."""
    whole = path.read_bytes()
    missed = []
    for place in range(0, len(whole), step):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        try:
            read(path)
            missed.append(place)
        except DataError as error:
            missed += [] if str(error).startswith(f"{path}: ") else [place]
    path.write_bytes(whole)
    return missed


def write_sealed(path: Path) -> dict[str, Any]:
    state = {"model": {"w": torch.arange(6.0)}, "course": {"step": 3}}
    content = io.BytesIO()
    torch.save(state, content)
    path.write_bytes(sealed(content.getbuffer()))
    return state


def test_a_sealed_checkpoint_is_one_of_pytorch(tmp_path: Path) -> None:
    file = tmp_path / "last.pt"
    state = write_sealed(file)
    for found in (read_checkpoint(file), torch.load(file, weights_only=True)):
        assert torch.equal(found["model"]["w"], state["model"]["w"])
        assert found["course"] == state["course"]
    with pytest.raises(ValueError, match=r"must be an archive of torch\.save"):
        sealed(b"PK")


def test_every_flipped_bit_of_a_checkpoint_is_found(tmp_path: Path) -> None:
    write_sealed(tmp_path / "last.pt")
    assert flips(tmp_path / "last.pt", read_checkpoint) == []


def test_every_cut_of_a_checkpoint_is_found(tmp_path: Path) -> None:
    write_sealed(tmp_path / "last.pt")
    whole = (tmp_path / "last.pt").read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "last.pt").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"last\.pt: "):
            read_checkpoint(tmp_path / "last.pt")


def test_every_flipped_bit_of_weights_is_found(tmp_path: Path) -> None:
    file = tmp_path / "best.safetensors"
    save_weights(file, UNet(1, 2, widths=(2, 2)), details={"epoch": 3, "val_dice": float("nan")})
    assert read_weights(file).details["epoch"] == 3
    assert flips(file, read_weights, step=3) == []


# --- a training that goes on ------------------------------------------------------------------


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blobs(tmp_path_factory.mktemp("data") / "blobs", shape=(14, 18, 2))


@pytest.fixture(scope="module")
def trained(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One epoch of two is done."""
    config = TINY.with_values({"loop.max_epochs": 1, "loop.iterations_per_epoch": 1})
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(blobs, folder, config, members=1)
    kept = json.loads((folder / "config.json").read_text())
    kept["training"]["loop"]["max_epochs"] = 2
    (folder / "config.json").write_text(json.dumps(kept))
    (folder / "member_00/member.json").unlink()
    return folder


@pytest.fixture
def begun(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def goes_on(blobs: Path, folder: Path) -> Run:
    config = TrainConfig.from_json(json.loads((folder / "config.json").read_text())["training"])
    return train(blobs, folder, config, members=1)


def course(**values: Any) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        saved = torch.load(path, weights_only=True)
        saved["course"] |= values
        torch.save(saved, path)

    return damage


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def another_network(path: Path) -> None:
    save_weights(path, UNet(1, 3, widths=(2, 2)))


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("last.pt", dangling, "no such file"),
        ("last.pt", pipe, "must be a regular file, got a named pipe"),
        ("last.pt", lambda path: torch.save([1], path), "must be a valid dictionary"),
        ("last.pt", lambda path: torch.save({"model": {}}, path), "must hold course, model, opt"),
        ("last.pt", course(epoch=-5), "step must be one of epoch -4"),
        ("last.pt", course(epoch=10**9), "step must be one of epoch 1000000001"),
        ("last.pt", course(step=float("nan")), r"course: step must be a finite number"),
        ("last.pt", course(step="x"), "course: step must be a valid integer"),
        ("last.pt", course(best_epoch=7), "the best epoch must be one of 1"),
        ("last.pt", course(bogus=7), "course: bogus is not known"),
        ("best.safetensors", lambda path: path.unlink(), "no such file; .*last.pt goes on from"),
        ("best.safetensors", lambda path: path.write_bytes(b""), "the file is too short"),
        ("best.safetensors", pipe, "must be a regular file, got a named pipe; .* remove"),
        ("best.safetensors", another_network, "holds the weights of another network"),
        ("log.jsonl", lambda path: path.write_text("[1]\n"), "line 1: .* valid dictionary"),
        ("log.jsonl", lambda path: path.write_text('{"a": 1}\n'), "line 1: .* is missing"),
        ("log.jsonl", lambda path: path.write_text(path.read_text() * 2), "epoch must be above 1"),
        ("log.jsonl", pipe, "must be a regular file, got a named pipe"),
    ],
)
def test_what_a_training_goes_on_from_is_checked(
    blobs: Path, begun: Path, name: str, damage: Callable[[Path], object], words: str
) -> None:
    damage(begun / "member_00" / name)
    with pytest.raises(DataError, match=rf"member_00/{name}: .*{words}"):
        goes_on(blobs, begun)


@pytest.mark.parametrize("left", ["", '{"epoch": 1, "lo'])
def test_a_log_that_was_lost_or_cut_is_gone_on_with(blobs: Path, begun: Path, left: str) -> None:
    (begun / "member_00/log.jsonl").write_text(left)
    run = goes_on(blobs, begun)
    (row,) = (run.members[0] / "log.jsonl").read_text().splitlines()
    assert json.loads(row)["epoch"] == 2


def test_members_that_are_not_finished_are_told(begun: Path) -> None:
    kept = json.loads((begun / "config.json").read_text())
    (begun / "config.json").write_text(json.dumps(kept | {"members": 3}))
    (begun / "member_00/member.json").write_text("{}")
    with pytest.warns(DataWarning, match="run: only 1 of 3 members are finished and used"):
        load_ensemble(begun, device="cpu")


# --- the settings of a run --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("patch", [8, 8, 8], "patch must be 2 extents"),
        ("patch", [-8, 8], "patch.0 must be greater than or equal to 1, got -8"),
        ("patch", [10**6, 8], "patch.0 must be less than or equal to 65536, got 1000000"),
        ("patch", [60_000, 60_000], "patch must be 2 extents of at most 2147483648 voxels"),
        ("training", {"sampling": {"patch": None}}, r"patch must be None, as in training\.sampl"),
        ("network.dims", 3, "preprocessing.dims must be 3"),
        ("network.num_classes", 4, "network.num_classes must be 3, as the labels are, got 4"),
        ("network.in_channels", 2, "network.in_channels must be 1, as the channels are, got 2"),
        ("network.head", "bogus", "network.head must be 'softmax' or 'sigmoid', got 'bogus'"),
        ("network.head", None, "network.head must be"),
        ("network", [], "network must be a valid dictionary"),
        ("dataset.labels", {"background": "x"}, "dataset.labels.background must be"),
        ("dataset.labels", {"background": True}, "dataset.labels.background must be"),
        ("dataset.ignore_label", 2, "ignore_label must be no label of a class, got 2"),
        ("dataset.file_ending", "/etc/passwd", "dataset.file_ending: "),
        ("preprocessing.bogus", 1, "preprocessing.bogus is not known"),
        ("preprocessing.size", [0, 0], "preprocessing: size must be 2 positive numbers"),
        ("preprocessing.size", [10**6, 10**6], "preprocessing: size must have at most 2147483648"),
        ("preprocessing.slice_axis", 7, "preprocessing: slice_axis must be 0, 1 or 2, got 7"),
        ("preprocessing.percentiles", "ab", "preprocessing.percentiles must be"),
        ("preprocessing", "x", "preprocessing must be"),
        ("seed", -1, "seed must be greater than or equal to 0"),
        ("members", 10**9, "members must be less than or equal to 10000"),
    ],
)
def test_settings_of_a_run_are_checked_when_it_is_opened(
    tmp_path: Path, place: str, value: object, words: str
) -> None:
    write_run(tmp_path, members=1, patch=(8, 8))
    assert Run.open(tmp_path).patch == (8, 8)
    file = tmp_path / "config.json"
    content = json.loads(file.read_text())
    *outer, last = place.split(".")
    holder = content
    for name in outer:
        holder = holder[name]
    holder[last] = value
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"config\.json: .*{words}"):
        Run.open(tmp_path)


@pytest.mark.parametrize("missing", ["network", "dataset", "preprocessing", "loss"])
def test_a_setting_that_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    write_run(tmp_path, members=1)
    file = tmp_path / "config.json"
    content = json.loads(file.read_text())
    del content[missing]
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"config\.json: {missing} is missing"):
        Run.open(tmp_path)
