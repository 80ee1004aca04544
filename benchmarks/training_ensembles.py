"""Ensembles trained in turn, together, in processes and by a plain script, on the same batches."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Barrier
from typing import Any

import torch

from benchmarks.harness import WrongResult
from benchmarks.training_workloads import Workload, source, synchronise, synthetic_cases
from fastcal.train.batches import Batch
from fastcal.train.engines import Alone, Engine, Together
from fastcal.train.learner import Learner
from fastcal.train.recipe import Recipe


@dataclass
class Way:
    """Seconds per step and member of every round, and the losses of the last one."""

    name: str
    seconds: list[float]
    losses: list[list[float]]


def made_batches(workload: Workload, recipe: Recipe, members: int, steps: int) -> list[list[Batch]]:
    """Draw the batches of every member before anything is timed."""
    cases = synthetic_cases(workload, recipe.device)
    return [
        [source(workload, recipe, cases, member).batch(step) for step in range(steps)]
        for member in range(members)
    ]


Round = tuple[float, list[list[float]]]
"""Seconds per step and member, and the losses of every member."""


def by_engine(
    recipe: Recipe,
    given: list[list[Batch]],
    make: Callable[[Sequence[Learner]], Engine],
    size: int,
) -> Round:
    """Train by an engine of fastcal, with members in groups of ``size``."""
    spent, losses = 0.0, []
    members, steps = len(given), len(given[0])
    for start in range(0, members, size):
        numbers = range(start, min(start + size, members))
        learners = [Learner(recipe, number, saved=False) for number in numbers]
        engine = make(learners)
        found = []
        for step in range(steps):
            if step == 1:  # the first step warms up
                synchronise(recipe.device)
                before = time.perf_counter()
            found.append(engine.losses([given[number][step] for number in numbers]))
            for learner in learners:
                learner.update()
        synchronise(recipe.device)
        spent += time.perf_counter() - before
        losses += torch.stack(found).T.tolist()
    return spent / (steps - 1) / members, losses


def by_plain_script(recipe: Recipe, given: list[list[Batch]]) -> Round:
    """Train as a user of MONAI would: with its loss and torch's optimiser on the same network."""
    from monai.losses import DiceCELoss

    spent, losses = 0.0, []
    for number, batches in enumerate(given):
        network = recipe.network(number).train()
        loss_function = DiceCELoss(softmax=True, to_onehot_y=True)
        rate = recipe.config.optimiser.learning_rate
        optimiser = torch.optim.Adam(network.parameters(), lr=rate)
        found = []
        for step, batch in enumerate(batches):
            if step == 1:
                synchronise(recipe.device)
                before = time.perf_counter()
            optimiser.zero_grad()
            with recipe.autocast():
                logits = network(batch.images)
            loss = loss_function(logits.float(), batch.labels[:, None])
            loss.backward()
            optimiser.step()
            found.append(loss.item())
        synchronise(recipe.device)
        spent += time.perf_counter() - before
        losses.append(found)
    return spent / (len(given[0]) - 1) / len(given), losses


def interleaved(ways: dict[str, Callable[[], Round]], rounds: int) -> list[Way]:
    """Run every way once per round, in rotating order."""
    found = {name: Way(name, [], []) for name in ways}
    names = list(ways)
    for number in range(rounds):
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            seconds, losses = ways[name]()
            found[name].seconds.append(seconds)
            found[name].losses = losses
    return list(found.values())


