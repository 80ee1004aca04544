"""``fastcal quality``: ``fit``, ``predict`` and ``evaluate``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcal.cli import mapping
from fastcal.cli.command import CommandGroup, SpreadCommand
from fastcal.cli.outcome import counted, print_table

if TYPE_CHECKING:
    from fastcal.quality import PredictedQuality, QualityEvaluation, QualityFit

quality = typer.Typer(
    name="quality",
    cls=CommandGroup,
    add_completion=False,
    help="Predict the Dice of structures from their uncertainty, and list the cases to look at.",
    no_args_is_help=True,
)


FIT = "The fit"
INTERVALS = "Intervals"
MEASURES = "Measures"


class Model(StrEnum):
    """Regressions; the names are those of `fastcal.quality.QualityPredictor`."""

    linear = "linear"
    ridge = "ridge"
    forest = "forest"


class Interval(StrEnum):
    """Kinds of intervals."""

    band = "band"
    split_residuals = "split"
    normalised = "normalised"


Folder = Annotated[
    Path,
    typer.Option(
        "-i",
        "--input",
        metavar="FOLDER",
        exists=True,
        help="Prediction folder with its segments.json.",
        rich_help_panel=mapping.FILES,
    ),
]
ReferenceLabels = Annotated[
    Path | None,
    typer.Option(
        "-g",
        "--labels",
        metavar="FOLDER",
        exists=True,
        help="Folder of reference label maps.",
        rich_help_panel=mapping.FILES,
    ),
]
Summary = Annotated[
    Path | None,
    typer.Option(
        "--summary",
        metavar="FILE",
        exists=True,
        help="JSON file of fastcal evaluate, in place of the label maps.",
        rich_help_panel=mapping.FILES,
    ),
]
Level = Annotated[
    float,
    typer.Option(
        "--level",
        metavar="SHARE",
        min=0,
        max=1,
        help="Share that the intervals are to hold.",
        rich_help_panel=INTERVALS,
    ),
]
Seed = Annotated[
    int,
    typer.Option("--seed", metavar="N", help="Seed of what is drawn.", rich_help_panel=INTERVALS),
]
Resamples = Annotated[
    int,
    typer.Option(
        "--resamples",
        metavar="N",
        min=1,
        help="Sets of cases drawn for the intervals.",
        rich_help_panel=INTERVALS,
    ),
]


@quality.command("fit", cls=SpreadCommand)
def fit(
    folder: Folder,
    out: mapping.JsonFile,
    labels: ReferenceLabels = None,
    summary: Summary = None,
    dataset_json: mapping.DatasetJson = None,
    model: Annotated[
        Model,
        typer.Option(
            "--model",
            metavar="NAME",
            help="The regression: linear (the paper's, of one score), ridge or forest.",
            rich_help_panel=FIT,
        ),
    ] = Model.linear,
    scores: Annotated[
        list[str],
        typer.Option(
            "--score",
            metavar="SCORE",
            help="Scores to use.",
            rich_help_panel=FIT,
        ),
    ] = ["binary_entropy"],  # noqa: B006  # typer reads it, nobody changes it
    per_structure: Annotated[
        bool,
        typer.Option("--per-structure", help="Fit each structure on its own.", rich_help_panel=FIT),
    ] = False,
    interval: Annotated[
        Interval | None,
        typer.Option(
            "--interval",
            metavar="KIND",
            help="band (of the linear fit), or conformal: split (of one width) or normalised "
            "(widths follow the errors). Without it, band for linear and split for the others.",
            rich_help_panel=INTERVALS,
        ),
    ] = None,
    level: Level = 0.95,
    seed: Seed = 0,
    affine: mapping.Affine = mapping.AffineForm.auto,
    quiet: mapping.Quiet = False,
) -> None:
    """Fit a predictor of Dice to predictions of cases that have references.

    Example:
        fastcal quality fit -i validation -g labelsTr -o quality.json
    """
    del affine  # its callback has chosen the form
    from fastcal.quality import fit_quality

    found = fit_quality(
        folder,
        out,
        labels=labels,
        summary=summary,
        dataset_json=dataset_json,
        model=model.value,
        scores=scores,
        per_structure=per_structure,
        interval=None if interval is None else interval.value,
        level=level,
        seed=seed,
        progress=not quiet,
    )
    _print_fit(found)


@quality.command("predict", cls=SpreadCommand)
def predict(
    predictor: Annotated[
        Path,
        typer.Option(
            "-c",
            "--predictor",
            metavar="FILE",
            exists=True,
            help="JSON file that fit wrote.",
            rich_help_panel=mapping.FILES,
        ),
    ],
    folder: Folder,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="Folder for quality.csv, quality.json and quality.png; without it, only print.",
            rich_help_panel=mapping.FILES,
        ),
    ] = None,
    top: Annotated[
        int, typer.Option("--top", metavar="N", min=0, help="Rows to print; 0 for all.")
    ] = 20,
) -> None:
    """Predict the Dice of every structure, and print the worst first, with the reason.

    Example:
        fastcal quality predict -c quality.json -i predicted -o quality --top 10
    """
    from fastcal.quality import predict_quality

    rows = predict_quality(predictor, folder, out)
    _print_predicted(rows, top)
    if out is not None:
        typer.echo(f"written: {out}")


@quality.command("evaluate", cls=SpreadCommand)
def evaluate(
    folder: Folder,
    labels: ReferenceLabels = None,
    summary: Summary = None,
    dataset_json: mapping.DatasetJson = None,
    predictor: Annotated[
        Path | None,
        typer.Option(
            "-c",
            "--predictor",
            metavar="FILE",
            exists=True,
            help="JSON file that fit wrote from other cases: adds its errors and coverage.",
            rich_help_panel=mapping.FILES,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="Folder for quality_scores.json, quality_scores.csv and the predictor's picture.",
            rich_help_panel=mapping.FILES,
        ),
    ] = None,
    failure_dice: Annotated[
        float,
        typer.Option(
            "--failure-dice",
            metavar="DICE",
            min=0,
            max=1,
            help="A Dice below it is a failure.",
            rich_help_panel=MEASURES,
        ),
    ] = 0.7,
    maps: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="MAP",
            help="Uncertainty maps whose filtered Dice (QU-BraTS) is computed; needs --labels.",
            rich_help_panel=MEASURES,
        ),
    ] = None,
    level: Level = 0.95,
    resamples: Resamples = 2000,
    seed: Seed = 0,
    affine: mapping.Affine = mapping.AffineForm.auto,
    quiet: mapping.Quiet = False,
) -> None:
    """Measure how well each score tells the quality of structures and finds those that failed.

    Example:
        fastcal quality evaluate -i predicted -g labelsTs -c quality.json -o quality
    """
    del affine  # its callback has chosen the form
    from fastcal.quality import evaluate_quality

    found = evaluate_quality(
        folder,
        out,
        labels=labels,
        summary=summary,
        dataset_json=dataset_json,
        predictor=predictor,
        failure_dice=failure_dice,
        maps=maps or (),
        level=level,
        n_resamples=resamples,
        seed=seed,
        progress=not quiet,
    )
    _print_evaluation(found)
    if out is not None:
        typer.echo(f"written: {out}")


def _print_fit(found: QualityFit) -> None:
    predictor = found.predictor
    if predictor.model == "linear":
        rows = []
        for name in predictor.fits_:
            line = predictor.line(name or None)
            numbers = (line.intercept, line.slope, line.r)
            shown = [f"{one:.3f}" for one in numbers]
            rows.append([name or "all structures", *shown, f"{line.p_value:.2g}", str(line.n)])
        print_table(["logit Dice", "intercept", "slope", "r", "p", "structures"], rows)
    held = f", calibrated with {found.n_calibration}" if found.n_calibration else ""
    absent = f"; {found.n_absent} were not predicted" if found.n_absent else ""
    if found.never:
        absent += f", {', '.join(found.never)} in no case"
    typer.echo(
        f"fitted to {counted(found.n_training, 'structure')} of "
        f"{counted(found.n_cases, 'case')}{held}{absent}; written: {found.out}"
    )


def _print_predicted(rows: list[PredictedQuality], top: int) -> None:
    shown = rows[: top or len(rows)]
    print_table(
        ["look at", "structure", "Dice", "interval", "reason"],
        [
            [
                row.case,
                row.structure,
                f"{row.dice:.3f}",
                f"{row.low:.3f}-{row.high:.3f}",
                row.reason or "as in the training",
            ]
            for row in shown
        ],
        sentences=True,
    )
    if len(shown) < len(rows):
        typer.echo(f"{len(rows) - len(shown)} more with a higher Dice; --top 0 prints all")


def _print_evaluation(found: QualityEvaluation) -> None:
    from fastcal.quality import MEASURES

    names = [name for name in MEASURES if name != "failure_rate"]
    print_table(
        ["score", *(MEASURES[name].title for name in names)],
        [
            [score, *(_number(measures[name].value) for name in names)]
            for score, measures in found.measures.items()
        ],
    )
    print_reasons(found.measures)
    for name, one in found.predictor.get("structures", {}).items():
        typer.echo(
            f"predictor, {name}: MAE {_interval(one['mae'])}, coverage "
            f"{_interval(one['coverage'])} at level {found.predictor['level']:g}"
        )
    for name, structures in found.filtered.items():
        for structure, curves in structures.items():
            typer.echo(f"filtered Dice by {name}, {structure}: score {_interval(curves['score'])}")
    absent = f", {found.n_absent} not predicted" if found.n_absent else ""
    typer.echo(
        f"{counted(found.n_structures, 'structure')} of {counted(found.n_cases, 'case')}{absent}"
    )


def print_reasons(measures: Any) -> None:
    """Say once why measures have no value; equal scores of the random order are expected."""
    reasons: dict[str, list[str]] = {}
    for score, each in measures.items():
        for name, found in each.items():
            if found.reason is not None and "the same score" not in found.reason:
                reasons.setdefault(found.reason, []).append(f"{name} of {score}")
    for reason, without in reasons.items():
        more = f" and {len(without) - 1} more" if len(without) > 1 else ""
        typer.echo(f"no {without[0]}{more}: {reason}")


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.3f}"


def _interval(found: dict[str, float]) -> str:
    low, high = _number(found["low"]), _number(found["high"])
    return f"{_number(found['value'])} [{low}, {high}]"
