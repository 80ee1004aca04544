"""``fastcal demo``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fastcal.cli.mapping import FILES, RUN, FineBins, RegionOption, TrustOption
from fastcal.cli.outcome import print_table
from fastcal.cli.settings import (
    TRAINING,
    BatchSize,
    ConfigFile,
    Device,
    Epochs,
    Iterations,
    LearningRate,
    check_network,
    parse_split,
    training_config,
)
from fastcal.cli.values import one_of
from fastcal.cli.waiting import wait_politely_where_it_is_busy


class Loss(StrEnum):
    """Losses that can be compared."""

    ce = "ce"
    dice = "dice"


class Kind(StrEnum):
    """Phantoms that can be drawn."""

    brain = "brain"
    heart = "heart"
    prostate = "prostate"


def demo(
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="Folder for everything that is made.",
            rich_help_panel=FILES,
        ),
    ],
    dataset: Annotated[
        Path | None,
        typer.Option(
            "-d",
            "--dataset",
            metavar="FOLDER",
            exists=True,
            help="nnU-Net raw dataset to use instead of phantoms, at full length.",
            rich_help_panel=FILES,
        ),
    ] = None,
    kind: Annotated[
        Kind | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            help=f"Which phantom to draw: {one_of(Kind)}.  [default: heart]",
            rich_help_panel=FILES,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="TRAIN,VAL,TEST",
            help="Cases of each part, by sorted name; needed with --dataset.",
            rich_help_panel=FILES,
        ),
    ] = None,
    members: Annotated[
        int,
        typer.Option(
            "--members", metavar="N", min=1, help="Members for each loss.", rich_help_panel=TRAINING
        ),
    ] = 3,
    losses: Annotated[
        list[Loss],
        typer.Option(
            "--loss",
            metavar="LOSS",
            help=f"Losses to compare: {one_of(Loss)}.",
            rich_help_panel=TRAINING,
        ),
    ] = [Loss.ce, Loss.dice],  # noqa: B006  # typer reads it; nothing changes it
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            metavar="N",
            help="Seed of the phantoms and of the training.",
            rich_help_panel=TRAINING,
        ),
    ] = 0,
    epochs: Epochs = None,
    iterations: Iterations = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    config: ConfigFile = None,
    device: Device = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            metavar="N",
            min=1,
            help="Members trained at a time, each in a process.  [default: one more than "
            "threads for phantoms on a CPU, else 1]",
            rich_help_panel=RUN,
        ),
    ] = None,
    fine_bins: FineBins = 0,
    region: RegionOption = None,
    trust: TrustOption = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print only the table.")] = False,
) -> None:
    """Compare losses, and single models with ensembles: the whole job, with a report.

    A run that was interrupted goes on when the command is repeated.

    Examples:
        fastcal demo -o demo-run
        fastcal demo -o study -d Dataset005_Prostate --split 20,6,6 --members 5
    """
    if dataset is not None and kind is not None:
        raise ValueError(f"--kind must be left out with --dataset, got {kind.value}")
    if dataset is not None and split is None:
        raise ValueError("--split must be TRAIN,VAL,TEST with --dataset, got none")
    parts = parse_split(split) if split else None
    wait_politely_where_it_is_busy()
    from fastcal.report.scores import table, titles
    from fastcal.study.demo import SPLIT, demo_config, run_demo
    from fastcal.study.experiment import compare_losses
    from fastcal.train import TrainConfig

    settings = training_config(
        demo_config() if dataset is None else TrainConfig(),
        file=config,
        epochs=epochs,
        iterations=iterations,
        batch_size=batch_size,
        learning_rate=learning_rate,
    )
    if config is not None:
        check_network(settings, trust or (), source=config)
    names = [loss.value for loss in losses]
    if dataset is None or parts is None:  # a dataset without a split was refused
        comparison = run_demo(
            out,
            kind=(kind or Kind.heart).value,
            split=parts or SPLIT,
            members=members,
            losses=names,
            seed=seed,
            config=settings,
            device=device,
            jobs=jobs,
            fine_bins=fine_bins,
            regions=region or [],
            progress=not quiet,
        )
    else:
        comparison = compare_losses(
            dataset,
            out,
            split=parts,
            members=members,
            losses=names,
            seed=seed,
            config=settings,
            device=device,
            jobs=1 if jobs is None else jobs,
            fine_bins=fine_bins,
            regions=region or [],
            progress=not quiet,
        )
    rows = [(f"{row.loss}, {row.model}", *row.values) for row in table(comparison)]
    print_table(["held-out cases", *titles(comparison)], rows)
    typer.echo(f"report: {out / 'report.html'}\nnumbers: {out / 'results.json'}")
