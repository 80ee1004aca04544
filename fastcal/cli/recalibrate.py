"""``fastcal recalibrate``: ``fit`` and ``apply``."""

from __future__ import annotations

import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastcal.cli import mapping
from fastcal.cli.command import CommandGroup, SpreadCommand
from fastcal.cli.outcome import counted, finish_predictions, print_journal, print_table
from fastcal.cli.values import one_of

if TYPE_CHECKING:
    from fastcal.recalibrate import Calibrator, FolderFit

recalibrate = typer.Typer(
    name="recalibrate",
    cls=CommandGroup,
    add_completion=False,
    help="Fit a calibrator to saved probabilities with labels, and apply it to others.",
    no_args_is_help=True,
)


FIT = "The fit"


class Method(StrEnum):
    """Calibrators; the names are those of `fastcal.recalibrate.METHODS`."""

    temperature = "temperature"
    temperature_per_class = "temperature-per-class"
    vector = "vector"
    dirichlet = "dirichlet"
    histogram = "histogram"
    isotonic = "isotonic"


class Order(StrEnum):
    """What is fitted where folders are the members of an ensemble."""

    pool_then_calibrate = "pool-then-calibrate"
    member_then_pool = "member-then-pool"


@recalibrate.command("fit", cls=SpreadCommand)
def fit(
    inputs: Annotated[
        list[Path],
        typer.Option(
            "-i",
            "--input",
            metavar="FOLDER",
            exists=True,
            help="Folders of saved probabilities; one with fold_*/validation stands for these.",
            rich_help_panel=mapping.FILES,
        ),
    ],
    labels: mapping.References,
    out: mapping.JsonFile,
    method: Annotated[
        Method,
        typer.Option(
            "--method",
            metavar="NAME",
            help=f"The calibrator that is fitted: {one_of(Method)}.",
            rich_help_panel=FIT,
        ),
    ] = Method.temperature,
    ensemble: Annotated[
        Order | None,
        typer.Option(
            "--ensemble",
            metavar="ORDER",
            help="Folders are members: pool-then-calibrate their mean, or member-then-pool for a "
            "calibrator of each. Without it, folders hold different cases for one calibrator.",
            rich_help_panel=mapping.MEMBERS,
        ),
    ] = None,
    weights: mapping.Weights = None,
    space: mapping.SpaceOption = mapping.Space.prob,
    from_logits: mapping.FromLogits = False,
    cases: mapping.Cases = None,
    dataset_json: mapping.DatasetJson = None,
    bins: Annotated[
        int,
        typer.Option(
            "--bins",
            metavar="N",
            min=1,
            help="Number of bins of the histogram method.",
            rich_help_panel=FIT,
        ),
    ] = 15,
    odir: Annotated[
        float,
        typer.Option(
            "--odir",
            metavar="WEIGHT",
            min=0,
            help="Off-diagonal penalty of the dirichlet method.",
            rich_help_panel=FIT,
        ),
    ] = 1e-5,
    folds: Annotated[
        int,
        typer.Option(
            "--folds",
            metavar="N",
            min=2,
            help="Score the method on N held-out folds of the cases; 0 spares the time.",
            rich_help_panel=FIT,
        ),
    ] = 5,
    allow_duplicates: mapping.AllowDuplicates = False,
    scheduler: mapping.Scheduler = None,
    workers: mapping.WorkersOption = None,
    affine: mapping.Affine = mapping.AffineForm.auto,
    quiet: mapping.Quiet = False,
) -> None:
    """Fit a calibrator to saved probabilities, such as nnU-Net's cross validation.

    Examples:
        fastcal recalibrate fit -i nnUNetTrainer__3d -g labelsTr -o calibrator.json
        fastcal recalibrate fit -i a b -g labelsTr -o c.json --method vector
    """
    del affine  # its callback has chosen the form
    from fastcal.recalibrate import fit_folders

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        fitted = fit_folders(
            inputs,
            labels,
            out,
            method=method.value,
            ensemble=None if ensemble is None else ensemble.value,
            from_logits=from_logits,
            weights=weights or None,
            space=space.value,
            cases=cases or None,
            dataset_json=dataset_json,
            n_bins=bins,
            odir=odir,
            folds=folds,
            allow_duplicates=allow_duplicates,
            scheduler=scheduler,
            workers=workers,
            progress=not quiet,
        )
    for warning in caught:
        typer.echo(f"fastcal: {warning.message}", err=True)
    _print_fit(fitted)


