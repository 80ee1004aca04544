"""``fastcal export``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """Of the exported file."""

    torchscript = "torchscript"
    onnx = "onnx"


def export(
    run: Annotated[
        Path, typer.Option("-m", "--model", metavar="FOLDER", help="Run folder that train wrote.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="FILE", help=".pt, .pth or .ts for TorchScript, .onnx for ONNX."
        ),
    ],
    member: Annotated[
        int | None,
        typer.Option("--member", metavar="N", help="Export this member's logits alone."),
    ] = None,
    members: Annotated[
        list[int] | None,
        typer.Option(
            "--members", metavar="N", help="Numbers of the ensemble's members; all without it."
        ),
    ] = None,
    format: Annotated[
        Format | None, typer.Option("--format", help="Where the name of the file does not tell.")
    ] = None,
    size: Annotated[
        list[int] | None,
        typer.Option(
            "--size", metavar="EXTENT", help="Spatial extents to fix; without it any will do."
        ),
    ] = None,
) -> None:
    """Export an ensemble with its uncertainty, or one member, to TorchScript or ONNX."""
    from fastcal.models import export_run

    made = export_run(
        run,
        out,
        member=member,
        members=members or None,
        format=None if format is None else format.value,
        size=size or None,
    )
    names = ", ".join(made.outputs)
    if made.difference is None:
        checked = "not tried: onnxruntime is not installed"
    else:
        checked = f"within {made.difference:.1g} of the run's networks"
    typer.echo(f"{made.path}: images -> {names} ({checked})")
