"""What commands print at their end: failed cases, tables, and the exit code that follows."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from fastcal.calibration import CalibrationStatistics
    from fastcal.cases.journal import WorkerTally
    from fastcal.convert import Conversion
    from fastcal.predict import PredictionSummary

SOME_CASES_FAILED = 1
"""Exit code of a run with --keep-going that left cases out."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    Example:
        >>> counted(1, "case"), counted(2, "case")
        ('1 case', '2 cases')
    """
    return f"{number} {noun}" + "s" * (number != 1)


def list_failures(failures: Iterable[tuple[str, str]]) -> None:
    """Name the cases that failed on stderr, and exit with `SOME_CASES_FAILED` if there are any.

    Args:
        failures: Case name and reason.
    """
    lines = [f"  {case}: {reason}" for case, reason in failures]
    if lines:
        typer.echo(f"fastcal: {counted(len(lines), 'case')} failed:", err=True)
        for line in lines:
            typer.echo(line, err=True)
        raise typer.Exit(SOME_CASES_FAILED)


def print_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, sentences: bool = False
) -> None:
    """Print a table on stdout; all columns but the first are aligned to the right.

    Args:
        header: Title of each column.
        rows: Its cells, row by row.
        sentences: Whether the last column holds sentences, which are aligned to the left and
            broken into lines.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    # Tight, so that all metrics of a calibration fit into a terminal of 80 columns.
    table = Table(box=SIMPLE_HEAD, header_style="bold", collapse_padding=True, pad_edge=False)
    for column, title in enumerate(header):
        sentence = sentences and column == len(header) - 1
        table.add_column(
            title,
            justify="right" if column and not sentence else "left",
            no_wrap=column > 0 and not sentence,
        )
    for row in rows:
        table.add_row(*row)
    # A pipe has no width of its own.
    width = None if sys.stdout.isatty() else 200
    Console(width=width).print(table)


def finish_predictions(summary: PredictionSummary) -> None:
    """Print what a run over cases did; failed cases are listed and lead to an exit code of 1."""
    if summary.statistics is not None:
        print_statistics(summary.statistics)
    print_journal(summary.journal)
    finish_cases(summary)


def finish_cases(made: PredictionSummary | Conversion) -> None:
    """Say how many cases were written; failed cases are listed and lead to an exit code of 1."""
    if made.skipped and not made.done and not made.failed:
        typer.echo(f"Up to date: {counted(len(made.skipped), 'case')} in {made.out}")
        return
    resumed = f", {len(made.skipped)} were there already" if made.skipped else ""
    typer.echo(f"{counted(len(made.done), 'case')} written to {made.out}{resumed}")
    list_failures((one.case, one.reason) for one in made.failed)


def print_journal(journal: Path | None) -> None:
    """Print what each worker did, where workers did the cases."""
    if journal is not None:
        from fastcal.cases.journal import read_journal, tallies

        print_workers(tallies(read_journal(journal)))


def print_workers(workers: Sequence[WorkerTally]) -> None:
    """Print what each worker did; nothing where there were none."""
    rows = [
        [one.worker, str(one.done), str(one.failed), str(one.lost), f"{one.seconds:.1f}"]
        for one in workers
    ]
    if rows:
        print_table(["worker", "done", "failed", "lost", "seconds"], rows)


def print_statistics(statistics: CalibrationStatistics) -> None:
    """Print the calibration that was counted, over pooled voxels and over cases."""
    from fastcal.calibration import calibration_summary

    if not statistics.n_voxels:
        return
    channels = statistics.multilabel
    print_calibration(
        calibration_summary(statistics),
        calibration_summary(statistics, reduction="case"),
        channels=channels,
    )
    for name in statistics.regions:
        region = statistics.region(name)
        if region.n_voxels:
            typer.echo(f"region {name}")
            print_calibration(
                calibration_summary(region),
                calibration_summary(region, reduction="case"),
                channels=channels,
            )


def print_calibration(
    pooled: Mapping[str, Any], by_case: Mapping[str, Any], *, channels: bool = False
) -> None:
    """Print two results of `fastcal.calibration.calibration_summary`.

    The columns are those of `fastcal.calibration.METRICS` that were counted: AUROC and AURC, for
    example, need ``--fine-bins``.

    Args:
        pooled: Over all voxels.
        by_case: The mean over cases.
        channels: Every class is a question of its own, such as a group of labels. The Dice is then
            that of channels above 0.5, and is called so: that of painted label maps is another.
    """
    from fastcal.calibration import METRICS

    shown = [metric for metric in METRICS.values() if metric.column and metric.key in pooled]
    titles = [metric.title for metric in shown]
    if channels:
        dice = METRICS["dice"].title
        titles = [f"{dice} of p > 0.5" if title == dice else title for title in titles]
    print_table(
        ["calibration", *titles],
        [
            [name, *(metric.text(summary[metric.key]) for metric in shown)]
            for name, summary in (("pooled voxels", pooled), ("mean of cases", by_case))
        ],
    )
