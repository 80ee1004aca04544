"""Training an ensemble: what comes out, what is refused, and that a killed run loses nothing."""

from __future__ import annotations

import errno
import itertools
import json
import math
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from blobs import AFFINE, TINY, train, write_blobs
from torch import Tensor

import fastcal.train.curves
from fastcal.cli import main
from fastcal.core.errors import DataError
from fastcal.data.dataset import Dataset
from fastcal.data.preprocess import Preprocessing
from fastcal.models import Run, UNet, load_member
from fastcal.train import TrainConfig, resolve_split
from fastcal.train.log import read_log
from fastcal.train.progress import TrainingProgress
from fastcal.train.recipe import start_from_frequencies
from fastcal.train.schedule import Course, learning_rate
from fastcal.train.seeds import derived_seed
from fastcal.train.validation import validate


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small lose more to waking a second thread than it gives."""
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


def weights(member: Path) -> dict[str, Tensor]:
    return load_member(member).state_dict()


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


# --- what comes out


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


def test_a_line_an_epoch_reports_progress_off_a_terminal(
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
    assert "member_00: no curves.png, which needs matplotlib" in capsys.readouterr().err


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
        json.loads(line)["learning_rate"] for line in (run.path / "member_00/log.jsonl").open()
    ]
    assert rates[0] == rates[2] > rates[1] == rates[3]
    with pytest.raises(ValueError, match="members: got 3, expected a multiple of the schedule's 2"):
        train(blobs, run.path, config, members=3)


# --- killed and resumed

KILLED = """
import os, signal, sys
import torch
from fastcal.train import TrainConfig, train_ensemble

torch.set_num_threads(1)
steps, renames, replace = 0, 0, os.replace

def die_in_step(*arguments, **options):
    global steps
    steps += 1
    if steps == {steps}:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*arguments, **options)

def die_before_last(source, target):
    global renames
    renames += str(target).endswith("last.pt")
    if {renames} and renames == {renames}:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

step, torch.optim.Adam.step = torch.optim.Adam.step, die_in_step
os.replace = die_before_last
train_ensemble({blobs!r}, {run!r}, members={members}, seed=4, strategy={strategy!r},
               config=TrainConfig.from_json({config!r}), device="cpu", progress=False)
