"""``fastcal export``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fastcal.cli import mapping
from fastcal.cli.values import one_of

FORMAT = "Format"


class Format(StrEnum):
    """Formats of the exported file."""

    torchscript = "torchscript"
    onnx = "onnx"


def export(
    run: mapping.Model,
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help=".pt, .pth or .ts for TorchScript, .onnx for ONNX.",
            rich_help_panel=mapping.FILES,
        ),
    ],
    members: Annotated[
        list[int] | None,
        typer.Option(
            "--member",
            metavar="N",
            min=0,
            help="Numbers of the members of the ensemble; all without it. One alone is exported "
            "with its logits.",
            rich_help_panel=mapping.MEMBERS,
        ),
    ] = None,
    allow_duplicates: mapping.AllowDuplicates = False,
    format: Annotated[
        Format | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help=f"Format, if the name of the file does not tell it: {one_of(Format)}.",
            rich_help_panel=FORMAT,
        ),
    ] = None,
    size: Annotated[
        list[int] | None,
        typer.Option(
            "--size",
            metavar="EXTENT",
            min=1,
            help="Spatial extents to fix; without it they are free.",
            rich_help_panel=FORMAT,
        ),
    ] = None,
    trust: mapping.TrustOption = None,
) -> None:
    """Export an ensemble with its uncertainty, or one member, to TorchScript or ONNX.

    Examples:
        fastcal export -m run -o ensemble.onnx
        fastcal export -m run -o member_0.pt --member 0
    """
    from fastcal.models import export_run

    alone = members[0] if members and len(members) == 1 else None
    made = export_run(
        run,
        out,
        member=alone,
        members=(members or None) if alone is None else None,
        allow_duplicates=allow_duplicates,
        format=None if format is None else format.value,
        size=size or None,
        trust=trust or (),
    )
    names = ", ".join(made.outputs)
    if made.difference is None:
        checked = "not checked: onnxruntime is not installed"
    else:
        checked = f"within {made.difference:.1g} of the run's networks"
    typer.echo(f"{made.path}: images -> {names} ({checked})")
