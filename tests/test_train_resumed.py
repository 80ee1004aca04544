"""Training that was interrupted: a killed or failed run loses nothing."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from blobs import TINY, same, train, weights, write_blobs

from fastcal.cli import main
from fastcal.models import Run


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
        pytest.param("vectorised", 2, [(0, 4)], marks=pytest.mark.slow),
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
        epochs = [
            json.loads(line)["epoch"] for line in (member / "log.jsonl").read_text().splitlines()
        ]
        assert epochs == [1, 2, 3]
    assert not list(folder.rglob(".tmp-*"))


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

    kept = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**kept, "training": {"loops": 1}}))
    assert main(command) == 2
    assert "config.json: does not hold the settings of a run" in capsys.readouterr().err


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
