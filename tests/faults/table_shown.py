"""Commands that show results, ``report`` and ``view``, and sources that are read slab by slab."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from . import commands as c
from .damage import ANY, JSON, NIFTI, Damage, json_of, remove, replaced
from .kinds import Command, Expected, Kind
from .rows import HANDLED, Row, table
from .table_arguments import Option, accepted, named_by_value
from .table_files import Input
from .world import save_nifti, write_json

SAME = Expected.SAME
_SHOWN = ("done", "labels", "images", "folds")
_FEW = {name: ANY[name] for name in ("missing", "empty", "a FIFO", "a folder", "truncated at 1/2")}
_FEW |= {"a link to /dev/zero": ANY["a link to /dev/zero"]}
_FEW_JSON = _FEW | {
    name: JSON[name] for name in ("nested 200,000 deep", "a list", "null", "an empty object")
}
_FEW_NIFTI = _FEW | {name: NIFTI[name] for name in ("dim[0] = 9", "extents that claim 1.5 GB")}
_LEFT_OUT = {"missing": HANDLED}


def _counted(folder: Path) -> None:
    """Probabilities were not kept: what was counted is all there is."""
    for path in (folder / "done").glob("case_*.npz"):
        path.unlink()


def _warned(folder: Path) -> None:
    """What quality prediction and detection said of the cases lies in the folder."""
    write_json(
        folder / "done/quality.json",
        {"structures": [{"case": "case_a", "structure": "a", "dice": 0.4, "reason": "thin"}]},
    )
    write_json(folder / "done/ood.json", {"cases": [{"case": "case_a", "flagged": ["histogram"]}]})


def _zarr(folder: Path) -> None:
    """The probabilities lie in Zarr folders of their own."""
    import zarr

    for fold in folder.glob("folds/fold_*"):
        for path in fold.glob("*.npz"):
            p = np.load(path)["probabilities"]
            store = str(path.with_suffix(".zarr"))
            made = zarr.create_array(store=store, shape=p.shape, chunks=(1, 3, 5, 12), dtype="f4")
            made[:] = p
            path.unlink()


def _undescribed(folder: Path) -> None:
    """Nothing says what the labels are called."""
    for path in folder.rglob("dataset.json"):
        path.unlink()


REPORT = Command(
    "report",
    ("report", "-p", "done", "-g", "labels", "-i", "images", "-o", "page.html", "-q"),
    _SHOWN,
    "page.html",
    _warned,
)
REPORT_COUNTED = Command("report of what was counted", REPORT.argv, _SHOWN, "page.html", _counted)
VIEW = Command(
    "view",
    (
        *("view", "done", "case_a", "-i", "images", "-g", "labels"),
        *("--quality", "done/quality.json", "--png", "case.png"),
    ),
    _SHOWN,
    "case.png",
    _warned,
)
VIEW_PLAIN = Command(
    "view without dataset.json",
    ("view", "done", "case_a", "-i", "images", "-g", "labels", "--png", "case.png"),
    _SHOWN,
    "case.png",
    _undescribed,
)
_OF_CASES = ("folds", "labels", "images", "run")
ZARR = Command("ensemble (zarr)", c.ENSEMBLE.argv, _OF_CASES, "out", _zarr)
SLABS = c.ENSEMBLE.with_options("--memory", "1GB")
SLABS = Command("ensemble --memory", SLABS.argv, SLABS.needs, "out")
ZARR_SLABS = Command("ensemble --memory (zarr)", SLABS.argv, _OF_CASES, "out", _zarr)


def _files() -> Iterator[Input]:
    case = ("case_a",)
    folder = ("done",)
    for command in (REPORT, VIEW):
        label, image = "done/case_a.nii.gz", "images/case_a_0000.nii.gz"
        yield Input(command, "label map", label, _FEW_NIFTI, _LEFT_OUT, case)
        yield Input(command, "reference", "labels/case_a.nii.gz", _FEW_NIFTI, _LEFT_OUT, case)
        yield Input(command, "image", image, _FEW_NIFTI, {}, case)
        npz = _FEW | {"truncated at 1/4": ANY["truncated at 1/4"]}
        yield Input(command, "npz", "done/case_a.npz", npz, {"*": HANDLED}, case)
        entropy = "done/entropy/case_a.nii.gz"
        yield Input(command, "entropy", entropy, _FEW_NIFTI, _LEFT_OUT, case)
        yield Input(command, "segments.json", "done/segments.json", _FEW_JSON, _LEFT_OUT)
        # The viewer takes nothing from it but how many members there were.
        known = _LEFT_OUT | ({"an empty object": HANDLED} if command is VIEW else {})
        yield Input(command, "prediction.json", "done/prediction.json", _FEW_JSON, known)
        yield Input(command, "quality.json", "done/quality.json", _FEW_JSON, {"missing": HANDLED})
        yield Input(command, "dataset.json", "done/dataset.json", _FEW_JSON, _LEFT_OUT, folder)
    yield Input(REPORT, "ood.json", "done/ood.json", _FEW_JSON, _LEFT_OUT)
    yield Input(REPORT_COUNTED, "statistics", "done/calibration/calibration.npz", _FEW, _LEFT_OUT)
    chunk = "folds/fold_0/case_a.zarr/c/0/0/0/0"
    described = "folds/fold_0/case_a.zarr/zarr.json"
    for command in (ZARR, ZARR_SLABS):
        # A chunk that is missing stands for zeros: the sums of the voxels do not allow them.
        yield Input(command, "chunk", chunk, _FEW, {}, case)
        yield Input(command, "zarr.json", described, _FEW_JSON, {}, case)
    yield Input(SLABS, "npz", "folds/fold_0/case_a.npz", _FEW, {}, case)


def _record(**settings: Any) -> Damage:
    return json_of(lambda content: content.update(settings))


def _metadata(**fields: Any) -> Damage:
    return json_of(lambda content: content.update(fields))


def _chunked(*chunk: int) -> Damage:
    def do(content: dict[str, Any]) -> None:
        content["chunk_grid"]["configuration"]["chunk_shape"] = list(chunk)

    return json_of(do)


def _voxels(change: Callable[[Any], Any]) -> Damage:
    def damage(path: Path) -> None:
        read: Any = nib.load(path)
        save_nifti(path, change(np.asarray(read.dataobj)), read.affine)

    return damage


def _labelled(value: int, dtype: str) -> Damage:
    """One voxel has another label."""

    def change(labels: Any) -> Any:
        made = labels.astype(dtype)
        made[0, 0, 0] = value
        return made

    return _voxels(change)


def _contents() -> Iterator[Kind]:
    rows: list[Row] = [
        ("with labels 3", _record(labels=3)),
        ("with labels a list", _record(labels=["labels"])),
        ("with labels that are not there", _record(labels="path:nowhere"), HANDLED),
        ("of another format", _record(format=99)),
    ]
    yield from table("shown", REPORT_COUNTED, "prediction.json", "done/prediction.json", rows)
    rows = [
        ("with folders 3", _record(folders=3)),
        ("with folders of numbers", _record(folders=[1, 2])),
        ("with folders that are gone", _record(folders=["path:../gone"]), HANDLED),
        ("with folders a list of lists", _record(folders=[["a"]])),
    ]
    yield from table("shown", REPORT, "prediction.json", "done/prediction.json", rows)
    one = "done/case_b.npz"
    yield from table(
        "shown", REPORT, "one npz", one, [("less than what was counted", remove, HANDLED)]
    )
    label = "done/case_a.nii.gz"
    rows = [
        ("with a label of 2^31 - 1", _labelled(2**31 - 1, "int32")),
        ("with a label of -1", _labelled(-1, "int16")),
        ("with a label of 65535", _labelled(65535, "uint16"), HANDLED),
        ("of fractions", _voxels(lambda v: v.astype("f4") + 0.5)),
        ("of four axes", _voxels(lambda v: np.stack([v] * 4, -1))),
        ("of NaN", _voxels(lambda v: np.full(v.shape, np.nan, "f4"))),
    ]
    for command in (VIEW_PLAIN, REPORT):
        kept = rows if command is VIEW_PLAIN else [(*row[:2],) for row in rows]
        yield from table("shown", command, "label map", label, kept, ("case_a",))
    rows = [
        ("of NaN", _voxels(lambda v: np.full(v.shape, np.nan, "f4")), HANDLED),
        ("of 1e38", _voxels(lambda v: np.full(v.shape, 1e38, "f4")), HANDLED),
        ("of -1e38", _voxels(lambda v: np.full(v.shape, -1e38, "f4")), HANDLED),
        ("of 70 channels", _voxels(lambda v: np.stack([v] * 70, -1)), HANDLED),
        ("of one slice", _voxels(lambda v: v[..., :1])),
    ]
    for command in (VIEW, REPORT):
        for label, path in (
            ("image", "images/case_a_0000.nii.gz"),
            ("entropy", "done/entropy/case_a.nii.gz"),
        ):
            yield from table("shown", command, label, path, rows, ("case_a",))
    rows = [
        ("with a Dice of 7", _dice(7.0), HANDLED),
        ("with a Dice that is a word", _dice("high")),
        ("with a Dice of null", _dice(None)),
        ("with cases that are lists", json_of(lambda one: one.update(structures=[[]]))),
        ("of other cases", json_of(lambda one: one["structures"][0].update(case="z")), HANDLED),
    ]
    for command in (VIEW, REPORT):
        yield from table("shown", command, "quality.json", "done/quality.json", rows)
    yield from _groups()
    yield from _zarrs()


def _groups() -> Iterator[Kind]:
    """Predictions of label groups are shown as those of classes are."""
    shown = ("-g", "labels", "-i", "images")
    for command, words, made in (
        ("report", ("-p", "out", *shown, "-o", "page.html", "-q"), "page.html"),
        ("view", ("out", "case_a", *shown, "--png", "case.png"), "case.png"),
    ):
        line = (command, *words)
        yield Kind(
            name=f"{command} (label groups): what was just predicted",
            group="shown",
            command=Command(f"{command} (label groups)", line, _SHOWN, made, c.label_groups),
            steps=((c.ENSEMBLE_GROUPS.argv, None),),
            expected=Expected.RIGHT,
            check=accepted,
        )


def _dice(value: Any) -> Damage:
    return json_of(lambda content: content["structures"][0].update(dice=value))


def _zarrs() -> Iterator[Kind]:
    described = "folds/fold_0/case_a.zarr/zarr.json"
    huge = [3, 10**9, 10**9, 10**9]
    rows: list[Row] = [
        ("that claims terabytes", _metadata(shape=huge)),
        ("whose chunks claim terabytes", _chunked(1, 10**6, 10**6, 10**6)),
        ("with a chunk of 0", _chunked(0, 1, 1, 1)),
        ("with a chunk of -1", _chunked(-1, 1, 1, 1)),
        ("of negative extents", _metadata(shape=[3, -3, 10, 12])),
        ("of three axes", _metadata(shape=[3, 10, 12])),
        ("of another image", _metadata(shape=[3, 4, 10, 12])),
        ("of integers", _metadata(data_type="int32")),
        ("of texts", _metadata(data_type="string")),
        ("of version 2", _metadata(zarr_format=2)),
        ("of a group", replaced('{"zarr_format": 3, "node_type": "group", "attributes": {}}')),
        ("with an unknown codec", _metadata(codecs=[{"name": "os:system", "configuration": {}}])),
        ("without codecs", _metadata(codecs=[])),
        ("of 64 MB and more", replaced(json.dumps({"attributes": "x" * (65 << 20)}))),
    ]
    for command in (ZARR, ZARR_SLABS):
        yield from table("shown", command, "zarr.json", described, rows, ("case_a",))


def _options() -> Iterator[Option]:
    billion = "1000000000"
    yield Option(REPORT, "--bins {}", values=("0", "-1", billion))
    yield Option(REPORT, "--fine-bins {}", values=("-1", "3", billion))
    yield Option(REPORT, "--min-count {}", values=("-1", "1e30"), names=("min_count",))
    yield Option(REPORT, "--megabytes {}", values=("0", "-1", "nan"))
    yield Option(REPORT, "--region {}", values=("bogus", "box:nan", "band:-1", "prediction"))
    yield Option(REPORT, "--warning {}", values=("nowhere", "labels/case_a.nii.gz"))
    yield Option(REPORT, "--name a --name {}", values=("b", "a"), names=("names",))
    yield Option(VIEW, "--port {}", values=("-1", "65536"))
    yield Option(SLABS, "--memory {}", values=("0", "-1", "nan", "1KB", "x"))
    yield Option(c.ENSEMBLE, "--workers {}", values=("0", "-1", billion))
    yield Option(c.ENSEMBLE, "--scheduler {}", values=("x", "tcp://"))


def kinds() -> Iterator[Kind]:
    """Of files, contents and options."""
    for one in _files():
        yield from one.kinds("shown")
    yield from _contents()
    for option in _options():
        for kind in option.kinds("shown"):
            yield named_by_value(kind)
