"""``fastcal merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastcal.cli.mapping import FILES
from fastcal.cli.outcome import counted, print_statistics


def merge(
    inputs: Annotated[
        list[Path],
        typer.Option(
            "-i",
            "--input",
            metavar="FOLDER",
            exists=True,
            help="Folders of the parts (often one folder for all), or their state files.",
            rich_help_panel=FILES,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="Prediction folder that the sum is written to.",
            rich_help_panel=FILES,
        ),
    ],
) -> None:
    """Merge the calibration and the scores of the parts of a run with --num-parts.

    Example:
        fastcal merge -i out -o out
    """
    from fastcal.cases.segment_parts import parts_in
    from fastcal.cases.shards import holds_statistics
    from fastcal.predict import merge_segments, merge_statistics

    # A run without labels has scores of segments, but no statistics.
    if holds_statistics(inputs) or not parts_in(inputs):
        merged = merge_statistics(inputs, out)
        print_statistics(merged.statistics)
        typer.echo(f"{counted(len(merged.parts), 'part')} added: {merged.summary_file}")
    scores = merge_segments(inputs, out)
    if scores is not None:
        typer.echo(f"{counted(len(parts_in(inputs)), 'part')} put together: {scores}")
