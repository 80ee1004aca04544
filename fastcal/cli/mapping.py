"""Options of the commands that read and write folders of cases, each declared once."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fastcal.cli.coercion import shaped
from fastcal.cli.command import held_while_it_runs
from fastcal.cli.values import one_of

FILES = "Files"
MEMBERS = "Members"
CALIBRATION = "Calibration"
WRITTEN = "What is written"
RUN = "The run"
"""Groups of options in the help; options without a group come last."""

one_device = shaped("--device", r"(cpu|cuda)(:\d{1,3})?", "cpu, cuda or cuda:N")
any_devices = shaped("--device", r"all|(cpu|cuda)(:\d{1,3})?", "cpu, cuda, cuda:N or all")
_shaped_region = shaped(
    "--region",
    r"box(:[\d.]+(:\d+)?)?|band:[\d.]+|foreground|prediction",
    "box[:MM[:SLICES]], band:MM, foreground or prediction",
)
_shaped_size = shaped("--memory", r"(?i)\s*[\d.]+\s*[KMGT]?(i?B)?\s*", "a size such as 500M or 2G")
"""Whether the words of these options have their form."""


class Map(StrEnum):
    """Maps that can be written; the names are those of `fastcal.core.problem.MAPS`."""

    mean = "mean"
    label = "label"
    confidence = "confidence"
    entropy = "entropy"
    expected_entropy = "expected_entropy"
    mutual_information = "mutual_information"
    variance = "variance"
    disagreement = "disagreement"


class Space(StrEnum):
    """What is averaged."""

    prob = "prob"
    logit = "logit"


class MapType(StrEnum):
    """Voxel type of the map files."""

    float32 = "float32"
    uint8 = "uint8"
    uint16 = "uint16"


class Closed(StrEnum):
    """Which edge of a bin belongs to it."""

    right = "right"
    left = "left"


class AffineForm(StrEnum):
    """What says where voxels lie; the names are those of `fastcal.data.affines.RULES`."""

    auto = "auto"
    sform = "sform"
    qform = "qform"


def _read_with(context: typer.Context, form: AffineForm) -> AffineForm:
    def enter() -> AbstractContextManager[None]:
        from fastcal.data.affines import affine_from

        return affine_from(form.value)

    if form is not AffineForm.auto:  # which is the rule anyway, and needs nothing to be imported
        held_while_it_runs(context, enter)
    return form


Affine = Annotated[
    AffineForm,
    typer.Option(
        "--affine",
        metavar="FORM",
        callback=_read_with,
        help="What says where the voxels of a NIfTI file lie: its sform, its qform, or auto, which "
        "is the sform unless its voxel sizes contradict pixdim.",
        rich_help_panel=RUN,
    ),
]
"""It takes effect while the command runs, so that a function has nothing to do with its value."""
Model = Annotated[
    Path,
    typer.Option(
        "-m",
        "--model",
        metavar="FOLDER",
        exists=True,
        help="Run folder that train wrote.",
        rich_help_panel=FILES,
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "-o",
        "--out",
        metavar="FOLDER",
        help="Folder of the predictions.",
        rich_help_panel=FILES,
    ),
]
JsonFile = Annotated[
    Path,
    typer.Option("-o", "--out", metavar="FILE", help="JSON file to write.", rich_help_panel=FILES),
]
Maps = Annotated[
    list[Map],
    typer.Option(
        "--map",
        metavar="MAP",
        help=f"Maps to write, each into a folder of its name: {one_of(Map)}.",
        rich_help_panel=WRITTEN,
    ),
]
SpaceOption = Annotated[
    Space,
    typer.Option(
        "--space",
        metavar="SPACE",
        help="What is averaged: prob (probabilities), or logit as nnU-Net does.",
        rich_help_panel=MEMBERS,
    ),
]
Weights = Annotated[
    list[float] | None,
    typer.Option(
        "--weight",
        metavar="WEIGHT",
        min=0,
        help="One weight per member; equal without it.",
        rich_help_panel=MEMBERS,
    ),
]
FromLogits = Annotated[
    bool,
    typer.Option(
        "--from-logits",
        help="The files hold logits, not probabilities.",
        rich_help_panel=MEMBERS,
    ),
]
Cases = Annotated[
    list[str] | None,
    typer.Option(
        "--case",
        metavar="CASE",
        help="Names of the cases to use; all without it.",
        rich_help_panel=FILES,
    ),
]
Members = Annotated[
    list[int] | None,
    typer.Option(
        "--member",
        metavar="N",
        min=0,
        help="Numbers of the members to use; all without it.",
        rich_help_panel=MEMBERS,
    ),
]
TrustOption = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        metavar="PACKAGE",
        help="Packages that the networks of a run may be imported from.",
        rich_help_panel=RUN,
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "-g",
        "--labels",
        metavar="FOLDER",
        exists=True,
        help="Folder of reference label maps: adds calibration in the same pass.",
        rich_help_panel=FILES,
    ),
]
References = Annotated[
    Path,
    typer.Option(
        "-g",
        "--labels",
        metavar="FOLDER",
        exists=True,
        help="Folder of reference label maps.",
        rich_help_panel=FILES,
    ),
]
DatasetJson = Annotated[
    Path | None,
    typer.Option(
        "--dataset-json",
        metavar="FILE",
        exists=True,
        help="nnU-Net's dataset.json with labels, regions and ignore label; by default the one in "
        "or above the input folders.",
        rich_help_panel=FILES,
    ),
]
Bins = Annotated[
    int,
    typer.Option(
        "--bins",
        metavar="N",
        min=1,
        max=65536,
        help="Number of bins of the calibration errors.",
        rich_help_panel=CALIBRATION,
    ),
]
ClosedOption = Annotated[
    Closed,
    typer.Option(
        "--bin-edge",
        metavar="EDGE",
        help=f"Which edge of a bin belongs to it: {one_of(Closed)}.",
        rich_help_panel=CALIBRATION,
    ),
]
FineBins = Annotated[
    int,
    typer.Option(
        "--fine-bins",
        metavar="N",
        min=0,
        help="Fine cells, a power of two, for AUROC, AURC and adaptive errors; 0 for none.",
        rich_help_panel=CALIBRATION,
    ),
]
RegionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--region",
        metavar="REGION",
        callback=_shaped_region,
        help="Also count a region of the references: box[:MM[:SLICES]], band:MM or foreground.",
        rich_help_panel=CALIBRATION,
    ),
]
AnyRegion = Annotated[
    list[str] | None,
    typer.Option(
        "--region",
        metavar="REGION",
        callback=_shaped_region,
        help="Also count a region: box[:MM[:SLICES]], band:MM, foreground or prediction.",
        rich_help_panel=CALIBRATION,
    ),
]
Dtype = Annotated[
    MapType,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        help="Voxel type of the maps: float32, or uint8 or uint16 scaled by scl_slope.",
        rich_help_panel=WRITTEN,
    ),
]
SaveProbabilities = Annotated[
    bool,
    typer.Option(
        "--save-probabilities",
        help="Write the mean as CASE.npz. nnU-Net's --save_probabilities.",
        rich_help_panel=WRITTEN,
    ),
]
Segments = Annotated[
    bool,
    typer.Option(
        "--segments/--no-segments",
        help="Score the segment of each structure: segments.json and segments.csv.",
        rich_help_panel=WRITTEN,
    ),
]
NumParts = Annotated[
    int | None,
    typer.Option(
        "--num-parts",
        metavar="N",
        min=1,
        help="Number of runs that share the cases; in a job array of SLURM, its size. nnU-Net's "
        "-num_parts.  [default: 1]",
        rich_help_panel=RUN,
    ),
]
PartId = Annotated[
    int | None,
    typer.Option(
        "--part-id",
        metavar="K",
        min=0,
        help="Which of the parts this run is, from 0; in a job array of SLURM, its place there. "
        "nnU-Net's -part_id.  [default: 0]",
        rich_help_panel=RUN,
    ),
]


def chosen_part(num_parts: int | None, part_id: int | None, *, quiet: bool) -> tuple[int, int]:
    """Return the number of parts and this part: as given, else those of a job array of SLURM.

    Raises:
        ValueError: There is no such part, or the ids of the array do not say which share is whose.
    """
    from fastcal.core.job_array import array_part
    from fastcal.core.job_array import chosen_part as chosen

    count, own = chosen(num_parts, part_id, os.environ)
    if own >= count:
        raise ValueError(f"--part-id must be below --num-parts, which is {count}, got {own}")
    if part_id is None and count > 1 and count == array_part(os.environ)[0] and not quiet:
        typer.echo(f"part {own} of {count}, from 0, as the job array of SLURM has it", err=True)
    return count, own


Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="Dask scheduler whose workers do the cases, such as tcp://node1:8786.",
        rich_help_panel=RUN,
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        max=1024,
        help="Processes of this machine that do the cases, each one at a time; several GPUs are "
        "dealt to them.",
        rich_help_panel=RUN,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Do finished cases again. With other settings or inputs the folder starts anew, which "
        "is refused for a part of its cases.",
        rich_help_panel=RUN,
    ),
]
KeepGoing = Annotated[
    bool,
    typer.Option(
        "--keep-going",
        help="Go on after a case that fails; list failures at the end.",
        rich_help_panel=RUN,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        callback=_shaped_size,
        help="Most memory that the process takes, such as 2G; members are read slab by slab.",
        rich_help_panel=RUN,
    ),
]
AllowDuplicates = Annotated[
    bool,
    typer.Option(
        "--allow-duplicates",
        help="Take a member that is given twice; it counts twice.",
        rich_help_panel=MEMBERS,
    ),
]
AllowMissing = Annotated[
    bool,
    typer.Option(
        "--allow-missing",
        "--chill",
        help="Ignore references that have no prediction. --chill is nnU-Net's word for it.",
        rich_help_panel=RUN,
    ),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Do not print a line for each case.")]
