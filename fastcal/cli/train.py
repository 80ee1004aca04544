"""``fastcal train``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fastcal.cli.outcome import counted
from fastcal.cli.settings import (
    BatchSize,
    ConfigFile,
    Device,
    Dropout,
    Epochs,
    Iterations,
    Jobs,
    LearningRate,
    parse_split,
    training_config,
)


class Loss(StrEnum):
    """Names of losses."""

    ce = "ce"
    dice = "dice"


def train(
    dataset: Annotated[
        Path,
        typer.Option(
            "-d", "--dataset", metavar="FOLDER", help="Dataset folder in nnU-Net's raw layout."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", metavar="FOLDER", help="Run folder; one that exists goes on."),
    ],
    loss: Annotated[
        Loss, typer.Option("--loss", help="Cross entropy, or the paper's Dice loss.")
    ] = Loss.ce,
    members: Annotated[
        int, typer.Option("--members", metavar="N", help="Members of the ensemble.")
    ] = 5,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", help="Of the ensemble; members derive theirs.")
    ] = 0,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="TRAIN,VAL,TEST|FILE",
            help="Counts by sorted name, or a JSON file of names; else the dataset's splits.json, "
            "else the last fifth validates.",
        ),
    ] = None,
    epochs: Epochs = None,
    iterations: Iterations = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    dropout: Dropout = None,
    config: ConfigFile = None,
    device: Device = None,
    jobs: Jobs = 1,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
) -> None:
    """Train the members of an ensemble, each from its own initialisation and data order."""
    from fastcal.train import TrainConfig, train_ensemble

    settings = training_config(
        TrainConfig(),
        config,
        max_epochs=epochs,
        iterations_per_epoch=iterations,
        batch_size=batch_size,
        learning_rate=learning_rate,
        dropout=dropout,
    )
    source = None
    if split is not None:
        source = parse_split(split) if "," in split else Path(split)
    run = train_ensemble(
        dataset,
        out,
        loss=loss.value,
        members=members,
        seed=seed,
        config=settings,
        split=source,
        device=device,
        jobs=jobs,
        progress=not quiet,
    )
    typer.echo(f"{counted(len(run.members), 'member')} in {out}")
