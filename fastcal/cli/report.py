"""``fastcal report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastcal.cli import mapping

PAGE = "The page"


def report(
    predictions: Annotated[
        list[Path],
        typer.Option(
            "-p",
            "--predictions",
            metavar="FOLDER",
            exists=True,
            help="Folders of predictions to compare, of nnU-Net or fastcal: label maps, and npz "
            "for calibration.",
            rich_help_panel=mapping.FILES,
        ),
    ],
    labels: mapping.References,
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="HTML file to write.",
            rich_help_panel=mapping.FILES,
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            "-i",
            "--images",
            metavar="FOLDER",
            exists=True,
            help="Folder of images (CASE_0000.nii.gz) to show under labels and entropy.",
            rich_help_panel=mapping.FILES,
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="What the folders are called, one per folder; by default the parts of their paths "
            "that differ.",
            rich_help_panel=PAGE,
        ),
    ] = None,
    title: Annotated[
        str | None,
        typer.Option(
            "--title",
            metavar="TEXT",
            help="Head of the page; the name of the dataset without it.",
            rich_help_panel=PAGE,
        ),
    ] = None,
    warning: Annotated[
        list[Path] | None,
        typer.Option(
            "--warning",
            metavar="FOLDER",
            exists=True,
            help="Folders that fastcal quality predict or fastcal ood predict wrote, whose "
            "warnings are shown beside the cases.",
            rich_help_panel=mapping.FILES,
        ),
    ] = None,
    members: Annotated[
        bool,
        typer.Option(
            "--members/--no-members",
            help="Compare ensembles with their members, where these are still there.",
            rich_help_panel=mapping.MEMBERS,
        ),
    ] = True,
    dataset_json: mapping.DatasetJson = None,
    region: mapping.RegionOption = None,
    no_regions: Annotated[
        bool,
        typer.Option(
            "--no-regions",
            help="Count the whole volume alone.",
            rich_help_panel=mapping.CALIBRATION,
        ),
    ] = False,
    bins: mapping.Bins = 15,
    closed: mapping.ClosedOption = mapping.Closed.right,
    fine_bins: mapping.FineBins = 1024,
    min_count: Annotated[
        int,
        typer.Option(
            "--min-count",
            metavar="N",
            min=0,
            help="Hide bins of this many voxels or fewer in reliability diagrams at first.",
            rich_help_panel=PAGE,
        ),
    ] = 1000,
    megabytes: Annotated[
        float,
        typer.Option(
            "--megabytes",
            metavar="MB",
            min=0,
            help="Largest size of the page; pictures are thinned out.",
            rich_help_panel=PAGE,
        ),
    ] = 15.0,
    affine: mapping.Affine = mapping.AffineForm.auto,
    quiet: mapping.Quiet = False,
) -> None:
    """Compare prediction folders in one HTML page: verdict, numbers, calibration, cases.

    Examples:
        fastcal report -p predicted -g labelsTs -i imagesTs -o report.html
        fastcal report -p nnunet/fold_0 mine/ensemble -g labelsTs -o report.html
    """
    del affine  # its callback has chosen the form
    if no_regions and region:
        raise ValueError(f"--region must be left out with --no-regions, got {region[0]}")
    from fastcal.report.builder import REGIONS, build
    from fastcal.report.provenance import command_line

    written = build(
        predictions,
        labels,
        out,
        images=images,
        names=name or (),
        title=title,
        warnings=warning or (),
        members=members,
        dataset_json=dataset_json,
        regions=[] if no_regions else region or REGIONS,
        n_bins=bins,
        closed=closed.value,
        fine_bins=fine_bins,
        min_count=min_count,
        megabytes=megabytes,
        command=command_line(),
        progress=not quiet,
    )
    typer.echo(f"written: {written}")