@recalibrate.command("apply", cls=SpreadCommand)
def apply(
    calibrator: Annotated[
        Path,
        typer.Option(
            "-c",
            "--calibrator",
            metavar="FILE",
            exists=True,
            help="JSON file that fit wrote.",
            rich_help_panel=mapping.FILES,
        ),
    ],
    inputs: Annotated[
        list[Path],
        typer.Option(
            "-i",
            "--input",
            metavar="FOLDER",
            exists=True,
            help="Folders of saved probabilities; for an ensemble one per member, as in the fit.",
            rich_help_panel=mapping.FILES,
        ),
    ],
    out: mapping.Out,
    maps: mapping.Maps = [mapping.Map.entropy],  # noqa: B006  # typer reads it, nobody changes it
    cases: mapping.Cases = None,
    labels: mapping.Labels = None,
    dataset_json: mapping.DatasetJson = None,
    bins: mapping.Bins = 15,
    closed: mapping.ClosedOption = mapping.Closed.right,
    fine_bins: mapping.FineBins = 0,
    region: mapping.RegionOption = None,
    dtype: mapping.Dtype = mapping.MapType.float32,
    save_probabilities: mapping.SaveProbabilities = False,
    segments: mapping.Segments = True,
    num_parts: mapping.NumParts = None,
    part_id: mapping.PartId = None,
    scheduler: mapping.Scheduler = None,
    workers: mapping.WorkersOption = None,
    overwrite: mapping.Overwrite = False,
    keep_going: mapping.KeepGoing = False,
    memory: mapping.Memory = None,
    allow_duplicates: mapping.AllowDuplicates = False,
    affine: mapping.Affine = mapping.AffineForm.auto,
    quiet: mapping.Quiet = False,
) -> None:
    """Calibrate saved probabilities; write labels, maps and npz as ensemble does.

    Example:
        fastcal recalibrate apply -c calibrator.json -i fold_0 fold_1 -o calibrated
    """
    del affine  # its callback has chosen the form
    count, own = mapping.chosen_part(num_parts, part_id, quiet=quiet)
    from fastcal.recalibrate import apply_folders

    summary = apply_folders(
        calibrator,
        inputs,
        out,
        maps=[one.value for one in maps],
        cases=cases or None,
        labels=labels,
        dataset_json=dataset_json,
        n_bins=bins,
        closed=closed.value,
        fine_bins=fine_bins,
        regions=region or [],
        dtype=dtype.value,
        save_probabilities=save_probabilities,
        segments=segments,
        num_parts=count,
        part_id=own,
        scheduler=scheduler,
        workers=workers,
        overwrite=overwrite,
        keep_going=keep_going,
        memory=memory,
        allow_duplicates=allow_duplicates,
        progress=not quiet,
    )
    finish_predictions(summary)


def _print_fit(fitted: FolderFit) -> None:
    print_journal(fitted.journal)
    rows = []
    for number, one in enumerate(fitted.calibrators):
        name = "calibrator" if len(fitted.calibrators) == 1 else f"member {number}"
        before, after = getattr(one, "nll_before_", None), getattr(one, "nll_", None)
        numbers = ["" if value is None else f"{value:.5f}" for value in (before, after)]
        counts = [str(getattr(one, count, "")) for count in ("n_voxels_", "n_passes_")]
        rows.append([name, _parameters(one), *numbers, *counts])
    heads = ["parameters", "NLL", "after", "voxels", "passes"]
    print_table([fitted.calibrators[0].kind, *heads], rows)
    _print_held_out(fitted)
    typer.echo(f"fitted to {counted(len(fitted.cases), 'case')}; written: {fitted.out}")


def _print_held_out(fitted: FolderFit) -> None:
    """Print what the method does to cases that it was not fitted to."""
    rows = []
    for number, one in enumerate(fitted.held_out):
        name = "held out" if len(fitted.held_out) == 1 else f"member {number}, held out"
        for when, statistics in (("before", one.before), ("after", one.after)):
            scores = (statistics.nll(), statistics.brier(), 100 * statistics.ece())
            rows.append([f"{name}, {when}", *(f"{score:.5f}" for score in scores)])
    if rows:
        folds = counted(fitted.held_out[0].folds, "fold")
        print_table([f"{folds} of the cases", "NLL", "Brier", "ECE %"], rows)
    else:
        typer.echo("not scored on held-out folds (this needs two cases, and --folds of 2 or more)")


def _parameters(calibrator: Calibrator) -> str:
    from fastcal.recalibrate import TemperatureScaling, VectorScaling

    if isinstance(calibrator, TemperatureScaling):
        found = calibrator.temperature_
        each = [found] if isinstance(found, float) else found.tolist()
        return "T " + " ".join(f"{one:.4f}" for one in each)
    if isinstance(calibrator, VectorScaling):
        weight, bias = calibrator.weight_.tolist(), calibrator.bias_.tolist()
        return f"w {' '.join(f'{w:.3f}' for w in weight)}, b {' '.join(f'{b:.3f}' for b in bias)}"
    return f"of {calibrator.num_classes_} classes"
