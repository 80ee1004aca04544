"""What commands print at their end: failed cases, tables, and the exit code that follows."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import typer

if TYPE_CHECKING:
    from fastcal.calibration import CalibrationStatistics
    from fastcal.predict import PredictionSummary

SOME_CASES_FAILED = 1
"""Exit code of a run with --keep-going that left cases out."""


def list_failures(failures: Iterable[tuple[str, str]]) -> None:
    """Name the cases that failed, on stderr, and leave with `SOME_CASES_FAILED` if there are any.

    Args:
        failures: Case name and reason.
    """
    lines = [f"  {case}: {reason}" for case, reason in failures]
    if lines:
        typer.echo(f"fastcal: {len(lines)} failed:", err=True)
        for line in lines:
            typer.echo(line, err=True)
        raise typer.Exit(SOME_CASES_FAILED)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on stdout; numbers stand to the right of the first column."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, header_style="bold")
    for column, title in enumerate(header):
        table.add_column(title, justify="right" if column else "left", no_wrap=column > 0)
    for row in rows:
        table.add_row(*row)
    # A pipe has no width: its lines are as long as they need be.
    width = None if sys.stdout.isatty() else 200
    Console(width=width).print(table)


def finish_predictions(summary: PredictionSummary) -> None:
    """Print what a run over cases did; failed cases are listed and end in an exit code of 1."""
    if summary.statistics is not None:
        print_calibration(summary.statistics)
    resumed = f", {len(summary.skipped)} were there already" if summary.skipped else ""
    typer.echo(f"{len(summary.done)} cases written to {summary.out}{resumed}")
    list_failures((one.case, one.reason) for one in summary.failed)


def print_calibration(statistics: CalibrationStatistics) -> None:
    """Print the errors of pooled voxels and of cases."""
    if statistics.n_voxels == 0:
        return
    classwise = statistics.classwise_ece
    dice = statistics.dice
    print_table(
        ["calibration", "ECE", "classwise ECE", "NLL", "Brier", "Dice"],
        [
            [
                name,
                f"{100 * statistics.ece(reduction=reduction):.3f} %",
                f"{100 * _mean(classwise(reduction=reduction)):.3f} %",
                f"{statistics.nll(reduction):.5f}",
                f"{statistics.brier(reduction):.5f}",
                f"{_mean(dice(reduction)[1:]):.4f}",
            ]
            for name, reduction in _REDUCTIONS
        ],
    )


_REDUCTIONS: tuple[tuple[str, Literal["pooled", "case"]], ...] = (
    ("pooled voxels", "pooled"),
    ("mean of cases", "case"),
)


def _mean(values: Iterable[float]) -> float:
    defined = [float(value) for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
