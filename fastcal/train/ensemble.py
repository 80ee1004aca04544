"""Training an ensemble: members that differ by initialisation and data order alone."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastcal import atomic
from fastcal.data.dataset import Dataset
from fastcal.data.preprocess import Preprocessing
from fastcal.losses import PaperDiceLoss, WeightedCrossEntropy
from fastcal.models.device import choose_device
from fastcal.models.run import CONFIG, DATASET, FORMAT, LOG, SPLITS, Run
from fastcal.models.unet import Head, UNet
from fastcal.train.config import TrainConfig
from fastcal.train.log import EpochRow, read_log
from fastcal.train.member import Task, train_member
from fastcal.train.processes import train_in_processes
from fastcal.train.progress import TrainingProgress
from fastcal.train.slices import SliceSet, load_slices, plan_preprocessing
from fastcal.train.splits import Split, SplitSource, resolve_split

HEADS: dict[str, Head] = {"ce": "softmax", "dice": "sigmoid"}
"""Losses by name, and the head that goes with each in the paper."""


def train_ensemble(
    dataset: str | Path | Dataset,
    run: str | Path,
    *,
    loss: str = "ce",
    members: int = 5,
    seed: int = 0,
    config: TrainConfig | None = None,
    split: SplitSource | None = None,
    device: torch.device | str | None = None,
    jobs: int = 1,
    progress: bool = True,
) -> Run:
    """Train the members of an ensemble into a run folder.

    2-D networks on slices, as in the paper. A run folder that exists goes on where it was left:
    finished members stay, one that was killed resumes (to the same weights on a CPU with as many
    threads), and members beyond those that are there are added.

    Args:
        dataset: nnU-Net's raw layout, a folder or opened; labels, no regions.
        run: the folder to write.
        loss: ``"ce"`` (weighted cross entropy, softmax head) or ``"dice"`` (the paper's Dice loss,
            sigmoid head).
        members: how many there shall be.
        seed: of the ensemble; each member derives its own.
        config: every other setting.
        split: counts, names or a file; see `resolve_split`.
        device: None is the GPU if there is one.
        jobs: members trained at a time, each in a process with its share of the threads. A script
            that asks for more than one needs the guard ``if __name__ == "__main__":``.
        progress: report epochs to standard error.

    Raises:
        ValueError: a bad argument; a run folder with other settings (the message says which); a NaN
            loss (the message names the batch's cases).
        DataError: everything that is wrong with the files of any case, before training starts.

    Example:
        >>> run = train_ensemble("Dataset004_Hippocampus", "runs/ce", members=5)  # doctest: +SKIP
    """
    config = config or TrainConfig()
    if loss not in HEADS:
        raise ValueError(f"loss: got {loss!r}, expected 'ce' or 'dice'")
    if loss == "ce" and config.head == "sigmoid":
        raise ValueError("head: got 'sigmoid', but cross entropy needs 'softmax'")
    if members < 1:
        raise ValueError(f"members: got {members!r}, expected at least 1")
    if jobs < 1:
        raise ValueError(f"jobs: got {jobs!r}, expected at least 1")
    place = choose_device(device)
    opened = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
    if opened.regions is not None:
        raise ValueError(f"{opened.folder}: dataset.json has regions; training needs plain labels")
    if config.class_weights is not None and len(config.class_weights) != opened.num_classes:
        raise ValueError(
            f"class_weights: got {len(config.class_weights)}, expected one for each of the "
            f"{opened.num_classes} classes"
        )
    chosen = resolve_split(opened, split)
    folder = Path(run)
    settings = _settings(opened, loss, seed, config)
    existing = Run.open(folder) if (folder / CONFIG).exists() else None
    if existing is not None:
        _check_same(existing, settings, chosen)
    epochs = members * config.max_epochs - (0 if existing is None else _epochs_done(existing))
    with TrainingProgress(epochs=epochs, max_epochs=config.max_epochs, shown=progress) as report:
        if existing is not None and len(existing.members) >= members:
            report.say(f"{folder}: {len(existing.members)} members are trained, nothing to do")
            return existing
        report.say(f"{folder}: reading {len(chosen.train)} + {len(chosen.val)} cases")
        if existing is not None:
            preprocessing = existing.preprocessing
        else:
            preprocessing = plan_preprocessing([*chosen.train, *chosen.val], config)
        train = _resident(load_slices(opened, chosen.train, preprocessing), place)
        val = _resident(load_slices(opened, chosen.val, preprocessing), place)
        if existing is None:
            existing = _create(folder, settings, opened, chosen, preprocessing, place)
        tasks = [
            Task(
                number=number,
                folder=folder / f"member_{number:02d}",
                network=settings["network"],
                loss=_loss(loss, config, opened.ignore_label).to(place),
                config=config,
                seed=seed,
                device=place,
                ignore_label=opened.ignore_label,
            )
            for number in range(members)
        ]
        if jobs > 1:
            del train, val
            train_in_processes(
                tasks, opened.folder, chosen, preprocessing, jobs=jobs, report=report
            )
        else:
            for task in tasks:
                train_member(task, train, val, on_epoch=_Reporter(report, task))
                report.skip(config.max_epochs - len(read_log(task.folder)))
    return existing


class _Reporter:
    """Passes a member's epochs on to the progress report."""

    def __init__(self, report: TrainingProgress, task: Task) -> None:
        self._report = report
        self._member = task.folder.name

    def __call__(self, row: EpochRow) -> None:
        self._report.epoch(self._member, row)


def _loss(name: str, config: TrainConfig, ignore_label: int | None) -> nn.Module:
    if name == "ce":
        return WeightedCrossEntropy(weight=config.class_weights, ignore_index=ignore_label)
    return PaperDiceLoss(
        head=config.head or HEADS[name],
        weight=config.class_weights,
        eps=config.dice_eps,
        ignore_index=ignore_label,
    )


def _settings(dataset: Dataset, loss: str, seed: int, config: TrainConfig) -> dict[str, Any]:
    """What two trainings into one run folder must have in common."""
    network = UNet(
        len(dataset.channel_names),
        dataset.num_classes,
        widths=config.widths,
        dropout=config.dropout,
        norm=config.norm,
        head=config.head or HEADS[loss],
    )
    return {
        "loss": loss,
        "seed": seed,
        "dataset": {
            "name": dataset.name,
            "channel_names": dataset.channel_names,
            "labels": dataset.labels,
            "ignore_label": dataset.ignore_label,
            "file_ending": dataset.file_ending,
        },
        "network": network.arguments,
        "training": config.to_json(),
    }


def _check_same(existing: Run, settings: dict[str, Any], split: Split) -> None:
    asked = {**_flat(settings), **_flat({"split": split.names()})}
    there = {**_flat(existing.config), **_flat({"split": existing.split})}
    for name, value in asked.items():
        if there.get(name) != value:
            raise ValueError(
                f"{existing.path}: holds a run with another {name}: "
                f"{_short(there.get(name))} there, {_short(value)} asked for"
            )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name, tuples as JSON's lists."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _create(
    folder: Path,
    settings: dict[str, Any],
    dataset: Dataset,
    split: Split,
    preprocessing: Preprocessing,
    device: torch.device,
) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    description = (dataset.folder / DATASET).read_text(encoding="utf-8")
    atomic.write_text(folder / DATASET, description)
    atomic.write_json(folder / SPLITS, split.names())
    environment = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
    }
    atomic.write_json(
        folder / CONFIG,
        {
            "format": FORMAT,
            **settings,
            "preprocessing": preprocessing.to_json(),
            "environment": environment,
        },
    )
    return Run.open(folder)


def _epochs_done(run: Run) -> int:
    logs = [folder for folder in (*run.members, *run.unfinished) if (folder / LOG).exists()]
    return sum(len(read_log(folder)) for folder in logs)


def _resident(slices: SliceSet, device: torch.device) -> SliceSet:
    """On the GPU where it takes less than half of the free memory; batches are copied otherwise."""
    if device.type != "cuda":
        return slices
    free, _ = torch.cuda.mem_get_info(device)
    return slices.to(device) if slices.images.nbytes < free // 2 else slices
