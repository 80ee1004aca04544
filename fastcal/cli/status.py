"""``fastcal status``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastcal.cli.mapping import FILES
from fastcal.cli.outcome import counted, list_failures, print_workers


def status(
    predictions: Annotated[
        Path,
        typer.Option(
            "-p",
            "--predictions",
            metavar="FOLDER",
            exists=True,
            help="Folder that predict, ensemble or recalibrate apply wrote.",
            rich_help_panel=FILES,
        ),
    ],
) -> None:
    """Show what a folder of predictions was made with, and which of its cases are finished.

    Example:
        fastcal status -p predicted
    """
    from fastcal.predict import folder_status

    found = folder_status(predictions)
    for name, value in found.settings.items():
        typer.echo(f"{name}: {value}")
    typer.echo(f"versions: {', '.join(f'{name} {one}' for name, one in found.versions.items())}")
    print_workers(found.workers)
    typer.echo(f"{counted(len(found.finished), 'case')} finished in {predictions}")
    list_failures((one.case, one.reason) for one in found.unfit)
