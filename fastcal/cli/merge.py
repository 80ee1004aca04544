"""``fastcal merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastcal.cli.outcome import counted, print_statistics


def merge(
    inputs: Annotated[
        list[Path],
        typer.Option(
            "-i",
            "--inputs",
            metavar="FOLDER",
            help="Folders of the parts (often one folder for all), or their state files.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="FOLDER", help="Prediction folder that the sum is written to."
        ),
    ],
) -> None:
    """Add the calibration of the parts of a run with --num-parts, bit-identical to one run."""
    from fastcal.predict import merge_statistics

    merged = merge_statistics(inputs, out)
    print_statistics(merged.statistics)
    typer.echo(f"{counted(len(merged.parts), 'part')} added: {merged.summary_file}")
