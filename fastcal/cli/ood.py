"""``fastcal ood``: ``fit``, ``predict`` and ``evaluate``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastcal.cli import mapping
from fastcal.cli.command import CommandGroup, SpreadCommand
from fastcal.cli.outcome import counted, print_table
from fastcal.cli.quality import Level, Resamples, Seed, print_reasons
from fastcal.cli.settings import Device
from fastcal.cli.values import one_of

if TYPE_CHECKING:
    from fastcal.ood import Detectors, Estimate, JudgedCase

ood = typer.Typer(
    name="ood",
    cls=CommandGroup,
    add_completion=False,
    help="Detect cases that are unlike those that the networks were made for.",
    no_args_is_help=True,
)


DETECTORS = "Detectors"


class CovarianceName(StrEnum):
    """Estimates of the covariance of features."""

    ledoit_wolf = "ledoit-wolf"
    empirical = "empirical"


Predictions = Annotated[
    Path | None,
    typer.Option(
        "-i",
        "--input",
        metavar="FOLDER",
        help="Prediction folder with its segments.json, for scores of segments.",
        rich_help_panel=mapping.FILES,
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        "--images",
        metavar="FOLDER",
        help="Folder of CASE_0000.nii.gz, for intensity histograms and features of networks.",
        rich_help_panel=mapping.FILES,
    ),
]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        "-m",
        "--model",
        metavar="FOLDER",
        help="Run folder whose networks give features.",
        rich_help_panel=mapping.FILES,
    ),
]
DetectorFile = Annotated[
    Path,
    typer.Option(
        "-c",
        "--detector",
        metavar="FILE",
        help="JSON file that fit wrote.",
        rich_help_panel=mapping.FILES,
    ),
]
OutFolder = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--out",
        metavar="FOLDER",
        help="Folder for tables; without it, only print.",
        rich_help_panel=mapping.FILES,
    ),
]


@ood.command("fit", cls=SpreadCommand)
def fit(
    out: mapping.JsonFile,
    predictions: Predictions = None,
    images: Images = None,
    model: RunFolder = None,
    scores: Annotated[
        list[str] | None,
        typer.Option(
            "--score",
            metavar="SCORE",
            help="Scores of segments, histogram or mahalanobis. Without it, "
            "segment entropy, mutual information, pairwise Dice and both distances, as far as "
            "what is given has them.",
            rich_help_panel=DETECTORS,
        ),
    ] = None,
    fpr: Annotated[
        float,
        typer.Option(
            "--fpr",
            metavar="SHARE",
            help="Share of cases like these that each score may flag.",
            rich_help_panel=DETECTORS,
        ),
    ] = 0.05,
    structures: Annotated[
        list[str] | None,
        typer.Option(
            "--structure",
            metavar="NAME",
            help="Structures whose scores are averaged; else all.",
            rich_help_panel=DETECTORS,
        ),
    ] = None,
    covariance: Annotated[
        CovarianceName,
        typer.Option(
            "--covariance",
            metavar="NAME",
            help=f"Estimate of the features' covariance: {one_of(CovarianceName)}.",
            rich_help_panel=DETECTORS,
        ),
    ] = CovarianceName.ledoit_wolf,
    bins: Annotated[
        int,
        typer.Option(
            "--bins",
            metavar="N",
            help="Number of bins of intensity histograms.",
            rich_help_panel=DETECTORS,
        ),
    ] = 64,
    members: mapping.Members = None,
    device: Device = None,
    trust: mapping.TrustOption = None,
    affine: mapping.Affine = mapping.AffineForm.auto,
    quiet: mapping.Quiet = False,
) -> None:
    """Fit detectors to cases like those of the training, which the networks have not seen.

    Examples:
        fastcal ood fit -i validation -o ood.json
        fastcal ood fit --images imagesTr -m run -o ood.json --score mahalanobis
    """
    del affine  # its callback has chosen the form
    from fastcal.ood import fit_ood

    fitted = fit_ood(
        out,
        predictions=predictions,
        images=images,
        run=model,
        scores=scores or (),
        false_positive_rate=fpr,
        structures=structures or None,
        covariance=covariance.value,
        n_bins=bins,
        members=members or None,
        device=device,
        trust=trust or (),
        progress=not quiet,
    )
    _print_fit(fitted)
    typer.echo(f"written: {out}")


@ood.command("predict", cls=SpreadCommand)
def predict(
    detector: DetectorFile,
    predictions: Predictions = None,
    images: Images = None,
    model: RunFolder = None,
    out: OutFolder = None,
    members: mapping.Members = None,
    device: Device = None,
    trust: mapping.TrustOption = None,
    affine: mapping.Affine = mapping.AffineForm.auto,
    quiet: mapping.Quiet = False,
) -> None:
    """Judge cases, and print the most unlike first.

    Example:
        fastcal ood predict -c ood.json -i predicted -o unlike
    """
    del affine  # its callback has chosen the form
    from fastcal.ood import predict_ood

    rows = predict_ood(
        detector,
        out,
        predictions=predictions,
        images=images,
        run=model,
        members=members or None,
        device=device,
        trust=trust or (),
        progress=not quiet,
    )
    _print_cases(rows)
    if out is not None:
        typer.echo(f"written: {out}")


@ood.command("evaluate", cls=SpreadCommand)
def evaluate(
    detector: DetectorFile,
    predictions: Predictions = None,
    images: Images = None,
    ood_predictions: Annotated[
        Path | None,
        typer.Option(
            "--ood",
            metavar="FOLDER",
            help="Prediction folder of the cases that are to be found.",
            rich_help_panel=mapping.FILES,
        ),
    ] = None,
    ood_images: Annotated[
        Path | None,
        typer.Option(
            "--ood-images",
            metavar="FOLDER",
            help="Folder of their images.",
            rich_help_panel=mapping.FILES,
        ),
    ] = None,
    model: RunFolder = None,
    out: OutFolder = None,
    members: mapping.Members = None,
    device: Device = None,
    trust: mapping.TrustOption = None,
    level: Level = 0.95,
    resamples: Resamples = 2000,
    seed: Seed = 0,
    affine: mapping.Affine = mapping.AffineForm.auto,
    quiet: mapping.Quiet = False,
) -> None:
    """Measure how well detectors tell cases like the training's from others.

    Example:
        fastcal ood evaluate -c ood.json -i predicted --ood predicted-elsewhere
    """
    del affine  # its callback has chosen the form
    from fastcal.ood import CaseFolder, evaluate_ood

    if ood_predictions is None and ood_images is None:
        raise ValueError("--ood or --ood-images must name the cases to be found, got neither")
    found = evaluate_ood(
        detector,
        CaseFolder(predictions, images),
        CaseFolder(ood_predictions, ood_images),
        out,
        run=model,
        members=members or None,
        device=device,
        trust=trust or (),
        level=level,
        n_resamples=resamples,
        seed=seed,
        progress=not quiet,
    )
    _print_measures(found)
    if out is not None:
        typer.echo(f"written: {out}")


def _print_fit(fitted: Detectors) -> None:
    from fastcal.ood import unlike_end

    print_table(
        ["score", "flagged if", "threshold", "cases"],
        [
            [
                name,
                "above" if unlike_end(name) == "high" else "below",
                f"{one.threshold_:.4g}",
                str(len(one.training_)),
            ]
            for name, one in fitted.by_score.items()
        ],
    )


def _print_cases(rows: list[JudgedCase]) -> None:
    names = list(rows[0].scores) if rows else []
    print_table(
        ["case", *names, "flagged by"],
        [
            [
                row.case,
                *(f"{row.scores[name]:.4g} (p {row.p_values[name]:.3f})" for name in names),
                ", ".join(row.flagged) or "-",
            ]
            for row in rows
        ],
        sentences=True,
    )
    flagged = sum(bool(row.flagged) for row in rows)
    typer.echo(f"{counted(flagged, 'case')} of {len(rows)} flagged")


def _print_measures(found: dict[str, dict[str, Estimate]]) -> None:
    from fastcal.ood.evaluation import TITLES

    print_table(
        ["score", *TITLES.values()],
        [[score, *(str(measures[name]) for name in TITLES)] for score, measures in found.items()],
    )
    print_reasons(found)
