"""A member in training: its network, optimiser and course, and the files of its folder."""

from __future__ import annotations

import io
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastcal.core import atomic
from fastcal.core.doors import read_checkpoint, sealed, validated
from fastcal.core.doors.failures import words
from fastcal.core.errors import DataError
from fastcal.models import SegmentationNetwork, save_weights
from fastcal.models.run import FINISHED, LAST, WEIGHTS, epoch_weights
from fastcal.models.weights import read_weights
from fastcal.train.curves import draw_curves
from fastcal.train.optimiser import MovingAverage, build_optimiser
from fastcal.train.recipe import Recipe
from fastcal.train.schedule import Course, cycle_of, learning_rate


class Learner:
    """A member in training, which continues from its last checkpoint.

    Args:
        recipe: The recipe of the run.
        number: The number of the member; with snapshots, of the first member of this training.
        saved: Whether to read and write files; trials of speed do not.

    Raises:
        DataError: last.pt is damaged, or belongs to another network.
    """

    def __init__(self, recipe: Recipe, number: int, *, saved: bool = True) -> None:
        self.recipe = recipe
        self.number = number
        self.folder = recipe.member_folder(number)
        self.network = recipe.network(number)
        self.optimiser = build_optimiser(recipe.config.optimiser, self.network.parameters())
        ema = recipe.config.loop.ema
        self.average = None if ema is None else MovingAverage(self.network, ema)
        self.course = Course()
        if saved:
            self.folder.mkdir(parents=True, exist_ok=True)
            if recipe.team.writes:
                for torn in self.folder.glob(".tmp-*"):
                    torn.unlink(missing_ok=True)
            if os.path.lexists(self.folder / LAST):
                self._load()

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self.course.finished(self.recipe.config)

    @property
    def kept(self) -> SegmentationNetwork:
        """The network to validate and to keep, which is the moving average where there is one."""
        return self.network if self.average is None else self.average.network

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return learning_rate(self.recipe.config, self.course, self.recipe.iterations)

    @property
    def last_rate(self) -> float:
        """The learning rate of the previous step."""
        return float(self.optimiser.param_groups[0]["lr"])

    def update(self) -> None:
        """Take one step of the optimiser along the gradients in the parameters."""
        rate = self.rate
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        clip = self.recipe.config.optimiser.clip_norm
        if clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        self.optimiser.step()
        self.course.step += 1
        if self.average is not None:
            self.average.update(self.network, self.course.step)

    def end_epoch(self, dice: float, nll: float) -> bool:
        """Record an epoch, and keep the network if it is the best, ends a cycle, or is asked for.

        Args:
            dice: The validation Dice of the epoch.
            nll: Its negative log-likelihood on the validation cases.

        Returns:
            Whether the epoch is the best so far.
        """
        config = self.recipe.config
        best = self.course.end_epoch(dice, config, nll)
        if config.loop.snapshots:
            self._keep_snapshot()
        elif best:
            self._keep(self.folder / WEIGHTS)
        if self.course.epoch in config.loop.keep_epochs:
            self._keep(epoch_weights(self.folder, self.course.epoch))
        return best

    def save(self) -> None:
        """Write last.pt, which holds everything that later steps depend on."""
        if not self.recipe.team.writes:
            return
        checkpoint: dict[str, Any] = {
            "model": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "course": asdict(self.course),
        }
        if self.average is not None:
            checkpoint["average"] = self.average.network.state_dict()
        # Through memory, because on a full disk torch.save raises a RuntimeError about positions.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with atomic.atomic_path(self.folder / LAST) as temporary:
            temporary.write_bytes(sealed(content.getbuffer()))

    def finish(self) -> None:
        """Draw the curves, and write member.json, which marks the training as finished."""
        if not self.recipe.team.writes:
            return
        draw_curves(self.folder)
        course = self.course
        summary = {
            "epochs": course.epoch,
            "best_epoch": course.best_epoch,
            "best_val_dice": None if math.isinf(course.best_dice) else course.best_dice,
        }
        for offset in range(self.recipe.config.members_per_training):
            folder = self.recipe.member_folder(self.number + offset)
            atomic.write_json(folder / FINISHED, summary)

    def _keep_snapshot(self) -> None:
        config, done = self.recipe.config, self.course.epoch
        if cycle_of(done - 1, config)[1] == done:
            edges = {cycle_of(epoch, config)[1] for epoch in range(done)}
            folder = self.recipe.member_folder(self.number + len(edges) - 1)
            self._keep(folder / WEIGHTS)

    def _keep(self, file: Path) -> None:
        if not self.recipe.team.writes:
            return
        file.parent.mkdir(exist_ok=True)
        details = {"epoch": self.course.epoch, "val_dice": self.course.last_dice}
        save_weights(file, self.kept, details=details)

    def _load(self) -> None:
        """Go on from last.pt, if the best weights that it goes on from are there, too."""
        file = self.folder / LAST
        parts = {"model", "optimiser", "course"} | ({"average"} if self.average else set())
        saved = read_checkpoint(file, dict[str, dict[Any, Any]])
        if not parts <= set(saved):
            raise DataError(file, f"must hold {', '.join(sorted(parts))}, got {', '.join(saved)}")
        self.course = validated(file, saved["course"], Course, where="course")
        try:
            self.course.check(self.recipe.iterations)
            self.network.load_state_dict(saved["model"])
            self.optimiser.load_state_dict(saved["optimiser"])
            if self.average is not None:
                self.average.network.load_state_dict(saved["average"])
        except Exception as error:  # torch has no list of what it raises here
            reason = words(error)
            raise DataError(file, f"is not a checkpoint of this training ({reason})") from error
        for folder in self._kept_folders():
            self._check_kept(folder)

    def _kept_folders(self) -> list[Path]:
        """Folders into which the training so far has put weights."""
        config, done = self.recipe.config, self.course.epoch
        if not config.loop.snapshots:
            return [self.folder] if self.course.best_epoch else []
        ends = {cycle_of(epoch, config)[1] for epoch in range(done)}
        ended = [end for end in ends if end <= done]
        return [self.recipe.member_folder(self.number + n) for n in range(len(ended))]

    def _check_kept(self, folder: Path) -> None:
        """Refuse damaged weights, which the rest of the training may not replace."""
        try:
            weights = read_weights(folder / WEIGHTS)
            if not weights.describes(self.network):
                raise DataError(weights.path, "holds the weights of another network")
        except DataError as error:
            raise DataError(
                error.path,
                f"{error.problem}; {self.folder / LAST} goes on from a training whose best weights "
                f"were these: remove {self.folder} to train this member again",
            ) from error
