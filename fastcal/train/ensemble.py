"""Training of an ensemble, whose members differ only by initialisation and order of the data."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from fastcal.core.doors import bounded
from fastcal.core.errors import DataError
from fastcal.core.lock import sole_use
from fastcal.data.dataset import Dataset
from fastcal.models import choose_device
from fastcal.models.run import CONFIG, DATASET, FINISHED, LOG, Run
from fastcal.models.run_schema import MOST_MEMBERS
from fastcal.train import folder as run_folder
from fastcal.train.cases import CaseFolder, RunCases
from fastcal.train.config import TrainConfig
from fastcal.train.engines import Alone, Together
from fastcal.train.learner import Learner
from fastcal.train.log import read_log
from fastcal.train.loop import train_members
from fastcal.train.processes import Workers, default_jobs
from fastcal.train.progress import TrainingProgress
from fastcal.train.recipe import Recipe, configured_loss
from fastcal.train.settle import (
    run_network,
    run_recipe,
    run_settings,
    settled_preprocessing,
)
from fastcal.train.splits import SplitSource, resolve_split
from fastcal.train.strategy import EXECUTION, ExecutionRequest, Strategy, decide
from fastcal.train.team import Torchrun, team_of

PREPARED = "prepared"
# Seconds that the other processes under torchrun wait for the first one to prepare the run.
PATIENCE = 24 * 3600.0


def train_ensemble(
    dataset: str | Path | Dataset,
    run: str | Path,
    *,
    loss: str | None = None,
    members: int = run_folder.MEMBERS,
    seed: int = 0,
    config: TrainConfig | None = None,
    split: SplitSource | None = None,
    fold: int | None = None,
    device: torch.device | str | None = None,
    strategy: Strategy = "auto",
    jobs: int | None = None,
    ddp: bool = False,
    prepared: str | Path | None = None,
    progress: bool = True,
) -> Run:
    """Train the members of an ensemble into a run folder.

    An existing run folder is continued: finished members stay, interrupted members resume, and
    missing members are added. On a CPU, a resumed member ends with the same weights as without
    the interruption, provided the number of threads is the same. Under ``torchrun`` the processes
    share the members and work independently of each other.

    Args:
        dataset: A dataset in nnU-Net's raw layout, as a folder or opened. It must have plain
            labels, not label groups (nnU-Net's regions).
        run: The folder to write.
        loss: A loss in place of ``config.loss.name``: ``"ce"``, ``"dice"`` (the paper's, with a
            sigmoid head), ``"dice-ce"``, or another that `fastcal.losses.build_loss` knows.
        members: Members of the ensemble; with snapshots, a multiple of the schedule's cycles.
        seed: The seed of the ensemble, from which each member derives its own.
        config: Every other setting.
        split: Counts, names or a file; see `resolve_split`.
        fold: A fold of nnU-Net's, or of the folds that ``split`` lists.
        device: Where to train; None selects the GPU if there is one.
        strategy: ``"sequential"`` trains one member after another, ``"vectorised"`` all together
            under `torch.func.vmap`, and ``"processes"`` each in its own process, on every GPU or
            on shares of the CPU. ``"auto"`` times a few steps of each and reports its choice. All
            give the same members up to rounding. A script that starts processes needs the guard
            ``if __name__ == "__main__":``.
        jobs: The most members to train at the same time.
        ddp: Under ``torchrun``, train each member on all processes (DistributedDataParallel)
            instead of sharing out the members. This is for networks that are too slow on one GPU.
        prepared: Cache of preprocessed cases, which several runs may share; None keeps it in the
            run folder.
        progress: Report epochs to standard error.

    Returns:
        The run folder, opened.

    Raises:
        ValueError: An argument is out of range; the loss is not finite (the message names the
            cases of the batch); or memory ran out (the message says what to lower).
        DataError: The run folder holds another run (the message names a setting that differs), is
            in use by another training, or is a folder of the dataset or of other data; or files of
            cases are wrong (the message names all of them, before training starts).
        OSError: The disk reports an error, for example that it is full.

    Example:
        >>> run = train_ensemble("Dataset004_Hippocampus", "runs/ce", members=5)  # doctest: +SKIP
    """
    config = config or TrainConfig()
    if loss is not None:
        config = config.with_values({"loss.name": loss})
    torchrun = Torchrun.from_environment()
    request = ExecutionRequest(strategy, jobs, ddp, torchrun)
    _check(config, members, request)
    # JSON of a run folder holds 64 bits.
    bounded(seed, "seed", 2**63 - 1, least=0)
    place = torchrun.device(choose_device(device))
    opened = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
    if opened.label_groups is not None:
        raise DataError(
            opened.folder / DATASET, "declares label groups (regions); training needs plain labels"
        )
    chosen = resolve_split(opened, split, fold=fold)
    folder = Path(run)
    network = run_network(opened, config)
    # Raises for settings of the loss that do not fit, before anything is written.
    configured_loss(config, opened.num_classes, opened.ignore_label)
    settings = run_settings(opened, network, seed, config)
    first = torchrun.rank == 0
    if not first:
        _wait_for(folder / EXECUTION)
    else:
        run_folder.check_place(folder, opened, None if prepared is None else Path(prepared))
    with sole_use(folder, "training") if first else nullcontext():
        existing = Run.open(folder) if (folder / CONFIG).exists() else None
        if existing is not None:
            run_folder.check_same(existing, settings, chosen.names())
            existing = run_folder.want(existing, members) if first else existing
        numbers = list(range(0, members, config.members_per_training))
        epochs = len(numbers) * config.loop.max_epochs - _epochs_done(folder, numbers)
        with (
            TrainingProgress(
                epochs=epochs, max_epochs=config.loop.max_epochs, shown=progress and first
            ) as report,
            torch.random.fork_rng([place] if place.type == "cuda" else []),
        ):
            if existing is not None and len(existing.members) >= members:
                report.say(f"{folder}: all {len(existing.members)} members are trained already")
                return existing
            report.say(f"{folder}: reading {len(chosen.train)} + {len(chosen.val)} cases")
            if existing is None:
                preprocessing, patch = settled_preprocessing(opened, chosen, config, network)
            else:
                preprocessing, patch = existing.preprocessing, existing.patch
            where = CaseFolder(
                opened.folder,
                chosen.names(),
                preprocessing,
                Path(prepared) if prepared is not None else folder / PREPARED,
            )
            cases = where.load(place, progress=report.say)
            data = {"data": {"fingerprint": cases.fingerprint}}
            if existing is not None:
                run_folder.check_same(existing, data)
            recipe = run_recipe(folder, config, seed, opened, patch, cases, place)
            if existing is None:
                written = {
                    **settings,
                    "preprocessing": where.preprocessing.to_json(),
                    "patch": recipe.patch,
                    "members": members,
                    **data,
                }
                existing = run_folder.create(folder, written, opened, chosen.names())
            ahead = [number for number in numbers if not _is_finished(recipe, number)]
            execution = decide(recipe, cases, where, ahead, request)
            recipe = replace(recipe, channels_last=execution.channels_last)
            report.say(f"{folder}: {execution.strategy}; {execution.reason}")
            if ddp:
                with team_of(torchrun, place) as team:
                    _in_turn(replace(recipe, team=team), cases, ahead, report)
                return existing
            # Shared out by number, not by what is left to do, so that no process needs to know how
            # far the others are.
            rank, world = torchrun.rank, torchrun.world
            mine = [number for number in ahead if numbers.index(number) % world == rank]
            match execution.strategy:
                case "vectorised":
                    size = jobs or max(1, len(mine))
                    for start in range(0, len(mine), size):
                        group = [Learner(recipe, number) for number in mine[start : start + size]]
                        train_members(group, cases, Together, on_epoch=report.epoch)
                        _skip_unneeded(recipe, [learner.number for learner in group], report)
                case "processes" if torchrun.world == 1:
                    del cases
                    count = max(1, min(len(mine), jobs or default_jobs(place)))
                    with Workers(recipe, where, count) as workers:
                        workers.train(mine, report)
                case _:
                    _in_turn(recipe, cases, mine, report)
        return existing


def _in_turn(
    recipe: Recipe, cases: RunCases, numbers: Sequence[int], report: TrainingProgress
) -> None:
    for number in numbers:
        train_members([Learner(recipe, number)], cases, Alone, on_epoch=report.epoch)
        _skip_unneeded(recipe, [number], report)


def _skip_unneeded(recipe: Recipe, numbers: Sequence[int], report: TrainingProgress) -> None:
    """Take the epochs off the report that members do not need because they stopped early."""
    most = len(numbers) * recipe.config.loop.max_epochs
    report.skip(most - _epochs_done(recipe.folder, numbers))


def _check(config: TrainConfig, members: int, request: ExecutionRequest) -> None:
    bounded(members, "members", MOST_MEMBERS)
    if members % config.members_per_training:
        raise ValueError(
            f"members must be a multiple of {config.members_per_training}, the schedule's cycles, "
            f"each of which gives a snapshot, got {members!r}"
        )
    batch_size, world = config.sampling.batch_size, request.torchrun.world
    if request.ddp and batch_size % world:
        raise ValueError(
            f"sampling.batch_size must be a multiple of {world}, the number of processes, "
            f"got {batch_size}"
        )


def _is_finished(recipe: Recipe, number: int) -> bool:
    last = number + recipe.config.members_per_training - 1
    return (recipe.member_folder(last) / FINISHED).exists()


def _epochs_done(folder: Path, numbers: Sequence[int]) -> int:
    logs = [folder / f"member_{number:02d}" / LOG for number in numbers]
    return sum(len(read_log(log.parent)) for log in logs if os.path.lexists(log))


def _wait_for(file: Path) -> None:
    start = time.monotonic()
    while not file.exists():
        if time.monotonic() - start > PATIENCE:
            raise DataError(file.parent, "the first process has not prepared the run in time")
        time.sleep(0.2)
