"""``fastcal status``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastcal.cli.mapping import FILES
from fastcal.cli.outcome import counted, list_failures, print_workers


def status(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT",
            exists=True,
            help="Folder that predict, ensemble or recalibrate apply wrote.",
            show_default=False,
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "-p",
            "--predictions",
            metavar="FOLDER",
            exists=True,
            help="The same, as other commands take it.",
            rich_help_panel=FILES,
        ),
    ] = None,
) -> None:
    """Show what a folder of predictions was made with, and which of its cases are finished.

    Example:
        fastcal status predicted
    """
    given = [one for one in (folder, predictions) if one is not None]
    if len(given) != 1:
        raise ValueError(
            f"OUT must be one folder, got {' and '.join(map(str, given)) or 'none'}: "
            "fastcal status predicted"
        )
    from fastcal.predict import folder_status

    found = folder_status(given[0])
    for name, value in found.settings.items():
        typer.echo(f"{name}: {value}")
    typer.echo(f"versions: {', '.join(f'{name} {one}' for name, one in found.versions.items())}")
    print_workers(found.workers)
    typer.echo(f"{counted(len(found.finished), 'case')} finished in {given[0]}")
    list_failures((one.case, one.reason) for one in found.unfit)
