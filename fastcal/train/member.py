"""Training one member, from wherever its last checkpoint left it."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastcal import atomic
from fastcal.losses import WeightedCrossEntropy
from fastcal.models.run import BEST, FINISHED, LAST, read_checkpoint
from fastcal.models.unet import UNet
from fastcal.train import order
from fastcal.train.config import TrainConfig
from fastcal.train.curves import draw_curves
from fastcal.train.log import EpochRow, append_row, forget_later_epochs
from fastcal.train.slices import SliceSet
from fastcal.train.validation import validate


@dataclass(slots=True)
class Schedule:
    """What a training knows of its past: the plateau rule, early stopping, the best checkpoint."""

    learning_rate: float
    epoch: int = 0
    """Epochs done."""
    best_epoch: int = 0
    best_dice: float = -math.inf
    since_drop: int = 0
    """Epochs without a better Dice since the learning rate last fell."""

    def step(self, dice: float, config: TrainConfig) -> bool:
        """Count an epoch in; True where its Dice is the best so far."""
        self.epoch += 1
        # The first epoch counts even if its Dice is NaN: there must be a checkpoint.
        if dice > self.best_dice or self.best_epoch == 0:
            self.best_epoch, self.best_dice = self.epoch, -math.inf if math.isnan(dice) else dice
            self.since_drop = 0
            return True
        self.since_drop += 1
        if self.since_drop >= config.plateau_patience:
            self.learning_rate *= config.plateau_factor
            self.since_drop = 0
        return False

    def finished(self, config: TrainConfig) -> bool:
        stale = self.epoch - self.best_epoch
        return self.epoch >= config.max_epochs or stale >= config.early_stopping


@dataclass(frozen=True, slots=True)
class Task:
    """A member to train."""

    number: int
    folder: Path
    network: dict[str, Any]
    """Arguments of `UNet`."""
    loss: nn.Module
    config: TrainConfig
    seed: int
    device: torch.device
    ignore_label: int | None


def train_member(
    task: Task, train: SliceSet, val: SliceSet, *, on_epoch: Callable[[EpochRow], None]
) -> None:
    """Train a member until it stops early or has had its epochs; a finished one is left alone.

    After every epoch the whole state goes into last.pt, and into best.pt where the validation Dice
    is the best so far; each file appears whole or not at all. Killed between any two instructions,
    a training that is started again repeats at most one epoch, and on a CPU ends with the same
    bits.

    Raises:
        ValueError: the loss is NaN or infinite; the checkpoints of the last good epoch stay.
    """
    if (task.folder / FINISHED).exists():
        return
    task.folder.mkdir(parents=True, exist_ok=True)
    for torn in task.folder.glob(".tmp-*"):
        torn.unlink()
    config = task.config
    cuda = [task.device] if task.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(order.derived_seed(task.seed, task.number, order.INITIALISATION))
        model = UNet(**task.network)
        if isinstance(task.loss, WeightedCrossEntropy):
            start_from_frequencies(model, train.labels, task.loss.weight)
        model.to(task.device)
        # Missing from torch's annotations of Module.to.
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
        schedule = Schedule(config.learning_rate)
        if (task.folder / LAST).exists():
            saved = read_checkpoint(task.folder / LAST)
            model.load_state_dict(saved["model"])
            optimiser.load_state_dict(saved["optimiser"])
            schedule = Schedule(**saved["schedule"])
        forget_later_epochs(task.folder, schedule.epoch)
        while not schedule.finished(config):
            start = time.perf_counter()
            loss = _train_epoch(task, model, optimiser, schedule, train)
            scores = validate(
                model, val, batch_size=config.batch_size, ignore_label=task.ignore_label
            )
            learning_rate = schedule.learning_rate
            best = schedule.step(scores.dice, config)
            _save(task, model, optimiser, schedule, best)
            seconds = time.perf_counter() - start
            row = EpochRow(
                epoch=schedule.epoch,
                loss=loss,
                val_dice=scores.dice,
                val_dice_per_class=scores.dice_per_class,
                val_nll=scores.nll,
                learning_rate=learning_rate,
                best=best,
                seconds=round(seconds, 3),
            )
            append_row(task.folder, row)
            on_epoch(row)
    draw_curves(task.folder)
    atomic.write_json(
        task.folder / FINISHED,
        {
            "epochs": schedule.epoch,
            "best_epoch": schedule.best_epoch,
            "best_val_dice": schedule.best_dice,
        },
    )


@torch.no_grad()
def start_from_frequencies(model: UNet, labels: Tensor, weight: Tensor | None) -> None:
    """Let a softmax network begin at the (weighted) frequencies of the classes, by its last biases.

    From equal probabilities, cross entropy first makes every feature of the last layer one of the
    background, and foreground voxels can be left with none: a seed on hippocampus MRI called
    nothing foreground for 400 steps. From the frequencies, five of five seeds had a Dice above 0.5
    after 50 steps and above 0.8 after 200. The same idea as the prior of RetinaNet (Lin et al.,
    ICCV 2017).
    """
    counts = torch.bincount(labels.flatten(), minlength=model.num_classes)[: model.num_classes]
    frequencies = (counts.double().cpu() + 1) * (1.0 if weight is None else weight.cpu())
    bias = model.classifier.get_parameter("bias")
    # A class of weight 0 begins as rare as one voxel.
    bias.copy_((frequencies.clamp_min(1) / frequencies.sum()).log())


def _train_epoch(
    task: Task, model: UNet, optimiser: torch.optim.Adam, schedule: Schedule, train: SliceSet
) -> float:
    config = task.config
    epoch = schedule.epoch + 1
    for group in optimiser.param_groups:
        group["lr"] = schedule.learning_rate
    torch.manual_seed(order.derived_seed(task.seed, task.number, order.DROPOUT, epoch))
    generator = torch.Generator().manual_seed(
        order.derived_seed(task.seed, task.number, order.AUGMENTATION, epoch)
    )
    iterations = config.iterations_per_epoch or -(-len(train) // config.batch_size)
    model.train()
    total = 0.0
    for indices in order.batches(
        len(train),
        batch_size=config.batch_size,
        iterations=iterations,
        epoch=epoch,
        seed=task.seed,
        member=task.number,
    ):
        place = indices.to(train.images.device)
        images, labels = train.images[place], train.labels[place]
        if config.mirror or config.jitter:
            images, labels = order.augmented(
                images, labels, mirror=config.mirror, jitter=config.jitter, generator=generator
            )
        images = images.to(task.device, memory_format=torch.channels_last)
        loss = task.loss(model(images), labels.to(task.device))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ValueError(
                f"{task.folder.name}: the loss is {value} in epoch {epoch}; cases of the batch: "
                f"{', '.join(train.case_names(indices))}"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        total += value
    return total / iterations


def _save(
    task: Task, model: UNet, optimiser: torch.optim.Adam, schedule: Schedule, best: bool
) -> None:
    weights = model.state_dict()
    # last.pt last: a kill in between repeats this epoch and writes the same best.pt again.
    if best:
        _write(
            task.folder / BEST,
            {
                "network": model.arguments,
                "model": weights,
                "epoch": schedule.epoch,
                "val_dice": schedule.best_dice,
            },
        )
    _write(
        task.folder / LAST,
        {
            "model": weights,
            "optimiser": optimiser.state_dict(),
            "schedule": asdict(schedule),
        },
    )


def _write(path: Path, checkpoint: dict[str, Any]) -> None:
    # Through memory: on a full disk torch.save itself raises a RuntimeError about file positions.
    content = io.BytesIO()
    torch.save(checkpoint, content)
    with atomic.atomic_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())
