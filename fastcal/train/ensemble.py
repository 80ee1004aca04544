"""Training an ensemble: members that differ by initialisation and data order alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from fastcal.data.dataset import Dataset
from fastcal.models import choose_device
from fastcal.models.run import CONFIG, FINISHED, LOG, Run
from fastcal.train import folder as run_folder
from fastcal.train.cases import CaseFolder, Cases
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
from fastcal.train.strategy import EXECUTION, STRATEGIES, Strategy, decide
from fastcal.train.team import Launch, team_of

PREPARED = "prepared"
# How long the other processes of a launch wait for the first to prepare the run, seconds.
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

    A run folder that exists goes on where it was left: finished members stay, one that was killed
    resumes (to the same weights on a CPU with as many threads), and members beyond those that are
    there are added. Under ``torchrun`` the processes share the members; each needs no other.

    Args:
        dataset: nnU-Net's raw layout, a folder or opened; labels, no regions.
        run: the folder to write.
        loss: in place of ``config.loss.name``: ``"ce"``, ``"dice"`` (the paper's, sigmoid head),
            ``"dice-ce"``, or another of `fastcal.losses.build_loss`.
        members: how many there shall be; with snapshots, a multiple of the schedule's cycles.
        seed: of the ensemble; each member derives its own.
        config: every other setting.
        split: counts, names or a file; see `resolve_split`.
        fold: of nnU-Net's folds, or of those that `split` lists.
        device: None is the GPU if there is one.
        strategy: ``"sequential"`` trains members in turn, ``"vectorised"`` together under
            `torch.func.vmap`, ``"processes"`` each in a process, on every GPU or on shares of the
            CPU; ``"auto"`` times a few steps of each and says what it chose. They give the same
            members, to rounding. A script that starts processes needs the guard
            ``if __name__ == "__main__":``.
        jobs: members at a time, at most, for strategies that train several.
        ddp: under ``torchrun``, train each member on all processes (DistributedDataParallel)
            instead of sharing the members out: for networks too large for one GPU's time.
        prepared: cache of preprocessed cases, which several runs may share; None: in the run.
        progress: report epochs to standard error.

    Raises:
        ValueError: a bad argument; a run folder with other settings (the message says which); a NaN
            loss (the message names the batch's cases); memory that ran out (the message says what
            to lower).
        DataError: everything that is wrong with the files of any case, before training starts.
        OSError: the disk's own error, as that it is full.

    Example:
        >>> run = train_ensemble("Dataset004_Hippocampus", "runs/ce", members=5)  # doctest: +SKIP
    """
    config = config or TrainConfig()
    if loss is not None:
        config = config.with_values({"loss.name": loss})
    launch = Launch.from_environment()
    place = launch.device(_check(config, members, strategy, jobs, device, ddp, launch))
    opened = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
    if opened.label_groups is not None:
        raise ValueError(f"{opened.folder}: dataset.json has regions; training needs plain labels")
    chosen = resolve_split(opened, split, fold=fold)
    folder = Path(run)
    network = run_network(opened, config)
    configured_loss(config, opened.num_classes, opened.ignore_label)  # for what it refuses
    settings = run_settings(opened, network, seed, config)
    first = launch.rank == 0
    if not first:
        _wait_for(folder / EXECUTION)
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
            report.say(f"{folder}: {len(existing.members)} members are trained, nothing to do")
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
        execution = decide(recipe, cases, where, ahead, strategy, jobs, launch, ddp)
        recipe = replace(recipe, channels_last=execution.channels_last)
        report.say(f"{folder}: {execution.strategy}; {execution.reason}")
        if ddp:
            with team_of(launch, place) as team:
                _in_turn(replace(recipe, team=team), cases, ahead, report)
            return existing
        # By number, not by what is left to do: no process has to know how far the others are.
        mine = [number for number in ahead if numbers.index(number) % launch.world == launch.rank]
        match execution.strategy:
            case "vectorised":
                size = jobs or max(1, len(mine))
                for start in range(0, len(mine), size):
                    group = [Learner(recipe, number) for number in mine[start : start + size]]
                    train_members(group, cases, Together, on_epoch=report.epoch)
                    _skip_unneeded(recipe, [learner.number for learner in group], report)
            case "processes" if launch.world == 1:
                del cases
                count = max(1, min(len(mine), jobs or default_jobs(place)))
                with Workers(recipe, where, count) as workers:
                    workers.train(mine, report)
            case _:
                _in_turn(recipe, cases, mine, report)
    return existing


def _in_turn(
    recipe: Recipe, cases: Cases, numbers: Sequence[int], report: TrainingProgress
) -> None:
    for number in numbers:
        train_members([Learner(recipe, number)], cases, Alone, on_epoch=report.epoch)
        _skip_unneeded(recipe, [number], report)


def _skip_unneeded(recipe: Recipe, numbers: Sequence[int], report: TrainingProgress) -> None:
    """Epochs that members will not need, having stopped early."""
    most = len(numbers) * recipe.config.loop.max_epochs
    report.skip(most - _epochs_done(recipe.folder, numbers))


def _check(
    config: TrainConfig,
    members: int,
    strategy: str,
    jobs: int | None,
    device: torch.device | str | None,
    ddp: bool,
    launch: Launch,
) -> torch.device:
    if members < 1:
        raise ValueError(f"members: got {members!r}, expected at least 1")
    if members % config.members_per_training:
        raise ValueError(
            f"members: got {members!r}, expected a multiple of the schedule's "
            f"{config.members_per_training} cycles, each of which gives a snapshot"
        )
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy: got {strategy!r}, expected one of {', '.join(STRATEGIES)}")
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs: got {jobs!r}, expected at least 1")
    if ddp and launch.world == 1:
        raise ValueError("ddp: got one process, expected several, started by torchrun")
    if ddp and strategy not in ("auto", "sequential"):
        raise ValueError(f"ddp: got strategy {strategy!r}, expected sequential: members in turn")
    batch_size = config.sampling.batch_size
    if ddp and batch_size % launch.world:
        raise ValueError(
            f"sampling.batch_size: got {batch_size}, expected a multiple of the "
            f"{launch.world} processes"
        )
    return choose_device(device)


def _is_finished(recipe: Recipe, number: int) -> bool:
    last = number + recipe.config.members_per_training - 1
    return (recipe.member_folder(last) / FINISHED).exists()


def _epochs_done(folder: Path, numbers: Sequence[int]) -> int:
    logs = [folder / f"member_{number:02d}" / LOG for number in numbers]
    return sum(len(read_log(log.parent)) for log in logs if log.exists())


def _wait_for(file: Path) -> None:
    start = time.monotonic()
    while not file.exists():
        if time.monotonic() - start > PATIENCE:
            raise ValueError(f"{file.parent}: the first process has not prepared the run")
        time.sleep(0.2)