"""


@pytest.mark.parametrize(
    ("strategy", "members", "kills"),
    [
        # In the second epoch's fourth step, after a checkpoint within the epoch; then with the
        # best weights written and last.pt not yet in place.
        ("sequential", 1, [(8, 0), (0, 1)]),
        # With the first member's checkpoint in place and the second one's not.
        ("vectorised", 2, [(0, 4)]),
    ],
)
def test_a_run_killed_ends_with_the_bits_of_one_left_alone(
    blobs: Path, tmp_path: Path, strategy: str, members: int, kills: list[tuple[int, int]]
) -> None:
    config = TINY.with_values(
        {
            "network.dropout": 0.5 if members == 1 else 0.0,
            "augmentation": {"mirror": 0.5, "shift": 0.5},
            "loop": {"checkpoint_steps": 3, "ema": 0.9},
        }
    )
    folder = tmp_path / "killed"
    for steps, renames in kills:
        script = KILLED.format(
            steps=steps,
            renames=renames,
            blobs=str(blobs),
            run=str(folder),
            members=members,
            strategy=strategy,
            config=config.to_json(),
        )
        child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert child.returncode == -signal.SIGKILL, child.stderr
    run = Run.open(folder)
    assert run.members == []
    assert len(run.unfinished) == members

    options: dict[str, Any] = {"members": members, "seed": 4, "strategy": strategy}
    train(blobs, folder, config, **options)
    alone = train(blobs, tmp_path / "alone", config, **options)
    for member, expected in zip(run.members, alone.members, strict=True):
        found, wanted = (
            torch.load(path / "last.pt", weights_only=True) for path in (member, expected)
        )
        if members == 1:
            assert same(weights(member), weights(expected))
            assert same(found["model"], wanted["model"])
            assert same(found["average"], wanted["average"])
            assert found["course"] == wanted["course"]
        else:
            # Members at different steps resume in groups of their own: equal to rounding.
            for name, value in found["model"].items():
                torch.testing.assert_close(value, wanted["model"][name], rtol=1e-3, atol=1e-4)
        epochs = [json.loads(line)["epoch"] for line in (member / "log.jsonl").open()]
        assert epochs == [1, 2, 3]
    assert not list(folder.rglob(".tmp-*"))


# --- refused


def test_another_setting_in_an_existing_run_is_named(trained: Run, blobs: Path) -> None:
    folder = trained.path
    with pytest.raises(ValueError, match="another loss: 'ce' there, 'dice' asked for"):
        train(blobs, folder, loss="dice", members=2)
    other = TINY.with_values({"optimiser.learning_rate": 0.01})
    message = r"another training\.optimiser\.learning_rate: 0\.005 there, 0\.01"
    with pytest.raises(ValueError, match=message):
        train(blobs, folder, other, members=2)
    with pytest.raises(ValueError, match=r"another split\.train"):
        train(blobs, folder, members=2, split=(3, 2, 0))
    # The weights do not depend on where activations are kept.
    train(blobs, folder, TINY.with_values({"loop.checkpointing": True}), members=2)


def test_the_command_goes_on_with_the_settings_of_the_folder(
    trained: Run,
    blobs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    split = {"train": ["blob_00", "blob_02"], "val": ["blob_03"], "test": ["blob_01"]}
    shutil.copytree(trained.path, folder)
    for name, changes in (("config.json", {"seed": 4, "members": 3}), ("splits.json", split)):
        there = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(there | changes))
    command = ["train", "-d", str(blobs), "-o", str(folder), "--device", "cpu", "-q"]

    call: dict[str, Any] = {}
    with monkeypatch.context() as patched:
        patched.setattr(
            "fastcal.train.train_ensemble", lambda *_, **options: call.update(options) or trained
        )
        assert main(command) == 0
    asked = {name: call[name] for name in ("config", "loss", "seed", "members", "split", "fold")}
    given = {"config": TINY, "seed": 4, "members": 3, "split": split}
    assert asked == {**given, "loss": None, "fold": None}

    capsys.readouterr()
    for option, message in (
        ("--epochs 9", "another training.loop.max_epochs: 3 there, 9 asked for"),
        ("--set loop.ema=0.5", "another training.loop.ema: None there, 0.5 asked for"),
        ("--loss dice", "another loss: 'ce' there, 'dice' asked for"),
        ("--seed 0", "another seed: 4 there, 0 asked for"),
        ("--split 3,1,1", "another split.train: ['blob_00', 'blob_02'] there, ['blob_00', "),
        ("--preset standard", "'dice-ce' asked for"),
    ):
        assert main([*command, *option.split()]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert main([*command, "--epochs", "3", "--seed", "4", "--loss", "ce", "--members", "2"]) == 0
    assert Run.open(folder).config["members"] == 3, "fewer members asked for forget none"

    (folder / "config.json").write_text(json.dumps({"format": 2, "training": {"loops": 1}}))
    assert main(command) == 2
    assert "config.json: not the settings of a run" in capsys.readouterr().err


def test_a_run_of_other_images_or_of_an_older_version_is_refused(
    trained: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained.path, folder)
    other = write_blobs(tmp_path / "blobs", seed=1)
    with pytest.raises(ValueError, match=r"another data\.fingerprint"):
        train(other, folder, members=3)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "format": 1}))
    with pytest.raises(ValueError, match="a run of an older version of fastcal"):
        train(other, folder, members=3)


@pytest.mark.parametrize("strategy", ["sequential", "vectorised"])
def test_a_nan_loss_stops_with_the_names_of_the_cases(
    blobs: Path, tmp_path: Path, strategy: str
) -> None:
    config = TINY.with_values({"sampling.batch_size": 16, "loop.checkpoint_steps": 1})
    kwargs: dict[str, Any] = {"members": 2, "strategy": strategy}
    message = r"member_00: the loss is not finite at step 2 \(epoch 1\); .*blob_00.*blob_03"
    with pytest.raises(ValueError, match=message):
        train(
            blobs,
            tmp_path / "run",
            config.with_values({"optimiser.learning_rate": 1e38, "schedule.name": "poly"}),
            **kwargs,
        )
    kept = torch.load(tmp_path / "run/member_00/last.pt", weights_only=True)
    assert kept["course"]["step"] == 1


@pytest.mark.parametrize("full", ["last.pt", "best.safetensors"])
def test_a_full_disk_is_named_and_the_run_goes_on_to_the_same_bits(
    trained: Run, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    write, writes = Path.write_bytes, 0

    def write_until_full(path: Path, content: Any) -> int:
        nonlocal writes
        writes += path.name.endswith(full)
        if writes == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", write_until_full)
        with pytest.raises(OSError, match="No space left") as caught:
            train(blobs, tmp_path / "run", members=1)
    assert caught.value.filename == str(tmp_path / "run/member_00" / full)
    run = train(blobs, tmp_path / "run", members=1)
    assert same(weights(run.members[0]), weights(trained.members[0]))


def test_memory_that_runs_out_is_one_line_that_says_what_to_lower(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr("fastcal.train.engines.Alone.losses", full)
    with pytest.raises(ValueError, match=r"out of memory on cpu: lower sampling\.batch_size \(8\)"):
        train(blobs, tmp_path / "run", members=1)


def test_every_bad_case_is_listed_before_anything_is_written(tmp_path: Path) -> None:
    folder = write_blobs(tmp_path / "data")
    image = nib.load(folder / "imagesTr" / "blob_00_0000.nii.gz")
    data = np.asarray(image.dataobj).copy()
    data[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(data, AFFINE), folder / "imagesTr" / "blob_00_0000.nii.gz")
    (folder / "imagesTr" / "blob_02_0000.nii.gz").write_bytes(b"no gzip")
    label = np.full((14, 18, 4), 7, np.uint8)
    nib.save(nib.Nifti1Image(label, AFFINE), folder / "labelsTr" / "blob_03.nii.gz")
    with pytest.raises(DataError) as caught:
        train(folder, tmp_path / "run")
    message = str(caught.value)
    assert "3 problems" in message
    assert "blob_00_0000.nii.gz: " in message
    assert "NaN" in message
    assert "blob_02_0000.nii.gz" in message
    assert "blob_03.nii.gz: labels [7]" in message
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "vocal"}, "loss: got 'vocal', expected one of ce, dice"),
        ({"members": 0}, "members: got 0"),
        ({"jobs": 0}, "jobs: got 0"),
        ({"strategy": "fast"}, "strategy: got 'fast', expected one of auto, sequential"),
        ({"ddp": True}, "ddp: got one process, expected several"),
        ({"config": {"network.head": "sigmoid"}}, "the loss 'ce' needs 'softmax'"),
        ({"config": {"loss.class_weights": [1.0, 2.0]}}, "class_weights: got 2"),
        ({"config": {"network.colour": 1}}, "UNet has no argument colour"),
        (
            {"config": {"loop.checkpointing": True}, "strategy": "vectorised"},
            "got 'vectorised', but loop.checkpointing",
        ),
        ({"split": (9, 1, 0)}, "train, val, test: got 9, 1, 0"),
        ({"split": {"train": ["blob_00"], "val": ["nobody"]}}, "not in the dataset: nobody"),
        ({"split": {"train": ["blob_00"], "val": ["blob_00"]}}, "more than once: blob_00"),
        ({"split": (5, 0, 0)}, "at least one of each"),
    ],
)
def test_a_bad_argument_is_named(
    blobs: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    config = TINY.with_values(options.pop("config", {}))
    with pytest.raises(ValueError, match=message):
        train(blobs, tmp_path / "run", config, **options)
    assert not (tmp_path / "run" / "member_00" / "last.pt").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sampling.batch_size": 0}, "sampling.batch_size: got 0, expected greater than or equal"),
        ({"schedule.factor": 1.5}, r"schedule.factor: got 1\.5"),
        ({"epochs": 3}, r"no such setting: epochs; loop\.max_epochs is one"),
        ({"loop.epochs": 3}, r"no such setting: loop\.epochs; loop\.max_epochs is one"),
        ({"optimiser.lr": 3}, r"no such setting: optimiser\.lr; optimiser has name, learning_rate"),
        ({"loop.snapshots": True}, "got 'plateau', expected 'cyclic'"),
        ({"optimiser.name": "lion"}, "optimiser.name: got 'lion', expected 'adam', 'adamw' or"),
    ],
)
def test_a_bad_setting_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig().with_values(values)


def test_presets_survive_json_and_changes_begin_a_chosen_section_anew() -> None:
    config = TrainConfig.preset("standard", dims=3)
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert config.augmentation.active
    assert (config.loss.name, config.schedule.name, config.head) == ("dice-ce", "poly", "softmax")
    assert not config.with_values({"augmentation.preset": "none"}).augmentation.active
    other = config.with_values({"network": {"name": "BasicUNet"}})
    assert other.network == {"name": "BasicUNet"}
    assert TrainConfig().with_values({"loss.name": "dice"}).head == "sigmoid"


# --- the parts


def test_split_file_beside_the_dataset_is_honoured(tmp_path: Path) -> None:
    folder = write_blobs(tmp_path / "data", n_cases=3)
    parts = {"train": ["blob_02"], "val": ["blob_00"], "test": ["blob_01"]}
    (folder / "splits.json").write_text(json.dumps(parts))
    assert resolve_split(Dataset.open(folder)).names() == parts
    (folder / "splits.json").write_text('["blob_00"]')
    with pytest.raises(DataError, match=r"splits\.json: expected lists of case names"):
        resolve_split(Dataset.open(folder))


def test_every_purpose_of_every_member_has_a_seed_of_its_own() -> None:
    seeds = {derived_seed(0, *key) for key in itertools.product(range(4), repeat=3)}
    assert len(seeds) == 64


def test_the_plateau_rule_lowers_the_learning_rate_and_stops() -> None:
    config = TrainConfig().with_values(
        {
            "optimiser.learning_rate": 1.0,
            "schedule": {"patience": 2, "factor": 0.5},
            "loop.early_stopping": 5,
        }
    )
    course = Course()
    rates = []
    for dice in (0.5, 0.6, 0.6, 0.1, 0.2, 0.3):
        course.end_epoch(dice, config)
        rates.append(learning_rate(config, course, 10))
    assert rates == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25]
    assert (course.best_epoch, course.best_dice) == (2, 0.6)
    assert not course.finished(config)
    assert course.end_epoch(math.nan, config) is False
    assert course.finished(config)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"name": "poly", "power": 2.0}, lambda t: (1 - t / 40) ** 2),
        ({"name": "cosine", "floor": 0.1}, lambda t: 0.55 + 0.45 * math.cos(math.pi * t / 40)),
        (
            {"name": "cyclic", "cycles": 2},
            lambda t: 0.5 + 0.5 * math.cos(math.pi * (t % 20) / 20),
        ),
        ({"name": "plateau", "warmup": 8}, lambda t: min(1, (t + 1) / 8)),
    ],
)
def test_schedules_follow_their_formulas(
    schedule: dict[str, Any], expected: Callable[[int], float]
) -> None:
    config = TrainConfig().with_values(
        {"schedule": schedule, "optimiser.learning_rate": 1.0, "loop.max_epochs": 4}
    )
    for step in range(40):
        found = learning_rate(config, Course(step=step, epoch=step // 10), 10)
        assert found == pytest.approx(expected(step), rel=1e-12, abs=1e-15)


def test_cross_entropy_starts_from_the_weighted_frequencies_of_the_classes() -> None:
    model = UNet(1, 3, widths=(2, 4))
    start_from_frequencies(model, [6, 1, 0], [1.0, 2.0, 3.0])
    start = model.classifier.bias.softmax(0)
    torch.testing.assert_close(start, torch.tensor([7.0, 4.0, 3.0]) / 14)


def test_validation_equals_the_formulas_on_all_slices_at_once(trained: Run) -> None:
    torch.manual_seed(0)
    model = load_member(trained.members[0])
    images, labels = torch.rand(5, 1, 14, 18), torch.randint(0, 4, (5, 14, 18), dtype=torch.uint8)
    parts = (slice(0, 2), slice(2, 5))
    scores = validate(
        model,
        ["a", "b"],
        [images[part] for part in parts],
        [labels[part] for part in parts],
        patch=None,
        batch_size=2,
        ignore_label=3,
    )
    logits, kept = model(images).detach(), labels != 3
    target = (labels * kept).long()
    nll = -logits.log_softmax(1).gather(1, target[:, None])[:, 0][kept].mean()
    assert scores.nll == pytest.approx(nll.item(), rel=1e-5)
    for k in range(3):
        predicted, reference = (logits.argmax(1) == k) & kept, labels == k
        dice = [
            2 * (predicted[s] & reference[s]).sum() / (predicted[s].sum() + reference[s].sum())
            for s in parts
        ]
        assert scores.dice_per_class[k] == pytest.approx(float(sum(dice)) / 2, rel=1e-6)
    assert scores.dice == pytest.approx(sum(scores.dice_per_class[1:]) / 2, rel=1e-12)
    confidence, label = logits.softmax(1).max(1)
    sure, right = confidence[kept].double(), (label == target)[kept].double()
    bins = (sure * 15).ceil().long() - 1
    gaps = [(sure - right)[bins == b].sum().abs() for b in range(15)]
    assert scores.ece == pytest.approx(float(sum(gaps)) / int(kept.sum()), rel=1e-5)


def test_on_a_terminal_messages_stay_above_the_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with TrainingProgress(epochs=2, max_epochs=2) as progress:
        progress.say("run: [vectorised]; as asked for")
    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert any(line.endswith("run: [vectorised]; as asked for") for line in lines)
