"""``fastcal evaluate``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from fastcal.cli import mapping
from fastcal.cli.outcome import list_failures, print_calibration, print_journal, print_table

MEASURES = "Measures"


class MissedHd95(StrEnum):
    """What ``--missed-hd95`` takes."""

    omit = "omit"
    diagonal = "diagonal"


def evaluate(
    labels: mapping.References,
    predictions: Annotated[
        Path,
        typer.Option(
            "-p",
            "--predictions",
            metavar="FOLDER",
            exists=True,
            help="Folder of predictions: label maps, and npz for calibration.",
            rich_help_panel=mapping.FILES,
        ),
    ],
    out: mapping.JsonFile,
    dataset_json: mapping.DatasetJson = None,
    num_classes: Annotated[
        int | None,
        typer.Option(
            "--num-classes",
            metavar="N",
            min=2,
            help="Number of classes with the background, where there is no dataset.json.",
            rich_help_panel=mapping.FILES,
        ),
    ] = None,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities/--no-probabilities",
            help="Read saved probabilities for the calibration.",
            rich_help_panel=mapping.CALIBRATION,
        ),
    ] = True,
    surface: Annotated[
        bool,
        typer.Option(
            "--surface/--no-surface",
            help="Compute HD95 and surface Dice.",
            rich_help_panel=MEASURES,
        ),
    ] = True,
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance",
            metavar="MM",
            min=0,
            help="Tolerance of the surface Dice in mm.",
            rich_help_panel=MEASURES,
        ),
    ] = 1.0,
    missed_hd95: Annotated[
        MissedHd95,
        typer.Option(
            "--missed-hd95",
            metavar="RULE",
            help="HD95 of a case where only one of reference and prediction has the structure: "
            "omit the case, or count the diagonal of the image.",
            rich_help_panel=MEASURES,
        ),
    ] = MissedHd95.omit,
    bins: mapping.Bins = 15,
    closed: mapping.ClosedOption = mapping.Closed.right,
    fine_bins: mapping.FineBins = 0,
    region: mapping.AnyRegion = None,
    allow_missing: mapping.AllowMissing = False,
    keep_going: mapping.KeepGoing = False,
    scheduler: mapping.Scheduler = None,
    workers: mapping.WorkersOption = None,
    affine: mapping.Affine = mapping.AffineForm.auto,
    quiet: mapping.Quiet = False,
) -> None:
    """Score predictions: Dice, HD95, surface Dice, volumes, calibration.

    Examples:
        fastcal evaluate -g labelsTs -p predicted -o scores.json
        fastcal evaluate -g labelsTs -p predicted -o scores.json --region band:2
    """
    del affine  # its callback has chosen the form
    from fastcal.evaluate import evaluate_folder

    summary = evaluate_folder(
        labels,
        predictions,
        out,
        dataset_json=dataset_json,
        num_classes=num_classes,
        probabilities=probabilities,
        surface=surface,
        tolerance_mm=tolerance,
        missed_hd95=missed_hd95.value,
        n_bins=bins,
        closed=closed.value,
        fine_bins=fine_bins,
        regions=region or [],
        allow_missing=allow_missing,
        keep_going=keep_going,
        scheduler=scheduler,
        workers=workers,
        progress=not quiet,
    )
    if scheduler is not None or workers is not None:
        from fastcal.cases.journal import journal_beside

        print_journal(journal_beside(out))
    _print_summary(summary)
    typer.echo(f"written: {out}")
    list_failures((one["case"], one["reason"]) for one in summary["failed"])


_TITLES = {"Dice": "Dice", "HD95": "HD95, mm", "SurfaceDice": "surface Dice"}


def _print_undefined(name: str, values: dict[str, Any], n_cases: int) -> None:
    """Say which means are of fewer cases than were scored, and why."""
    titles = {measure: title.removesuffix(", mm") for measure, title in _TITLES.items()}
    held = {title: values.get(f"n_{measure}", n_cases) for measure, title in titles.items()}
    found = [
        f"mean {title} over {n} of {n_cases} cases" for title, n in held.items() if n < n_cases
    ]
    counts = {
        "missed": values["n_missed"],
        "invented": values["n_invented"],
        "absent from both": values["n_absent"],
    }
    found += [f"{reason} in {n} of {n_cases} cases" for reason, n in counts.items() if n]
    if found:
        typer.echo(f"{name}: {', '.join(found)}")


def _print_summary(summary: dict[str, Any]) -> None:
    measures = [measure for measure in _TITLES if measure in summary["foreground_mean"]]
    names = summary["labels"]
    structures = [(names.get(key, key), values) for key, values in summary["mean"].items()]
    print_table(
        ["structure", *(_TITLES[measure] for measure in measures)],
        [
            [name, *(f"{values[measure]:.4f}" for measure in measures)]
            for name, values in (*structures, ("mean", summary["foreground_mean"]))
        ],
    )
    for name, values in structures:
        _print_undefined(name, values, len(summary["metric_per_case"]))
    if summary["calibration"] is not None:
        # nnU-Net's keys: "(1, 2)" is a group of labels, whose channel is no label map.
        channels = any(key.startswith("(") for key in summary["mean"])
        print_calibration(
            summary["calibration"]["pooled"], summary["calibration"]["case"], channels=channels
        )
        found = summary["calibration"].get("regions", {"pooled": {}})
        for name, pooled in found["pooled"].items():
            typer.echo(f"region {name}")
            print_calibration(pooled, found["case"][name], channels=channels)
        if channels:
            typer.echo(
                "The first table scores the painted label maps, the calibration table each channel "
                "above 0.5: where channels overlap, their Dice differ."
            )
