"""The course of a training: its progress, its learning rate and its best checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from fastcal.train.config import TrainConfig


@dataclass(slots=True)
class Course:
    """What a training knows of its past, which goes into every checkpoint."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    step: int = 0
    """Steps done."""
    epoch: int = 0
    """Epochs done."""
    loss_sum: float = 0.0
    """Sum over the steps of the current epoch."""
    best_epoch: int = 0
    best_dice: float = -math.inf
    """-inf where the best epoch has none."""
    best_nll: float = math.inf
    """Of the best epoch."""
    last_dice: float = math.nan
    since_drop: int = 0
    """Epochs without a better Dice since the plateau rule last lowered the learning rate."""
    drop: float = 1.0
    """Factor by which the plateau rule has lowered the learning rate so far."""

    def check(self, iterations: int) -> None:
        """Refuse a past that no training has.

        Args:
            iterations: Steps per epoch.

        Raises:
            ValueError: The numbers contradict each other.
        """
        first = self.epoch * iterations
        if not (self.epoch >= 0 and first <= self.step < first + iterations):
            raise ValueError(
                f"step must be one of epoch {self.epoch + 1}, of {iterations} steps each, got "
                f"{self.step}"
            )
        if not 0 <= self.best_epoch <= self.epoch or self.best_dice > 1:
            raise ValueError(
                f"the best epoch must be one of {self.epoch} with a Dice of at most 1, got "
                f"{self.best_epoch} with {self.best_dice}"
            )
        if not (math.isfinite(self.loss_sum) and 0 <= self.drop <= 1 and self.since_drop >= 0):
            raise ValueError(
                "loss_sum, drop and since_drop must be finite, in [0, 1] and at least 0, got "
                f"{self.loss_sum}, {self.drop} and {self.since_drop}"
            )

    def end_epoch(self, dice: float, config: TrainConfig, nll: float = math.nan) -> bool:
        """Record an epoch, and return whether it is the best so far.

        The best epoch has the largest Dice. The Dice is NaN where no validation case has foreground
        and none was predicted, which is better than 0, the Dice of invented foreground. Among such
        epochs the one with the lowest negative log-likelihood is the best.

        Args:
            dice: The validation Dice of the epoch.
            config: The settings.
            nll: Its negative log-likelihood on the validation cases.
        """
        self.epoch += 1
        self.loss_sum, self.last_dice = 0.0, dice
        if self._improves(dice, nll):
            self.best_epoch, self.best_dice = self.epoch, -math.inf if math.isnan(dice) else dice
            self.best_nll = nll
            self.since_drop = 0
            return True
        self.since_drop += 1
        if self.since_drop >= config.schedule.patience:
            self.drop *= config.schedule.factor
            self.since_drop = 0
        return False

    def _improves(self, dice: float, nll: float) -> bool:
        if self.best_epoch == 0:  # there must be a checkpoint
            return True
        best_is_empty = math.isinf(self.best_dice)
        if math.isnan(dice):
            return nll < self.best_nll if best_is_empty else self.best_dice == 0
        return dice > (0 if best_is_empty else self.best_dice)

    def finished(self, config: TrainConfig) -> bool:
        """Whether the training has had all its epochs, or stops early."""
        loop = config.loop
        # Snapshots need whole cycles, so nothing stops early.
        patience = None if loop.snapshots else loop.early_stopping
        stale = patience is not None and self.epoch - self.best_epoch >= patience
        return stale or self.epoch >= loop.max_epochs


def learning_rate(config: TrainConfig, course: Course, iterations: int) -> float:
    """Return the learning rate of the next step.

    Args:
        config: The settings.
        course: The course so far, with the steps done and the factor of the plateau rule.
        iterations: Steps per epoch.

    Example:
        >>> config = TrainConfig().with_values({"schedule.name": "poly", "loop.max_epochs": 4})
        >>> round(learning_rate(config, Course(step=20), iterations=10), 6)  # 0.005 * 0.5^0.9
        0.002679
    """
    schedule = config.schedule
    steps = config.loop.max_epochs * iterations
    passed = min(course.step / steps, 1.0)
    match schedule.name:
        case "plateau":
            share = course.drop
        case "poly":
            share = (1 - passed) ** schedule.power
        case "cosine":
            share = _half_cosine(passed, schedule.floor)
        case "cyclic":
            # Cycles are whole epochs, so that a snapshot is taken where the rate is lowest.
            first, end = cycle_of(course.step // iterations, config)
            share = _half_cosine(
                (course.step - first * iterations) / ((end - first) * iterations), schedule.floor
            )
    warm = min(1.0, (course.step + 1) / schedule.warmup) if schedule.warmup else 1.0
    return config.optimiser.learning_rate * share * warm


def cycle_of(epoch: int, config: TrainConfig) -> tuple[int, int]:
    """Return the first epoch of the cycle of an epoch (counted from 0), and of the next cycle."""
    total, cycles = config.loop.max_epochs, config.schedule.cycles
    edges = [round(number * total / cycles) for number in range(cycles + 1)]
    number = max(n for n in range(cycles) if edges[n] <= min(epoch, total - 1))
    return edges[number], edges[number + 1]


def _half_cosine(passed: float, floor: float) -> float:
    return floor + (1 - floor) * (1 + math.cos(math.pi * passed)) / 2
