"""``fastcal ensemble``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastcal.cli import mapping
from fastcal.cli.outcome import finish_predictions


def ensemble(
    inputs: Annotated[
        list[Path],
        typer.Option(
            "-i",
            "--input",
            metavar="FOLDER",
            exists=True,
            help="Folders of saved probabilities, one per member, such as those of the folds.",
            rich_help_panel=mapping.FILES,
        ),
    ],
    out: mapping.Out,
    maps: mapping.Maps = [mapping.Map.entropy],  # noqa: B006  # typer reads it, nobody changes it
    space: mapping.SpaceOption = mapping.Space.prob,
    weights: mapping.Weights = None,
    temperature: Annotated[
        list[float] | None,
        typer.Option(
            "--temperature",
            metavar="T",
            min=0,
            help="One temperature for all folders, or one per folder.",
            rich_help_panel=mapping.MEMBERS,
        ),
    ] = None,
    from_logits: mapping.FromLogits = False,
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
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="DEVICE",
            callback=mapping.one_device,
            help="Where the members are combined: cpu, cuda, cuda:1.",
            rich_help_panel=mapping.RUN,
        ),
    ] = "cpu",
    affine: mapping.Affine = mapping.AffineForm.auto,
    quiet: mapping.Quiet = False,
) -> None:
    """Combine folders of saved probabilities, such as nnU-Net's: labels, maps, calibration.

    A run that was interrupted goes on when the command is repeated: finished cases are skipped.

    Examples:
        fastcal ensemble -i fold_0 fold_1 fold_2 -o out
        fastcal ensemble -i fold_0 fold_1 -o out -g labelsTs --map entropy variance
        fastcal ensemble -i fold_0 fold_1 -o out --save-probabilities --keep-going
    """
    del affine  # its callback has chosen the form
    count, own = mapping.chosen_part(num_parts, part_id, quiet=quiet)
    from fastcal.predict import ensemble_folders

    summary = ensemble_folders(
        inputs,
        out,
        maps=[one.value for one in maps],
        space=space.value,
        weights=weights or None,
        temperature=temperature or 1.0,
        from_logits=from_logits,
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
        device=device,
        progress=not quiet,
    )
    finish_predictions(summary)
