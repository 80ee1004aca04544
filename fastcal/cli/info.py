"""``fastcal info``."""

from __future__ import annotations

from typing import Annotated

import typer


def info(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    no_gpu: Annotated[bool, typer.Option("--no-gpu", help="Do not touch the GPU driver.")] = False,
    kernels: Annotated[
        bool,
        typer.Option(
            "--kernels", help="Also run every op once, to find kernels that cannot be compiled."
        ),
    ] = False,
) -> None:
    """Show what this installation can do here: versions, processor, GPU, backends.

    Examples:
        fastcal info
        fastcal info --json --no-gpu
    """
    from fastcal.info import collect, render, to_json

    found = collect(gpu=not no_gpu, kernels=kernels)
    typer.echo(to_json(found) if json else render(found))
