"""Timing of training steps, by which strategies and memory formats are chosen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from fastcal.train.cases import RunCases
from fastcal.train.engines import Alone, Engine
from fastcal.train.learner import Learner
from fastcal.train.recipe import Recipe

WARMUP, STEPS = 1, 3
"""Steps that are not counted, and steps that are."""


def seconds_per_step(
    recipe: Recipe,
    cases: RunCases,
    numbers: Sequence[int],
    engine: Callable[[Sequence[Learner]], Engine],
    *,
    before: Callable[[], object] | None = None,
) -> float:
    """Measure the seconds per step and member, for members trained from the start.

    The time covers batches, gradients and the step of the optimiser. Nothing is written. The
    fastest step counts, because the others were disturbed.

    Args:
        recipe: The recipe of the run.
        cases: The cases to draw batches from.
        numbers: Numbers of the members that the engine trains together.
        engine: `Alone` or `Together`.
        before: Called between warming up and counting.
    """
    devices = [recipe.device] if recipe.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        learners = [Learner(recipe, number, saved=False) for number in numbers]
        made = engine(learners)
        sources = [cases.source(recipe, number) for number in numbers]
        fastest = float("inf")
        for step in range(WARMUP + STEPS):
            if step == WARMUP and before is not None:
                before()
            start = time.perf_counter()
            losses = made.losses([source.batch(step) for source in sources])
            for learner in learners:
                learner.update()
            losses.tolist()  # wait for the device
            if devices:
                torch.cuda.synchronize(recipe.device)
            if step >= WARMUP:
                fastest = min(fastest, time.perf_counter() - start)
    return fastest / len(numbers)


def prefers_channels_last(recipe: Recipe, cases: RunCases) -> bool:
    """Measure whether a member's steps are faster with channels last in memory, uncompiled."""
    recipe = replace(recipe, config=recipe.config.with_values({"loop.compile": "off"}))
    seconds = {
        last: seconds_per_step(replace(recipe, channels_last=last), cases, [0], Alone)
        for last in (False, True)
    }
    return seconds[True] < seconds[False]
