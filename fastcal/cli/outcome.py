"""What commands print at their end: failed cases, tables, and the exit code that follows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from fastcal.calibration import CalibrationStatistics
    from fastcal.predict import PredictionSummary

SOME_CASES_FAILED = 1
"""Exit code of a run with --keep-going that left cases out."""


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "case"), counted(2, "case")
        ('1 case', '2 cases')
    """
    return f"{number} {noun}" + "s" * (number != 1)


def list_failures(failures: Iterable[tuple[str, str]]) -> None:
    """Name the cases that failed, on stderr, and leave with `SOME_CASES_FAILED` if there are any.

    Args:
        failures: Case name and reason.
    """
    lines = [f"  {case}: {reason}" for case, reason in failures]
    if lines:
        typer.echo(f"fastcal: {counted(len(lines), 'case')} failed:", err=True)
        for line in lines:
            typer.echo(line, err=True)
        raise typer.Exit(SOME_CASES_FAILED)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on stdout; numbers stand to the right of the first column."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    # Tight: all measures of a calibration fit a terminal of 80 columns.
    table = Table(box=SIMPLE_HEAD, header_style="bold", collapse_padding=True, pad_edge=False)
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
        print_statistics(summary.statistics)
    resumed = f", {len(summary.skipped)} were there already" if summary.skipped else ""
    typer.echo(f"{counted(len(summary.done), 'case')} written to {summary.out}{resumed}")
    list_failures((one.case, one.reason) for one in summary.failed)


def print_statistics(statistics: CalibrationStatistics) -> None:
    """Print the calibration that was counted, of pooled voxels and of cases."""
    from fastcal.evaluate import calibration_summary

    if not statistics.n_voxels:
        return
    print_calibration(
        calibration_summary(statistics), calibration_summary(statistics, reduction="case")
    )
    for name in statistics.regions:
        region = statistics.region(name)
        if region.n_voxels:
            typer.echo(f"region {name}")
            print_calibration(
                calibration_summary(region), calibration_summary(region, reduction="case")
            )


def print_calibration(pooled: Mapping[str, Any], by_case: Mapping[str, Any]) -> None:
    """Print two results of `calibration_summary`: of pooled voxels and of cases.

    AUROC and AURC are columns where they were counted (``--fine-bins``).
    """
    rows = [("pooled voxels", pooled), ("mean of cases", by_case)]
    print_table(
        ["calibration", *(title for name, (title, _) in _COLUMNS.items() if name in pooled)],
        [
            [
                of,
                *(
                    "-" if values[name] is None else shown(values[name])
                    for name, (_, shown) in _COLUMNS.items()
                    if name in pooled
                ),
            ]
            for of, values in rows
        ],
    )


_COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "ECE": ("ECE", lambda value: f"{100 * value:.3f} %"),
    "classwise_ECE_mean": ("classwise", lambda value: f"{100 * value:.3f} %"),
    "NLL": ("NLL", lambda value: f"{value:.5f}"),
    "Brier": ("Brier", lambda value: f"{value:.5f}"),
    "Dice_foreground_mean": ("Dice", lambda value: f"{value:.4f}"),
    "AUROC": ("AUROC", lambda value: f"{value:.4f}"),
    "AURC": ("AURC", lambda value: f"{value:.5f}"),
}
"""Entries of a summary that the table has, with their titles."""
