"""In turn, together, or in processes: how the members of an ensemble share the hardware."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from fastcal.core import atomic
from fastcal.models.memory import is_out_of_memory
from fastcal.models.run import read_json
from fastcal.train.cases import CaseFolder, Cases
from fastcal.train.engines import Alone, Together
from fastcal.train.processes import Workers, default_jobs
from fastcal.train.recipe import Recipe
from fastcal.train.team import Launch
from fastcal.train.timing import prefers_channels_last, seconds_per_step

Strategy = Literal["auto", "sequential", "vectorised", "processes"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

EXECUTION = "execution.json"
ONE_MEMBER = "one member to train"
# Below this many seconds of training, starting processes costs more than they save.
WORTH_PROCESSES = 60.0


@dataclass(frozen=True, slots=True)
class Execution:
    """How a run's members are trained; kept in execution.json, so that a resumed run goes on so."""

    strategy: Strategy
    channels_last: bool
    seconds: dict[str, float | None]
    """Of a step and member, by strategy: what was timed; None where memory did not suffice."""
    reason: str

    def write(self, run: Path) -> None:
        atomic.write_json(run / EXECUTION, asdict(self))

    @classmethod
    def read(cls, run: Path) -> Execution | None:
        """What was chosen before, if it was."""
        if not (run / EXECUTION).exists():
            return None
        return cls(**read_json(run / EXECUTION))


def vectorisable(recipe: Recipe) -> str | None:
    """Why members cannot be trained together; None where they can."""
    if recipe.config.loop.checkpointing:
        return "loop.checkpointing computes one network's blocks again"
    return None


def decide(
    recipe: Recipe,
    cases: Cases,
    where: CaseFolder,
    numbers: Sequence[int],
    strategy: Strategy,
    jobs: int | None,
    launch: Launch,
    ddp: bool,
) -> Execution:
    """How to train, asked for or chosen; the first process decides for all, once for a run."""
    before = Execution.read(recipe.folder)
    if before is not None and strategy in ("auto", before.strategy):
        # One member left nothing to choose; more have come since.
        open_still = strategy == "auto" and before.reason == ONE_MEMBER and len(numbers) > 1
        if launch.rank > 0 or not open_still:
            return replace(before, reason=f"as before ({before.reason})")
    if strategy == "vectorised" and (why_not := vectorisable(recipe)) is not None:
        raise ValueError(f"strategy: got 'vectorised', but {why_not}")
    wanted = recipe.config.loop.channels_last
    if before is not None:
        wanted = before.channels_last
    elif wanted == "auto":
        wanted = prefers_channels_last(recipe, cases)
    recipe = replace(recipe, channels_last=wanted)
    if strategy == "auto" and not ddp:
        execution = _fastest(recipe, cases, where, numbers, jobs=jobs, processes=launch.world == 1)
    else:
        chosen: Strategy = "sequential" if ddp else strategy
        execution = Execution(chosen, wanted, {}, "as asked for")
    execution.write(recipe.folder)
    return execution


def _fastest(
    recipe: Recipe,
    cases: Cases,
    folder: CaseFolder,
    numbers: Sequence[int],
    *,
    jobs: int | None,
    processes: bool = True,
) -> Execution:
    """The fastest strategy for some members, from a few steps of each that is possible.

    Args:
        recipe: of the run.
        cases: of the run, loaded.
        folder: from which processes load them.
        numbers: of the members.
        jobs: members at a time, at most; None: all that make sense.
        processes: whether starting processes is allowed.
    """
    seconds: dict[str, float | None] = {}
    if len(numbers) == 1:
        return Execution("sequential", recipe.channels_last, seconds, ONE_MEMBER)
    alone = seconds_per_step(recipe, cases, numbers[:1], Alone)
    seconds["sequential"] = alone
    if vectorisable(recipe) is None:
        group = numbers[: jobs or len(numbers)]
        seconds["vectorised"] = _unless_out_of_memory(
            lambda: seconds_per_step(recipe, cases, group, Together)
        )
    total = alone * recipe.config.loop.max_epochs * recipe.iterations * len(numbers)
    several = min(len(numbers), jobs or default_jobs(recipe.device))
    skipped = ""
    if processes and several > 1:
        if total < WORTH_PROCESSES:
            skipped = f"; {total:.0f} s in turn at most are too short to start processes for"
        else:
            with Workers(recipe, folder, several) as workers:
                seconds["processes"] = _unless_out_of_memory(workers.seconds_per_step)
    timed = {name: value for name, value in seconds.items() if value is not None}
    fastest: Any = min(timed, key=timed.__getitem__)
    shown = ", ".join(
        f"{name} {'out of memory' if value is None else f'{value:.3g} s'}"
        for name, value in seconds.items()
    )
    reason = f"seconds of a step and member: {shown}{skipped}"
    return Execution(fastest, recipe.channels_last, seconds, reason)


def _unless_out_of_memory(measure: Callable[[], float]) -> float | None:
    try:
        return measure()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
