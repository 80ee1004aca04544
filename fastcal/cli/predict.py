"""``fastcal predict``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from fastcal.cli import mapping
from fastcal.cli.outcome import finish_predictions
from fastcal.cli.settings import Devices
from fastcal.cli.values import one_of

AUGMENTATION = "Test-time augmentation"
NETWORKS = "Networks"

SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")


class Resampling(StrEnum):
    """What is resampled to the grid of the image."""

    probabilities = "probabilities"
    logits = "logits"


class Precision(StrEnum):
    """Precision of the networks' arithmetic."""

    float32 = "float32"
    bf16 = "bf16"
    fp16 = "fp16"


def predict(
    run: mapping.Model,
    images: Annotated[
        Path,
        typer.Option(
            "-i",
            "--images",
            metavar="FOLDER",
            exists=True,
            help="Folder of images, CASE_0000.nii.gz.",
            rich_help_panel=mapping.FILES,
        ),
    ],
    out: mapping.Out,
    cases: Annotated[
        list[str] | None,
        typer.Option(
            "--case",
            metavar="CASE",
            help="Names of the cases to use, or train, val or test: that part of the split.",
            rich_help_panel=mapping.FILES,
        ),
    ] = None,
    members: mapping.Members = None,
    mc_dropout: Annotated[
        int,
        typer.Option(
            "--mc-dropout",
            metavar="T",
            min=0,
            help="Stochastic passes per member; 0 for none.",
            rich_help_panel=mapping.MEMBERS,
        ),
    ] = 0,
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            metavar="N",
            help="Seed of the dropout masks and the noise.",
            rich_help_panel=mapping.MEMBERS,
        ),
    ] = 0,
    mirror: Annotated[
        list[int] | None,
        typer.Option(
            "--mirror",
            metavar="AXIS",
            min=0,
            max=2,
            help="All mirrorings along these axes (0 1 for slices).",
            rich_help_panel=AUGMENTATION,
        ),
    ] = None,
    rotate: Annotated[
        bool,
        typer.Option(
            "--rotate",
            help="Quarter turns of axes 0 and 1.",
            rich_help_panel=AUGMENTATION,
        ),
    ] = False,
    noise: Annotated[
        float,
        typer.Option(
            "--noise",
            metavar="SIGMA",
            min=0,
            help="Gaussian noise on the normalised image.",
            rich_help_panel=AUGMENTATION,
        ),
    ] = 0.0,
    draws: Annotated[
        int,
        typer.Option(
            "--draws",
            metavar="N",
            min=1,
            help="Number of noisy copies of each view.",
            rich_help_panel=AUGMENTATION,
        ),
    ] = 1,
    views_as_members: Annotated[
        bool,
        typer.Option(
            "--views-as-members",
            help="Views count as members; without it their logits are averaged per member.",
            rich_help_panel=AUGMENTATION,
        ),
    ] = False,
    maps: mapping.Maps = [mapping.Map.entropy],  # noqa: B006  # typer reads it, nobody changes it
    space: mapping.SpaceOption = mapping.Space.prob,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature",
            metavar="T",
            min=0,
            help="Divide logits by T before averaging.",
            rich_help_panel=mapping.MEMBERS,
        ),
    ] = 1.0,
    resample: Annotated[
        Resampling,
        typer.Option(
            "--resample",
            metavar="VALUES",
            help="What is resampled to the grid of the image, if it must be: "
            f"{one_of(Resampling)}.",
            rich_help_panel=NETWORKS,
        ),
    ] = Resampling.probabilities,
    overlap: Annotated[
        float,
        typer.Option(
            "--overlap",
            metavar="SHARE",
            min=0,
            max=1,
            help="Overlap of neighbouring windows, for networks trained on patches.",
            rich_help_panel=NETWORKS,
        ),
    ] = 0.5,
    precision: Annotated[
        Precision,
        typer.Option(
            "--precision",
            metavar="TYPE",
            help=f"Precision of the arithmetic, {one_of(Precision)}; bf16 is fast on a GPU.",
            rich_help_panel=NETWORKS,
        ),
    ] = Precision.float32,
    labels: mapping.Labels = None,
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
    allow_duplicates: mapping.AllowDuplicates = False,
    device: Devices = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            metavar="N",
            min=1,
            help="Slices or windows per forward pass; without it 16 slices or 2 windows.",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    trust: mapping.TrustOption = None,
    affine: mapping.Affine = mapping.AffineForm.auto,
    quiet: mapping.Quiet = False,
) -> None:
    """Predict cases with a trained ensemble: labels, uncertainty maps, calibration.

    A run that was interrupted goes on when the command is repeated: finished cases are skipped.

    Examples:
        fastcal predict -m run -i imagesTs -o predicted
        fastcal predict -m run -i imagesTr -o validation -g labelsTr --case val
        fastcal predict -m run -i imagesTs -o out --mc-dropout 10 --map variance
    """
    del affine  # its callback has chosen the form
    count, own = mapping.chosen_part(num_parts, part_id, quiet=quiet)
    from fastcal.predict import InferenceAugmentation, predict_cases

    part = next((name for name in SPLITS if cases == [name]), None)
    summary = predict_cases(
        run,
        images,
        out,
        cases=part or cases or None,
        members=members or None,
        mc_dropout=mc_dropout,
        seed=seed,
        augmentation=InferenceAugmentation(
            mirror=tuple(mirror or ()),
            rotate=rotate,
            noise=noise,
            draws=draws,
            as_members=views_as_members,
        ),
        maps=[one.value for one in maps],
        space=space.value,
        temperature=temperature,
        resample=resample.value,
        overlap=overlap,
        precision=precision.value,
        labels=labels,
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
        allow_duplicates=allow_duplicates,
        device=device if device is None or len(device) > 1 else device[0],
        batch_size=batch_size,
        trust=trust or (),
        progress=not quiet,
    )
    finish_predictions(summary)
