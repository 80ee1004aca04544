"""``fastcal study``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fastcal.cli.mapping import FILES, RUN, Affine, AffineForm
from fastcal.cli.settings import TRAINING, Device, Settings, check_words, parse_split, parse_values
from fastcal.cli.values import one_of
from fastcal.cli.waiting import wait_politely_where_it_is_busy

SHIFTS = "Shifts"


class Application(StrEnum):
    """Studies that can be run."""

    brain = "brain"
    heart = "heart"
    prostate = "prostate"
    hippocampus = "hippocampus"
    phantom = "phantom"


class Shift(StrEnum):
    """Shifts of the held-out cases."""

    contrast = "contrast"
    motion = "motion"
    noise = "noise"
    resolution = "resolution"


def study(
    application: Annotated[
        Application, typer.Argument(help=f"Which study: {one_of(Application)}.", metavar="STUDY")
    ],
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
    data: Annotated[
        Path | None,
        typer.Option(
            "-d",
            "--data",
            metavar="FOLDER",
            exists=True,
            help="Dataset in nnU-Net's raw layout, as convert writes it; not for phantom.",
            rich_help_panel=FILES,
        ),
    ] = None,
    outside: Annotated[
        Path | None,
        typer.Option(
            "--outside",
            metavar="FOLDER",
            exists=True,
            help="Dataset of cases to be detected as out of distribution, such as PROMISE12.",
            rich_help_panel=FILES,
        ),
    ] = None,
    members: Annotated[
        int | None,
        typer.Option(
            "--members",
            metavar="N",
            min=1,
            help="Members for each loss.  [default: 50]",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast",
            help="A small version for a CPU: 10 members, short training.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="TRAIN,VAL,TEST",
            help="Cases of each part, by sorted name; without it the dataset's or the paper's.",
            rich_help_panel=FILES,
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            "--channels",
            metavar="NAME,NAME",
            help="Channels to use; without it T1CE, T2 and FLAIR of the brain, else all.",
            rich_help_panel=FILES,
        ),
    ] = None,
    shift: Annotated[
        list[Shift] | None,
        typer.Option(
            "--shift",
            metavar="SHIFT",
            help=f"Shift of the held-out cases, {one_of(Shift)}; all of them without it.",
            rich_help_panel=SHIFTS,
        ),
    ] = None,
    no_shifts: Annotated[
        bool,
        typer.Option(
            "--no-shifts", help="Look at no shifts of the held-out cases.", rich_help_panel=SHIFTS
        ),
    ] = False,
    values: Settings = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            metavar="N",
            help="Seed of phantoms, training and ensembles.",
            rich_help_panel=TRAINING,
        ),
    ] = 0,
    device: Device = None,
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs",
            metavar="N",
            min=1,
            help="Members trained at a time, each in a process.",
            rich_help_panel=RUN,
        ),
    ] = 1,
    affine: Affine = AffineForm.auto,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print only the results.")] = False,
) -> None:
    """Run a study of the paper: losses, ensembles, MC dropout, calibration, quality, detection.

    A study that was interrupted goes on when the command is repeated.

    Examples:
        fastcal study phantom -o phantom-study --fast
        fastcal study prostate -d Dataset005_Prostate -o prostate-study
    """
    del affine  # its callback has chosen the form
    if no_shifts and shift:
        raise ValueError(f"--shift must be left out with --no-shifts, got {shift[0].value}")
    parts = parse_split(split) if split else None
    check_words(values or ())
    wait_politely_where_it_is_busy()
    from fastcal.study import design
    from fastcal.study.run import run_study

    shifts = [one.value for one in shift] if shift else ([] if no_shifts else list(design.SHIFTS))
    run_study(
        application.value,
        out,
        data=data,
        outside=outside,
        members=members,
        fast=fast,
        split=parts,
        channels=None if channels is None else channels.split(","),
        shifts=shifts,
        training=parse_values(values or ()),
        seed=seed,
        device=device,
        jobs=jobs,
        progress=not quiet,
    )
    typer.echo((out / "results.md").read_text(encoding="utf-8"))
    typer.echo(
        f"report: {out / 'report.html'}\ntables: {out / 'tables'}\nfigures: {out / 'figures'}\n"
        f"numbers: {out / 'results.json'}"
    )
