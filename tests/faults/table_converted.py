"""What ``convert`` reads: downloads with tables, lists and headers of other programs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from . import commands as c
from .contents_arrays import _LABEL_ROWS
from .damage import ANY, GZIPPED, JSON, NIFTI, PLACES, json_of, replaced
from .kinds import Command, Expected, Kind
from .rows import HANDLED, SAME, TOLD, Row, _some, table
from .table_arguments import accepted
from .table_files import Input
from .world import DATASET_JSON, save_nifti

_FEW = {name: ANY[name] for name in ("missing", "empty", "a FIFO", "a folder", "truncated at 1/2")}
_CASE = ("patient001", "A1B1C1", "part_1")


def _files() -> Iterator[Input]:
    acdc = "acdc/training/patient001"
    image, label = f"{acdc}/patient001_frame01.nii.gz", f"{acdc}/patient001_frame01_gt.nii.gz"
    places = {**dict.fromkeys(PLACES, TOLD), "sform and qform off": HANDLED}
    whole = _FEW | NIFTI | GZIPPED | PLACES
    # The header says that the voxels begin where the extension does.
    places["an extension of 2 GB"] = HANDLED
    legal = {"slope infinite": HANDLED, "intercept NaN": HANDLED, **places}
    yield Input(c.CONVERT_ACDC, "image", image, whole, legal, _CASE)
    yield Input(c.CONVERT_ACDC, "label", label, _FEW | NIFTI | PLACES, legal, _CASE)
    # Lines that are cut off behind ED and ES are not missed.
    cut = dict.fromkeys(("truncated at 1/2", "truncated at 3/4", "truncated at 1/4"), HANDLED)
    yield Input(c.CONVERT_ACDC, "Info.cfg", f"{acdc}/Info.cfg", ANY, cut, _CASE)
    moving = "mnms/Training/Labeled/A1B1C1/A1B1C1_sa.nii.gz"
    yield Input(c.CONVERT_MNMS, "image", moving, _FEW, {}, _CASE)
    yield Input(c.CONVERT_MNMS, "table", "mnms/table.csv", ANY, {}, ("mnms", "A1B1C1", "A2B2C2"))
    yield Input(c.CONVERT_MSD, "dataset.json", "msd/dataset.json", JSON)
    again = {"*": SAME, "missing": Expected.RIGHT}
    settings = "made/conversion.json"
    yield Input(c.CONVERT_AGAIN, "conversion.json", settings, _FEW, {"*": HANDLED}, ("made",))
    for label_of, path in (
        ("image", "made/imagesTr/part_1_0000.nii.gz"),
        ("label", "made/labelsTr/part_1.nii.gz"),
        ("dataset.json", "made/dataset.json"),
    ):
        yield Input(c.CONVERT_AGAIN, f"its {label_of}", path, _FEW, again)


_TABLE = "External code,VendorName,Vendor,Centre,ED,ES\n"


def _contents() -> Iterator[Kind]:
    def info(text: str) -> Callable[[Path], None]:
        return replaced(text)

    rows: list[Row] = [
        ("of a frame beyond the volume", info("ED: 1\nES: 99\n")),
        ("of frame 0", info("ED: 0\nES: 2\n")),
        ("of frame -1", info("ED: -1\nES: 2\n")),
        ("of frame 10^30", info(f"ED: 1\nES: {10**30}\n")),
        ("of a frame that is a path", info("ED: 1\nES: ../../x\n")),
        ("of one frame twice", info("ED: 1\nES: 1\n")),
        ("of frame 1.0", info("ED: 1.0\nES: 2\n")),
        ("of frame NaN", info("ED: nan\nES: 2\n")),
        ("without ES", info("ED: 1\n")),
        ("with other lines", info("ED: 1\nES: 2\nED: 2\n"), HANDLED),
        ("with 100,000 lines", info("ED: 1\nES: 2\n" + "x: y\n" * 100_000), HANDLED),
    ]
    acdc = "acdc/training/patient001"
    yield from table("convert", c.CONVERT_ACDC, "Info.cfg", f"{acdc}/Info.cfg", rows, _CASE)
    rows = [
        ("without rows", replaced(_TABLE)),
        ("without the column ED", replaced("External code,ES\nA1B1C1,1\nA2B2C2,1\n")),
        ("without a patient", replaced(_TABLE + "A1B1C1,Siemens,A,1,0,1\n")),
        (
            "with a patient twice",
            replaced(_TABLE + "A1B1C1,S,A,1,0,1\n" * 2 + "A2B2C2,S,A,1,0,1\n"),
        ),
        ("of frame nan", replaced(_TABLE + "A1B1C1,S,A,1,nan,1\nA2B2C2,S,A,1,0,1\n")),
        ("of frame 1e400", replaced(_TABLE + "A1B1C1,S,A,1,1e400,1\nA2B2C2,S,A,1,0,1\n")),
        ("of frame 99", replaced(_TABLE + "A1B1C1,S,A,1,0,99\nA2B2C2,S,A,1,0,1\n")),
        ("of frame -1", replaced(_TABLE + "A1B1C1,S,A,1,-1,1\nA2B2C2,S,A,1,0,1\n")),
        ("of frame 0.5", replaced(_TABLE + "A1B1C1,S,A,1,0.5,1\nA2B2C2,S,A,1,0,1\n")),
        ("with short rows", replaced(_TABLE + "A1B1C1\nA2B2C2\n")),
        ("with long rows", replaced(_TABLE + "A1B1C1,S,A,1,0,1,2,3\nA2B2C2,S,A,1,0,1\n"), HANDLED),
        ("with a field of 1 MB", replaced(_TABLE + f"A1B1C1,{'S' * 10**6},A,1,0,1\n")),
        (
            "with a quote that never ends",
            replaced(_TABLE + 'A1B1C1,"S,A,1,0,1\nA2B2C2,S,A,1,0,1\n'),
        ),
        (
            "with NUL bytes",
            replaced((_TABLE + "A1B1C1,\0S,A,1,0,1\nA2B2C2,S,A,1,0,1\n").encode()),
            HANDLED,
        ),
        ("in UTF-16", lambda path: path.write_bytes(path.read_text().encode("utf-16"))),
        ("with semicolons", replaced(_TABLE.replace(",", ";") + "A1B1C1;S;A;1;0;1\n")),
    ]
    names = ("mnms", "A1B1C1", "A2B2C2")
    yield from table("convert", c.CONVERT_MNMS, "table", "mnms/table.csv", rows, names)
    few = _some(
        _LABEL_ROWS, "a fraction", "NaN", "nobody declared", "2^32", "1e300", "another shape"
    )
    label = f"{acdc}/patient001_frame01_gt.nii.gz"
    few = [row for row in few if "another shape" not in row[0] and "label 3" not in row[0]]
    yield from table("convert", c.CONVERT_ACDC, "label", label, few, _CASE)
    rows = [
        ("that lists a file that is missing", json_of(_listed("./imagesTr/nobody.nii.gz"))),
        ("that lists a path elsewhere", json_of(_listed("/etc/passwd"))),
        ("that lists a number", json_of(_listed(7)), HANDLED),
        ("with the training an object", json_of(lambda d: d.update(training={"a": 1})), HANDLED),
        ("with a label that is a word", json_of(lambda d: d["labels"].update({"x": "c"}))),
        ("with a label of 1e9", json_of(lambda d: d["labels"].update({"1000000000": "c"}))),
        ("without labels", json_of(lambda d: d.pop("labels"))),
        ("with a label less", json_of(lambda d: d["labels"].pop("2"))),
        ("with a channel more", json_of(lambda d: d["modality"].update({"1": "T2"}))),
        ("with a channel that is a list", json_of(lambda d: d.update(modality=[[]]))),
        ("of version 2", json_of(lambda d: d.update(DATASET_JSON)), HANDLED),
    ]
    names = ("dataset.json", "imagesTr", "part_1", "part_2")
    yield from table("convert", c.CONVERT_MSD, "dataset.json", "msd/dataset.json", rows, names)


def _listed(image: object) -> Callable[[dict[str, list[object]]], None]:
    def change(content: dict[str, list[object]]) -> None:
        content["training"].append({"image": image, "label": image})

    return change


def _places() -> Iterator[Kind]:
    """Folders that are read and written."""

    def moved(
        name: str, source: str, out: str, damage: Callable[[Path], None] | None = None
    ) -> Kind:
        command = Command(
            "convert msd", ("convert", "msd", source, out, "-q"), ("msd", "data", "labels"), out
        )
        return Kind(
            name=f"convert msd: {name}",
            group="convert",
            command=command,
            damage=damage,
            names=(source, out, Path(out).name, Path(source).name, str(Path(out).parent)),
            check=accepted,
        )

    def linked(folder: Path) -> None:
        (folder / "other").symlink_to("msd")

    def filled(folder: Path) -> None:
        (folder / "out").mkdir()
        (folder / "out/notes.txt").write_text("mine")

    yield moved("the source is missing", "nowhere", "out")
    yield moved("the source is a file", "msd/dataset.json", "out")
    yield moved("the source is another dataset", "labels", "out")
    yield moved("the output is the source", "msd", "msd")
    yield moved("the output is a link to the source", "msd", "other", linked)
    yield moved("the output is within the source", "msd", "msd/made")
    yield moved("the source is within the output", "msd/imagesTr", "msd")
    yield moved("the output is a dataset", "msd", "data")
    yield moved("the output is a file", "msd", "data/dataset.json")
    yield moved("the output holds a file", "msd", "out", filled)
    yield moved("the output cannot be made", "msd", "/proc/nowhere/out")

    def circle(folder: Path) -> None:
        (folder / "acdc/training/again").symlink_to("..")

    def twice(folder: Path) -> None:
        place = folder / "acdc/testing/patient001"
        place.mkdir(parents=True)
        for path in (folder / "acdc/training/patient001").iterdir():
            os.link(path, place / path.name)

    yield Kind(
        name="convert acdc: folders linked in a circle",
        group="convert",
        command=c.CONVERT_ACDC,
        damage=circle,
        expected=Expected.RIGHT,
    )
    yield Kind(
        name="convert acdc: a patient in two parts",
        group="convert",
        command=c.CONVERT_ACDC,
        damage=twice,
        names=("patient001", "acdc"),
    )

    def other_grid(folder: Path) -> None:
        path = folder / "acdc/training/patient001/patient001_frame01_gt.nii.gz"
        save_nifti(
            path, np.ones((3, 3, 3), np.uint8), np.diag([1.0, 1, 1, 1]) + 1e4 * np.eye(4, k=3)
        )

    yield Kind(
        name="convert acdc: a label that lies elsewhere",
        group="convert",
        command=c.CONVERT_ACDC,
        damage=other_grid,
        names=_CASE,
    )
    yield Kind(
        name="convert: an unknown set",
        group="convert",
        command=Command("convert", ("convert", "bogus", "msd", "out"), ("msd",), "out"),
        names=("bogus", "SET"),
        check=accepted,
    )
    yield Kind(
        name="convert again: from another source",
        group="convert",
        command=Command(
            "convert again", ("convert", "msd", "copy", "made", "-q"), ("msd",), "made", c.converted
        ),
        damage=lambda folder: (folder / "msd").rename(folder / "copy") and None,
        names=("source", "made"),
        check=accepted,
    )


def kinds() -> Iterator[Kind]:
    """Of downloads that are converted."""
    for one in _files():
        yield from one.kinds("convert")
    yield from _contents()
    yield from _places()
