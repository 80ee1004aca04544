"""``fastcal predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fastcal.cli import mapping
from fastcal.cli.outcome import finish_predictions
from fastcal.cli.settings import Device

SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")


def predict(
    run: Annotated[
        Path, typer.Option("-m", "--model", metavar="FOLDER", help="Run folder that train wrote.")
    ],
    images: Annotated[
        Path,
        typer.Option(
            "-i", "--images", metavar="FOLDER", help="Folder of images, CASE_0000.nii.gz."
        ),
    ],
    out: mapping.Out,
    cases: Annotated[
        list[str] | None,
        typer.Option(
            "--cases",
            metavar="CASE",
            help="Names of the cases to do, or train, val or test: that part of the run.",
        ),
    ] = None,
    members: Annotated[
        list[int] | None,
        typer.Option(
            "--members", metavar="N", help="Numbers of the members to use; all without it."
        ),
    ] = None,
    mc_dropout: Annotated[
        int,
        typer.Option("--mc-dropout", metavar="T", help="Stochastic passes a member; 0 is none."),
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the dropout masks.")] = 0,
    maps: mapping.Maps = [mapping.Map.entropy],  # noqa: B006  # typer reads it, nobody changes it
    space: mapping.SpaceOption = mapping.Space.prob,
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="T", help="Divides the logits first.")
    ] = 1.0,
    labels: mapping.Labels = None,
    bins: mapping.Bins = 15,
    closed: mapping.ClosedOption = mapping.Closed.right,
    dtype: mapping.Dtype = mapping.MapType.float32,
    save_probabilities: mapping.SaveProbabilities = False,
    num_parts: mapping.NumParts = 1,
    part_id: mapping.PartId = 0,
    overwrite: mapping.Overwrite = False,
    keep_going: mapping.KeepGoing = False,
    device: Device = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", help="Slices in a forward pass.")
    ] = 16,
    quiet: mapping.Quiet = False,
) -> None:
    """Predict cases with a trained ensemble: labels, uncertainty maps, calibration."""
    from fastcal.predict import predict_cases

    part = next((name for name in SPLITS if cases == [name]), None)
    summary = predict_cases(
        run,
        images,
        out,
        cases=part or cases or None,
        members=members or None,
        mc_dropout=mc_dropout,
        seed=seed,
        maps=[one.value for one in maps],
        space=space.value,
        temperature=temperature,
        labels=labels,
        n_bins=bins,
        closed=closed.value,
        dtype=dtype.value,
        save_probabilities=save_probabilities,
        num_parts=num_parts,
        part_id=part_id,
        overwrite=overwrite,
        keep_going=keep_going,
        device=device,
        batch_size=batch_size,
        progress=not quiet,
    )
    finish_predictions(summary)
