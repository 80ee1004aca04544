"""``fastcal train``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastcal.cli.mapping import FILES, RUN, Affine, AffineForm, TrustOption
from fastcal.cli.outcome import counted
from fastcal.cli.settings import (
    TRAINING,
    BatchSize,
    ConfigFile,
    Device,
    Dims,
    Dropout,
    Epochs,
    Iterations,
    LearningRate,
    PresetOption,
    Settings,
    StrategyName,
    check_network,
    check_words,
    parse_split,
    training_config,
)
from fastcal.cli.waiting import wait_politely_where_it_is_busy

if TYPE_CHECKING:
    from fastcal.train.splits import SplitSource


def train(
    dataset: Annotated[
        Path,
        typer.Option(
            "-d",
            "--dataset",
            metavar="FOLDER",
            exists=True,
            help="Dataset folder in nnU-Net's raw layout.",
            rich_help_panel=FILES,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="Run folder; a run that exists there resumes with its own settings.",
            rich_help_panel=FILES,
        ),
    ],
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            metavar="NAME",
            help="ce, dice (the paper's), soft-dice, dice-ce, focal, label-smoothing, svls, nacl, "
            "mbls; +soft-l1ace or +hard-l1ace may follow.  [default: the preset's]",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    members: Annotated[
        int | None,
        typer.Option(
            "--members",
            metavar="N",
            min=1,
            help="Number of members.  [default: 5]",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="N",
            help="Seed of the ensemble; members derive theirs.  [default: 0]",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="SPLIT",
            help="Numbers of cases by sorted name, TRAIN,VAL,TEST, or a JSON file of names; "
            "without it the dataset's splits.json, or else the last fifth validates.",
            rich_help_panel=FILES,
        ),
    ] = None,
    fold: Annotated[
        int | None,
        typer.Option(
            "--fold",
            metavar="K",
            min=0,
            help="Fold of the dataset's splits_final.json, or of the five that nnU-Net makes where "
            "there is none; with --split, of those in its file.",
            rich_help_panel=FILES,
        ),
    ] = None,
    preset: PresetOption = None,
    dims: Dims = None,
    epochs: Epochs = None,
    iterations: Iterations = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    dropout: Dropout = None,
    config: ConfigFile = None,
    values: Settings = None,
    snapshots: Annotated[
        int | None,
        typer.Option(
            "--snapshots",
            metavar="K",
            min=1,
            help="Take K members from each training, one at the end of each of K cosine cycles.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    device: Device = None,
    strategy: Annotated[
        StrategyName,
        typer.Option(
            "--strategy",
            metavar="NAME",
            help="How members are trained: sequential (in turn), vectorised (together as one "
            "network), processes (on GPUs or shares of a CPU), or auto, which times each.",
            rich_help_panel=RUN,
        ),
    ] = StrategyName.auto,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            metavar="N",
            min=1,
            help="Maximum number of members trained at a time.  [default: all]",
            rich_help_panel=RUN,
        ),
    ] = None,
    ddp: Annotated[
        bool,
        typer.Option(
            "--ddp",
            help="Under torchrun: all processes train each member together.",
            rich_help_panel=RUN,
        ),
    ] = False,
    prepared: Annotated[
        Path | None,
        typer.Option(
            "--prepared",
            metavar="FOLDER",
            help="Cache of preprocessed cases, for several runs.  [default: OUT/prepared]",
            rich_help_panel=FILES,
        ),
    ] = None,
    trust: TrustOption = None,
    affine: Affine = AffineForm.auto,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Do not print progress.")] = False,
) -> None:
    """Train the members of an ensemble, each from its own initialisation and data order.

    In the folder of a run the training resumes: settings that are not given are the run's.

    Examples:
        fastcal train -d Dataset001_Mine -o run --loss ce --members 5
        fastcal train -d Dataset001_Mine -o run-3d --preset standard --dims 3
    """
    del affine  # its callback has chosen the form
    check_words(values or ())
    parts = parse_split(split) if split is not None and "," in split else None
    wait_politely_where_it_is_busy()
    from fastcal.models.run import CONFIG
    from fastcal.train import train_ensemble
    from fastcal.train.folder import MEMBERS, Begun

    begun = Begun.read(out)
    cycles = () if snapshots is None else _snapshot_values(snapshots)
    settings = training_config(
        None if begun is None else begun.config,
        preset=None if preset is None else preset.value,
        dims=dims,
        file=config,
        values=[*(values or ()), *cycles],
        epochs=epochs,
        iterations=iterations,
        batch_size=batch_size,
        learning_rate=learning_rate,
        dropout=dropout,
    )
    if not any(word.startswith("network.name=") for word in values or ()):
        check_network(settings, trust or (), source=config or out / CONFIG)
    source: SplitSource | None = None
    if split is not None:
        source = parts or Path(split)
    elif begun is not None and fold is None:
        source = begun.split
    if members is None:
        members = MEMBERS if begun is None else begun.members
    if seed is None:
        seed = 0 if begun is None else begun.seed
    run = train_ensemble(
        dataset,
        out,
        loss=loss,
        members=members,
        seed=seed,
        config=settings,
        split=source,
        fold=fold,
        device=device,
        strategy=strategy.value,
        jobs=jobs,
        ddp=ddp,
        prepared=prepared,
        progress=not quiet,
    )
    if os.environ.get("RANK", "0") == "0":  # only one of torchrun's processes prints
        typer.echo(f"{counted(len(run.members), 'member')} in {out}")


def _snapshot_values(cycles: int) -> list[str]:
    return ["schedule.name=cyclic", f"schedule.cycles={cycles}", "loop.snapshots=true"]
