"""The training loop: steps, checkpoints, epochs, until every member of a group has finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from fastcal.data.prepared import PreparedCases
from fastcal.train import seeds
from fastcal.train.batches import Batch, BatchSource, prefetching
from fastcal.train.cases import Cases
from fastcal.train.engines import Engine
from fastcal.train.learner import Learner
from fastcal.train.log import EpochRow, MemberLog
from fastcal.train.memory import explained
from fastcal.train.validation import Validation, validate

# A loss is read, which waits for the device, once in so many steps on a GPU.
LOOK_EVERY = 50

OnEpoch = Callable[[str, EpochRow], None]


def train_members(
    learners: Sequence[Learner],
    cases: Cases,
    engine: Callable[[Sequence[Learner]], Engine],
    *,
    on_epoch: OnEpoch,
) -> None:
    """Train members side by side until each stops early or has had its epochs.

    After every epoch, and every ``loop.checkpoint_steps``, the whole state of each goes into its
    last.pt, and its best weights into best.safetensors; each file appears whole or not at all.
    Killed between any two instructions, a training that is started again repeats the steps since,
    and on a CPU ends with the same bits. Members that a kill left at different steps are trained
    in groups of equals.

    Raises:
        ValueError: a loss is NaN or infinite (the checkpoints from before stay), or memory ran out.
    """
    steps = sorted({learner.course.step for learner in learners})
    for step in steps:
        group = [learner for learner in learners if learner.course.step == step]
        logs = {
            learner: MemberLog(
                learner.folder,
                learner.course.epoch,
                tensorboard=learner.recipe.config.loop.tensorboard,
            )
            for learner in group
            if learner.recipe.team.writes
        }
        try:
            _train_equals(group, cases, engine, logs, on_epoch)
        finally:
            for log in logs.values():
                log.close()


def _train_equals(
    group: Sequence[Learner],
    cases: Cases,
    make_engine: Callable[[Sequence[Learner]], Engine],
    logs: dict[Learner, MemberLog],
    on_epoch: OnEpoch,
) -> None:
    recipe = group[0].recipe
    active = list(group)
    while True:
        for learner in active:
            if learner.finished:
                learner.finish()
        active = [learner for learner in active if not learner.finished]
        if not active:
            return
        with explained(recipe, len(active)):
            engine = make_engine(active)
            sources = [cases.source(recipe, learner.number) for learner in active]
            while not any(learner.finished for learner in active):
                start = time.perf_counter()
                losses = _epoch(engine, sources)
                scores = [_scores(learner, cases.val) for learner in active]
                rates = [learner.last_rate for learner in active]
                best = [
                    learner.end_epoch(score.dice)
                    for learner, score in zip(active, scores, strict=True)
                ]
                seconds = time.perf_counter() - start
                for number, learner in enumerate(active):
                    score = scores[number]
                    row = EpochRow(
                        epoch=learner.course.epoch,
                        loss=losses[number],
                        val_dice=score.dice,
                        val_dice_per_class=score.dice_per_class,
                        val_nll=score.nll,
                        val_ece=score.ece,
                        learning_rate=rates[number],
                        best=best[number],
                        seconds=round(seconds, 3),
                    )
                    if learner in logs:
                        logs[learner].append(row)
                    # last.pt last: a kill before it repeats the epoch, and forgets what it logged.
                    learner.save()
                    on_epoch(learner.folder.name, row)


def _epoch(engine: Engine, sources: Sequence[BatchSource]) -> list[float]:
    """Train to the end of the epoch under way; the members' mean losses over it."""
    learners = engine.learners
    recipe, course = learners[0].recipe, learners[0].course
    end = (course.epoch + 1) * recipe.iterations
    every = recipe.config.loop.checkpoint_steps
    watch = _Watch(learners, sources)
    for batches in _batches(sources, course.step, end):
        step = course.step
        # Of the member, the step, and the process that sees other images of the same batch.
        moment = step * recipe.team.world + recipe.team.rank
        torch.manual_seed(
            seeds.derived_seed(recipe.seed, learners[0].number, seeds.DROPOUT, moment)
        )
        watch.add(engine.losses(batches), step)
        for learner in learners:
            learner.update()
        if every is not None and course.step % every == 0 and course.step < end:
            watch.settle()
            for learner in learners:
                learner.save()
    watch.settle()
    return [learner.course.loss_sum / recipe.iterations for learner in learners]


def _batches(sources: Sequence[BatchSource], start: int, end: int) -> Iterator[tuple[Batch, ...]]:
    return zip(*(prefetching(source, range(start, end)) for source in sources), strict=True)


class _Watch:
    """Adds losses up where they are, and finds the first that is no number.

    On a GPU nothing is read until it has to be: what a batch held follows from its step.
    """

    def __init__(self, learners: Sequence[Learner], sources: Sequence[BatchSource]) -> None:
        self._learners = learners
        self._sources = sources
        device = learners[0].recipe.device
        self._look_every = 1 if device.type == "cpu" else LOOK_EVERY
        self._sums = torch.zeros(len(learners), dtype=torch.float64, device=device)
        self._bad = torch.full((len(learners),), -1, dtype=torch.int64, device=device)

    def add(self, losses: Tensor, step: int) -> None:
        first = (self._bad < 0) & ~losses.isfinite()
        self._bad = torch.where(first, step, self._bad)
        self._sums += losses
        if (step + 1) % self._look_every == 0:
            self._look()

    def settle(self) -> None:
        """Give every member the sum of its losses since the last time."""
        self._look()
        for learner, total in zip(self._learners, self._sums.tolist(), strict=True):
            learner.course.loss_sum += total
        self._sums.zero_()

    def _look(self) -> None:
        for learner, source, step in zip(
            self._learners, self._sources, self._bad.tolist(), strict=True
        ):
            if step >= 0:
                names = ", ".join(sorted(set(source.batch(step).cases)))
                raise ValueError(
                    f"{learner.folder.name}: the loss is not finite at step {step + 1} (epoch "
                    f"{step // learner.recipe.iterations + 1}); cases of the batch: {names}. The "
                    "checkpoint from before stays; lower optimiser.learning_rate, set "
                    "optimiser.clip_norm, or look at these cases"
                )


def _scores(learner: Learner, val: PreparedCases) -> Validation:
    """Rank 0's, since decisions must not differ between the ranks of a member."""
    recipe = learner.recipe
    return recipe.team.same(lambda: _validated(learner, val))


def _validated(learner: Learner, val: PreparedCases) -> Validation:
    recipe = learner.recipe
    return validate(
        learner.kept,
        val.names,
        val.images,
        val.labels,
        patch=recipe.patch,
        batch_size=recipe.config.sampling.batch_size,
        overlap=recipe.config.loop.overlap,
        ignore_label=recipe.ignore_label,
        autocast=recipe.autocast(),
    )
