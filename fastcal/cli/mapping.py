"""Options that predict and ensemble have in common."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


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
    """Voxel type of the maps' files."""

    float32 = "float32"
    uint8 = "uint8"
    uint16 = "uint16"


class Closed(StrEnum):
    """Which end of a bin belongs to it."""

    right = "right"
    left = "left"


Out = Annotated[
    Path, typer.Option("-o", "--out", metavar="FOLDER", help="Folder of the predictions.")
]
Maps = Annotated[
    list[Map],
    typer.Option(
        "--maps",
        metavar="MAP",
        help="Maps to write, each into a folder of its name: "
        f"{', '.join(Map)}; several may follow.",
    ),
]
SpaceOption = Annotated[
    Space, typer.Option("--space", help="Average probabilities, or logits as nnU-Net does.")
]
Cases = Annotated[
    list[str] | None,
    typer.Option("--cases", metavar="CASE", help="Names of the cases to do; all without it."),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "-g",
        "--labels",
        metavar="FOLDER",
        help="Folder of references: adds calibration in the same pass.",
    ),
]
Bins = Annotated[int, typer.Option("--bins", metavar="N", help="Bins of the calibration errors.")]
ClosedOption = Annotated[Closed, typer.Option("--closed", help="Which end of a bin belongs to it.")]
Resolution = Annotated[
    int,
    typer.Option(
        "--fine-bins",
        metavar="N",
        help="Fine cells, a power of two, for AUROC, AURC and adaptive errors; 0 for none.",
    ),
]
RegionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--region",
        metavar="REGION",
        help="Count a region of the references apart: box[:MM[:SLICES]], band:MM or foreground.",
    ),
]
Dtype = Annotated[
    MapType,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        help="Of the maps: float32, or uint8 or uint16 scaled by scl_slope.",
    ),
]
SaveProbabilities = Annotated[
    bool, typer.Option("--save-probabilities", help="Write nnU-Net's CASE.npz of the mean.")
]
NumParts = Annotated[
    int, typer.Option("--num-parts", metavar="N", help="Share the cases among this many runs.")
]
PartId = Annotated[
    int, typer.Option("--part-id", metavar="K", help="Which of the parts this run is, from 0.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Do finished cases again, also with other settings.")
]
KeepGoing = Annotated[
    bool,
    typer.Option("--keep-going", help="Go on after a case that fails; list failures at the end."),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No line for each case.")]
