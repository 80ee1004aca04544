"""``fastcal convert``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fastcal.cli.mapping import RUN, Affine, AffineForm, Quiet
from fastcal.cli.outcome import finish_cases
from fastcal.cli.values import one_of


class Dataset(StrEnum):
    """Datasets that can be converted; the names are those of `fastcal.convert.SETS`."""

    brats2017 = "brats2017"
    brats2018 = "brats2018"
    brats2019 = "brats2019"
    brats2020 = "brats2020"
    brats2021 = "brats2021"
    brats2022 = "brats2022"
    brats2023 = "brats2023"
    acdc = "acdc"
    mnms = "mnms"
    promise12 = "promise12"
    prostatex = "prostatex"
    msd = "msd"
    multisite_prostate = "multisite-prostate"


def convert(
    dataset: Annotated[
        Dataset, typer.Argument(metavar="SET", help=f"The dataset: {one_of(Dataset)}.")
    ],
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", exists=True, help="Folder that was downloaded and unpacked."
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder in nnU-Net's raw layout.")],
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going",
            help="Leave incomplete or unreadable cases out; list them at the end.",
            rich_help_panel=RUN,
        ),
    ] = False,
    affine: Affine = AffineForm.auto,
    quiet: Quiet = False,
) -> None:
    """Convert a public dataset (BraTS, ACDC, M&Ms, prostate sets, MSD) to nnU-Net's raw layout.

    A conversion that was interrupted goes on when the command is repeated.

    Examples:
        fastcal convert acdc ACDC/database Dataset027_ACDC
        fastcal convert msd Task05_Prostate Dataset005_Prostate
    """
    del affine  # its callback has chosen the form
    from fastcal.convert import convert_dataset

    made = convert_dataset(dataset.value, source, out, keep_going=keep_going, progress=not quiet)
    for note in made.notes:
        typer.echo(note)
    finish_cases(made)
