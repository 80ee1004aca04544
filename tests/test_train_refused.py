"""Trainings that are refused, and errors that say what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from blobs import AFFINE, TINY, train, write_blobs

from fastcal.core.errors import DataError
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
    assert "blob_03.nii.gz: must hold labels of dataset.json, [0, 1, 2], got [7]" in message
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "vocal"}, "loss must be one of ce, dice.*, got 'vocal'"),
        ({"members": 0}, "members must be from 1 to 10000, got 0"),
        ({"jobs": 0}, "jobs must be at least 1, got 0"),
        ({"strategy": "fast"}, "strategy must be one of auto, sequential.*, got 'fast'"),
        ({"ddp": True}, "ddp must be False for a single process, got True"),
        (
            {"config": {"network.head": "sigmoid"}},
            "must be 'softmax' for the loss 'ce'",
        ),
        (
            {"config": {"loss.class_weights": [1.0, 2.0]}},
            "one number per class: 3, got 2",
        ),
        (
            {"config": {"network.colour": 1}},
            "arguments that UNet knows .*widths.*, got 'colour'",
        ),
        (
            {"config": {"loop.checkpointing": True}, "strategy": "vectorised"},
            "got 'vectorised': loop.checkpointing",
        ),
        ({"split": (9, 1, 0)}, "split must hold counts .* got 9, 1 and 0"),
        (
            {"split": {"train": ["blob_00"], "val": ["nobody"]}},
            "must name cases .* got nobody",
        ),
        (
            {"split": {"train": ["blob_00"], "val": ["blob_00"]}},
            "each case once, got blob_00",
        ),
        ({"split": (5, 0, 0)}, "at least one case to train on and one to validate on, got 5 and 0"),
    ],
)
def test_a_bad_argument_is_named(
    blobs: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    config = TINY.with_values(options.pop("config", {}))
    with pytest.raises(ValueError, match=message):
        train(blobs, tmp_path / "run", config, **options)
    assert not (tmp_path / "run" / "member_00" / "last.pt").exists()


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
