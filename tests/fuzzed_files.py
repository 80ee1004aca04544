"""Files that fastcal itself writes and reads again, for the fuzzer: what is behind the doors."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch

from fastcal import CalibrationStatistics, recalibrate
from fastcal.cli.settings import training_config
from fastcal.data import description
from fastcal.data.preprocess import Preprocessing
from fastcal.models import UNet, save_weights
from fastcal.models.run import Run
from fastcal.models.weights import read_weights
from fastcal.train import TrainConfig
from fastcal.train.log import EpochRow, read_log
from fastcal.train.strategy import Execution

DATASET_JSON = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "left": 1, "right": 2, "ignore": 3},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}
GROUPS = DATASET_JSON | {
    "labels": {"background": 0, "whole": [1, 2], "core": [2]},
    "regions_class_order": [1, 2],
}
CONFIG = {
    "format": 2,
    "loss": "ce",
    "seed": 0,
    "members": 2,
    "dataset": {
        "name": "data",
        "channel_names": ["MRI"],
        "labels": {"background": 0, "left": 1, "right": 2},
        "ignore_label": None,
        "file_ending": ".nii.gz",
    },
    "network": UNet(1, 3, widths=(4, 8)).spec,
    "preprocessing": Preprocessing(spacing=(1.0, 2.0), size=(8, 8)).to_json(),
    "patch": [8, 8],
    "training": TrainConfig().with_values({"sampling.patch": [8, 8]}).to_json(),
    "data": {"fingerprint": "0123"},
}
ROW = EpochRow(1, 0.5, 0.9, [0.9, 0.8], 0.1, 0.01, best=True, seconds=1.0, val_ece=0.02)
EXECUTION = Execution("sequential", False, {"sequential": 0.1}, "as asked for")


def encoded(*contents: object) -> list[bytes]:
    return [json.dumps(content).encode() for content in contents]


@cache
def written(write: Callable[[Path], object], name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def weights() -> bytes:
    torch.manual_seed(0)
    network = UNet(1, 2, widths=(2, 2))
    return written(lambda path: save_weights(path, network, details={"epoch": 3}), "w.safetensors")


def statistics(name: str) -> bytes:
    counted = CalibrationStatistics(2, 3, fine_bins=64)
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(2, 2, 9, generator=generator).softmax(1)
    counted.update(p, torch.randint(0, 2, (2, 9), generator=generator), case_id=["a", "b"])
    return written(lambda path: counted.save(path), name)


def calibrators() -> list[bytes]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 2, 200, generator=generator)
    target = (logits[:, 1] + torch.randn(1, 200, generator=generator) > logits[:, 0]).long()
    made: list[Any] = [
        recalibrate.TemperatureScaling(),
        recalibrate.VectorScaling(),
        recalibrate.HistogramBinning(n_bins=3),
        recalibrate.IsotonicRegression(),
    ]
    return encoded(
        *(
            {"format": "fastcal recalibration", "version": 1, **one.fit(logits, target).to_dict()}
            for one in made
        )
    )


def config_of(path: Path) -> Any:
    run = Run.open(path.parent)
    return (
        *(run.preprocessing, run.patch, run.labels, run.channel_names, run.ignore_label),
        *(run.head, run.dims, run.num_classes, run.file_ending, run.loss),
    )


def readers() -> dict[str, tuple[str, Callable[[Path], Any], list[bytes]]]:
    """Name: the end of the file's name, what reads it, and files that are read."""
    row = asdict(ROW) | {"val_nll": None}
    return {
        "config": ("/config.json", config_of, encoded(CONFIG)),
        "splits": (
            "/splits.json",
            lambda path: Run(path.parent, {}).split,
            encoded({"train": ["a"], "val": ["b"], "test": []}),
        ),
        "log": (
            "/log.jsonl",
            lambda path: read_log(path.parent),
            [b"\n".join([*encoded(row, row | {"epoch": 2}), b""])],
        ),
        "execution": (
            "/execution.json",
            lambda path: Execution.read(path.parent),
            encoded(asdict(EXECUTION)),
        ),
        "dataset": (".json", description.read, encoded(DATASET_JSON, GROUPS)),
        "calibrator": (".json", recalibrate.load, calibrators()),
        "statistics": (".npz", CalibrationStatistics.load, [statistics("s.npz")]),
        "statistics_json": (".json", CalibrationStatistics.load, [statistics("s.json")]),
        "weights": (".safetensors", read_weights, [weights()]),
        "settings": (
            ".yaml",
            lambda path: training_config(None, file=path),
            [b"network:\n  widths: [4, 8]\nloop: {max_epochs: 3}\nsampling: {patch: [8, 8]}\n"],
        ),
    }
