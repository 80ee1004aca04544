"""How long a step takes: what strategies and memory formats are chosen by."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from fastcal.train.cases import Cases
from fastcal.train.engines import Alone, Engine
from fastcal.train.learner import Learner
from fastcal.train.recipe import Recipe

WARMUP, STEPS = 1, 3
"""Steps that are not counted, and that are."""


def seconds_per_step(
    recipe: Recipe,
    cases: Cases,
    numbers: Sequence[int],
    engine: Callable[[Sequence[Learner]], Engine],
    *,
    before: Callable[[], object] | None = None,
) -> float:
    """Seconds that a step takes for each of some members, trained from their beginnings.

    Batches, gradients and the optimiser's step are in it; nothing is written. The fastest step
    counts: others were disturbed.

    Args:
        recipe: of the run.
        cases: whose batches.
        numbers: of the members that the engine trains together.
        engine: `Alone` or `Together`.
        before: called between warming up and counting.
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
            losses.tolist()  # waits for the device
            if devices:
                torch.cuda.synchronize(recipe.device)
            if step >= WARMUP:
                fastest = min(fastest, time.perf_counter() - start)
    return fastest / len(numbers)


def prefers_channels_last(recipe: Recipe, cases: Cases) -> bool:
    """Whether a member's steps are faster with channels last in memory, not compiled."""
    recipe = replace(recipe, config=recipe.config.with_values({"loop.compile": "off"}))
    seconds = {
        last: seconds_per_step(replace(recipe, channels_last=last), cases, [0], Alone)
        for last in (False, True)
    }
    return seconds[True] < seconds[False]
