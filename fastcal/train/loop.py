"""The training loop: steps, checkpoints and epochs until every member of a group is finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from fastcal.data.prepared import PreparedCases
from fastcal.train import seeds
from fastcal.train.batches import Batch, BatchSource
from fastcal.train.cases import RunCases
from fastcal.train.engines import Engine
from fastcal.train.learner import Learner
from fastcal.train.log import EpochRow, MemberLog
from fastcal.train.memory import explained
from fastcal.train.prefetch import prefetching
from fastcal.train.validation import Validation, validate

# Steps between two looks at the losses on a GPU; each look waits for the device.
LOOK_EVERY = 50

OnEpoch = Callable[[str, EpochRow], None]


def train_members(
    learners: Sequence[Learner],
    cases: RunCases,
    engine: Callable[[Sequence[Learner]], Engine],
    *,
    on_epoch: OnEpoch,
) -> None:
    """Train members side by side until each of them stops early or has had all its epochs.

    After every epoch, and every ``loop.checkpoint_steps`` steps, the whole state of a member goes
    into its last.pt. Its best weights go into best.safetensors. Each file appears whole or not at
    all. A training that was killed at any point repeats the steps since its last checkpoint when
    it is started again, and on a CPU its result is bit-identical. Members that a kill left at
    different steps are trained in groups that are at the same step.

    Args:
        learners: The members.
        cases: The cases to train on and to validate on.
        engine: `Alone` or `Together`.
        on_epoch: Called after every epoch with the name of the member and the row of its log.

    Raises:
        ValueError: A loss is NaN or infinite (earlier checkpoints stay), or memory ran out.
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
    cases: RunCases,
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
                    learner.end_epoch(score.dice, score.nll)
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
                    # last.pt comes last: a kill before it repeats the epoch and removes its row.
                    learner.save()
                    on_epoch(learner.folder.name, row)


def _epoch(engine: Engine, sources: Sequence[BatchSource]) -> list[float]:
    """Train to the end of the current epoch, and return the mean loss of each member over it."""
    learners = engine.learners
    recipe, course = learners[0].recipe, learners[0].course
    end = (course.epoch + 1) * recipe.iterations
    every = recipe.config.loop.checkpoint_steps
    watch = _Watch(learners, sources)
    for batches in _batches(sources, course.step, end):
        step = course.step
        # A moment of its own for each step and for each process, which sees its own images.
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
    """Adds up losses on their device, and finds the first one that is not finite.

    On a GPU, losses are read as rarely as possible. That is enough, because the cases of a batch
    follow from its step.
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
        """Add to every member's course the sum of its losses since the last call."""
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
                    "last checkpoint is kept; lower optimiser.learning_rate, set "
                    "optimiser.clip_norm, or look at these cases"
                )


def _scores(learner: Learner, val: PreparedCases) -> Validation:
    """Return the scores of the first process, so that all processes of a member decide alike."""
    recipe = learner.recipe
    return recipe.team.same(lambda: _validated(learner, val))


def _validated(learner: Learner, val: PreparedCases) -> Validation:
    recipe = learner.recipe
    return validate(
        learner.kept,
        val,
        patch=recipe.patch,
        batch_size=recipe.config.sampling.batch_size,
        overlap=recipe.config.loop.overlap,
        ignore_label=recipe.ignore_label,
        autocast=recipe.autocast(),
    )