def by_processes(recipe: Recipe, given: list[list[Batch]], jobs: int, rounds: int) -> Way:
    """Share out the members to processes, on shares of the threads or on the one GPU."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(jobs), context.Queue()
    threads = max(1, torch.get_num_threads() // jobs)
    moved = [[_moved(batch, torch.device("cpu")) for batch in batches] for batches in given]
    workers = [
        context.Process(
            target=_work, args=(job, jobs, recipe, moved, threads, rounds, barrier, results)
        )
        for job in range(jobs)
    ]
    for worker in workers:
        worker.start()
    parts = [results.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    losses = {number: found for _, part in parts for number, found in part.items()}
    # A round lasts as long as its slowest process.
    spans = [max(spent) for spent in zip(*(seconds for seconds, _ in parts), strict=True)]
    steps = len(given[0]) - 1
    return Way(
        f"processes x {jobs}",
        [span / steps / len(given) for span in spans],
        [losses[number] for number in range(len(given))],
    )


def _work(
    job: int,
    jobs: int,
    recipe: Recipe,
    given: list[list[Batch]],
    threads: int,
    rounds: int,
    barrier: Barrier,
    results: Any,
) -> None:
    torch.set_num_threads(threads)
    mine = list(range(job, len(given), jobs))
    batches = [[_moved(batch, recipe.device) for batch in given[number]] for number in mine]
    seconds, losses = [], {}
    for _ in range(rounds):
        learners = [Learner(recipe, number, saved=False) for number in mine]
        engines = [Alone([learner]) for learner in learners]
        spent = 0.0
        for place, (learner, engine) in enumerate(zip(learners, engines, strict=True)):
            found = []
            for step, batch in enumerate(batches[place]):
                if step == 1:
                    synchronise(recipe.device)
                    if place == 0:
                        barrier.wait(timeout=600)
                    before = time.perf_counter()
                found.append(engine.losses([batch]))
                learner.update()
            synchronise(recipe.device)
            spent += time.perf_counter() - before
            losses[learner.number] = torch.cat(found).tolist()
        seconds.append(spent)
    results.put((seconds, losses))


def _moved(batch: Batch, device: torch.device) -> Batch:
    return Batch(batch.images.to(device), batch.labels.to(device), batch.cases)


FIRST_STEP, LATER_STEPS = 1e-5, 3e-2
"""Relative differences of float32 losses that are due to rounding. Adam divides a gradient by its
own size, so that from the second step on, the rounding errors of gradients near zero move weights.
Ways that differ only in memory format differ by up to a percent within four steps."""


def check_losses(ways: Sequence[Way], first: float) -> float:
    """Return the largest relative difference from the losses of the first way.

    Args:
        ways: All ways.
        first: Difference that is allowed at the first step; at later ones it is `LATER_STEPS`.

    Raises:
        WrongResult: A difference is larger than allowed, so that no time may be printed.
    """
    wanted = torch.tensor(ways[0].losses, dtype=torch.float64)
    allowed = torch.full_like(wanted, LATER_STEPS)
    allowed[:, 0] = first
    largest = 0.0
    for way in ways[1:]:
        found = torch.tensor(way.losses, dtype=torch.float64)
        error = (found - wanted).abs() / wanted.abs()
        if not bool((error <= allowed).all()):
            at_first, at_most = float(error[:, 0].max()), float(error.max())
            raise WrongResult(
                f"{way.name}: losses differ from those of {ways[0].name} by {at_first:.2g} at the "
                f"first step, and by up to {at_most:.2g} later"
            )
        largest = max(largest, float(error.max()))
    return largest


def ensembles(
    workload: Workload,
    device: torch.device,
    *,
    members: int,
    steps: int,
    rounds: int,
    jobs: int,
    compiled: bool,
) -> dict[str, Any]:
    """Measure seconds per step and member by strategy."""
    recipe = workload.recipe(device, **{"loop.max_epochs": 1000})
    recipe = replace(recipe, channels_last=True)
    given = made_batches(workload, recipe, members, steps)
    ways: dict[str, Callable[[], Round]] = {
        "sequential": lambda: by_engine(recipe, given, Alone, 1),
        "vectorised": lambda: by_engine(recipe, given, Together, members),
        "plain MONAI script": lambda: by_plain_script(recipe, given),
    }
    if compiled:
        graphs = workload.recipe(device, **{"loop.compile": "reduce-overhead"})
        graphs = replace(graphs, channels_last=True)
        ways["sequential, CUDA graphs"] = lambda: by_engine(graphs, given, Alone, 1)
        ways["vectorised, CUDA graphs"] = lambda: by_engine(graphs, given, Together, members)
    found = interleaved(ways, rounds)
    if jobs > 1:
        found.append(by_processes(recipe, given, jobs, rounds))
    largest = check_losses(found, LATER_STEPS if recipe.bf16 else FIRST_STEP)
    base = statistics.median(found[0].seconds)
    return {
        "workload": f"{members} members, {workload.name}, {workload.preset}",
        "precision": "bf16" if recipe.bf16 else "float32",
        "largest_difference_of_losses": largest,
        "ways": [
            {
                "name": way.name,
                "milliseconds_per_step_and_member": 1e3 * statistics.median(way.seconds),
                "times_sequential": base / statistics.median(way.seconds),
                "seconds": way.seconds,
            }
            for way in found
        ],
    }
