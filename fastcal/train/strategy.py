"""How the members of an ensemble share the hardware: in turn, together, or in processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from fastcal.core import atomic
from fastcal.core.doors import read_json
from fastcal.models.memory import is_out_of_memory
from fastcal.train.cases import CaseFolder, RunCases
from fastcal.train.engines import Alone, Together
from fastcal.train.processes import Workers, default_jobs
from fastcal.train.recipe import Recipe
from fastcal.train.team import Torchrun
from fastcal.train.timing import prefers_channels_last, seconds_per_step

Strategy = Literal["auto", "sequential", "vectorised", "processes"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

EXECUTION = "execution.json"
ONE_MEMBER = "one member to train"
# Below this many seconds of training, starting processes costs more than they save.
WORTH_PROCESSES = 60.0


@dataclass(frozen=True, slots=True)
class ExecutionRequest:
    """How the caller wants the members to be trained.

    Raises:
        ValueError: A field is out of range, or two of them do not go together.
    """

    strategy: Strategy
    jobs: int | None
    """The most members to train at the same time; None for as many as make sense."""
    ddp: bool
    """Train each member on all processes."""
    torchrun: Torchrun

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ValueError(
                f"strategy must be one of {', '.join(STRATEGIES)}, got {self.strategy!r}"
            )
        if self.jobs is not None and self.jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {self.jobs!r}")
        if self.ddp:
            self.torchrun.check_several()
        if self.ddp and self.strategy not in ("auto", "sequential"):
            raise ValueError(
                f"strategy must be 'auto' or 'sequential' with ddp, got {self.strategy!r}"
            )


@dataclass(frozen=True, slots=True)
class Execution:
    """How the members of a run are trained; kept in execution.json for when the run is resumed."""

    strategy: Strategy
    channels_last: bool
    seconds: dict[str, float | None]
    """Seconds per step and member of each strategy that was timed; None where memory ran out."""
    reason: str

    def write(self, run: Path) -> None:
        """Write execution.json into a run folder."""
        atomic.write_json(run / EXECUTION, asdict(self))

    @classmethod
    def read(cls, run: Path) -> Execution | None:
        """Read the earlier choice from a run folder; None where there is none."""
        if not (run / EXECUTION).exists():
            return None
        found: Execution = read_json(run / EXECUTION, cls)
        return found


def vectorisable(recipe: Recipe) -> str | None:
    """Return None if members can be trained together, else the reason why not."""
    if recipe.config.loop.checkpointing:
        return "loop.checkpointing recomputes the blocks of one network"
    return None


def decide(
    recipe: Recipe,
    cases: RunCases,
    where: CaseFolder,
    numbers: Sequence[int],
    request: ExecutionRequest,
) -> Execution:
    """Decide how to train; the first process decides for all of them, once per run.

    Args:
        recipe: The recipe of the run.
        cases: The cases of the run, loaded.
        where: The folder from which processes load them.
        numbers: Numbers of the members that are left to train.
        request: What the caller asked for.

    Raises:
        ValueError: The strategy asked for cannot train these members.
    """
    strategy = request.strategy
    before = Execution.read(recipe.folder)
    if before is not None and strategy in ("auto", before.strategy):
        # A single member left nothing to choose, but there are more now.
        open_still = strategy == "auto" and before.reason == ONE_MEMBER and len(numbers) > 1
        if request.torchrun.rank > 0 or not open_still:
            return replace(before, reason=f"as before ({before.reason})")
    if strategy == "vectorised" and (why_not := vectorisable(recipe)) is not None:
        raise ValueError(
            "strategy must be 'sequential', 'processes' or 'auto' here, got 'vectorised': "
            f"{why_not}"
        )
    wanted = recipe.config.loop.channels_last
    if before is not None:
        wanted = before.channels_last
    elif wanted == "auto":
        wanted = prefers_channels_last(recipe, cases)
    recipe = replace(recipe, channels_last=wanted)
    if strategy == "auto" and not request.ddp:
        execution = _fastest(recipe, cases, where, numbers, request)
    else:
        chosen: Strategy = "sequential" if request.ddp else strategy
        execution = Execution(chosen, wanted, {}, "as asked for")
    execution.write(recipe.folder)
    return execution


def _fastest(
    recipe: Recipe,
    cases: RunCases,
    where: CaseFolder,
    numbers: Sequence[int],
    request: ExecutionRequest,
) -> Execution:
    """Find the fastest strategy by timing a few steps of each that is possible; see `decide`."""
    jobs = request.jobs
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
    if request.torchrun.world == 1 and several > 1:
        if total < WORTH_PROCESSES:
            skipped = f"; at most {total:.0f} s in turn are too short to start processes for"
        else:
            with Workers(recipe, where, several) as workers:
                seconds["processes"] = _unless_out_of_memory(workers.seconds_per_step)
    timed = {name: value for name, value in seconds.items() if value is not None}
    fastest: Any = min(timed, key=timed.__getitem__)
    shown = ", ".join(
        f"{name} {'out of memory' if value is None else f'{value:.3g} s'}"
        for name, value in seconds.items()
    )
    reason = f"seconds per step and member: {shown}{skipped}"
    return Execution(fastest, recipe.channels_last, seconds, reason)


def _unless_out_of_memory(measure: Callable[[], float]) -> float | None:
    try:
        return measure()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
