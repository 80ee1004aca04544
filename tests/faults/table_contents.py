"""Files that are whole but say what cannot be: values, sizes, types, contradictions, bombs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import commands as c
from .contents_arrays import (
    _LABEL_ROWS,
    _PICKLES,
    _arrays,
    _descriptions,
    _labels_of,
    _moved,
    _npz_only,
    _put,
    _swapped,
)
from .contents_runs import _run_folders
from .contents_states import _CALIBRATORS, _STATE_ROWS, _yaml
from .damage import Damage, with_array
from .kinds import Kind
from .rows import HANDLED, LISTED, TOLD, Row, _some, table
from .world import AFFINE, DATASET_JSON, SHAPE, save_nifti, write_json


def _images() -> Iterator[Kind]:
    def image(make: Callable[[Any], Any], affine: Any = AFFINE) -> Damage:
        return _labels_of(make, affine)

    rows: list[Row] = [
        ("with NaN", image(_put(np.nan, np.float32))),
        ("with infinity", image(_put(np.inf, np.float32))),
        ("all NaN", image(lambda a: np.full_like(a, np.nan))),
        ("constant", image(lambda a: np.full_like(a, 3.0)), HANDLED),
        ("of 1e30", image(lambda a: a * np.float32(1e30)), HANDLED),
        ("of four axes", image(lambda a: np.stack([a, a], -1))),
        ("of two axes", image(lambda a: a[..., 0]), HANDLED),
        ("of one axis", image(lambda a: a[:, 0, 0])),
        ("of another shape than its label", image(lambda a: a[:-1])),
        ("moved from its label by 5 mm", image(lambda a: a, _moved(5.0))),
    ]
    path = "data/imagesTr/case_a_0000.nii.gz"
    yield from table("train", c.TRAIN, "image", path, rows, ("case_a",))
    rows = [row for row in rows if row[0] != "with NaN"]
    yield from table("predict", c.PREDICT, "image", "images/case_a_0000.nii.gz", rows, ("case_a",))
    label_rows = _some(_LABEL_ROWS, *_FEW_LABELS)
    yield from table(
        "train", c.TRAIN, "label", "data/labelsTr/case_a.nii.gz", label_rows, ("case_a",)
    )
    empty: list[Row] = [("all background in every case", lambda path: _emptied(path), HANDLED)]
    yield from table("train", c.TRAIN, "labels", "data/labelsTr/case_a.nii.gz", empty)


def _emptied(path: Path) -> None:
    for label in path.parent.glob("*.nii.gz"):
        save_nifti(label, np.zeros(SHAPE, np.uint8))


def _contradictions() -> Iterator[Kind]:
    """Files that are right each on its own, but not together."""

    def other_folds(folder: Path) -> None:
        write_json(
            folder / "folds/fold_1/dataset.json",
            DATASET_JSON | {"labels": {"background": 0, "b": 1, "a": 2}},
        )

    yield Kind(
        name="ensemble: dataset.json of the second folder names labels otherwise",
        group="ensemble",
        command=c.ENSEMBLE,
        damage=other_folds,
        names=("dataset.json",),
    )
    path = "folds/fold_0/case_a.npz"
    rows: list[Row] = [("contradicts the label map beside it", with_array(_swapped), TOLD)]
    yield from table("evaluate", c.EVALUATE, "npz", path, rows)

    def one_failed(folder: Path) -> None:
        (folder / "folds/fold_0/case_a.npz").write_bytes(b"")

    for command, group in (
        (c.ENSEMBLE, "ensemble"),
        (c.EVALUATE, "evaluate"),
        (c.APPLY, "recalibrate"),
    ):
        yield Kind(
            name=f"{command.name} --keep-going: an empty npz",
            group=group,
            command=command.with_options("--keep-going"),
            damage=one_failed,
            expected=LISTED,
            names=("case_a.npz",),
        )

    def one_image(folder: Path) -> None:
        (folder / "images/case_a_0000.nii.gz").write_bytes(b"")

    yield Kind(
        name="predict --keep-going: an empty image",
        group="predict",
        command=c.PREDICT.with_options("--keep-going"),
        damage=one_image,
        expected=LISTED,
        names=("case_a_0000.nii.gz",),
    )


_FEW_ARRAYS = (
    *("one voxel NaN", "-0.3", "all zeros", "sums are 0.5", "logits", "one class", "class more"),
    *("three axes", "another grid", "objects", "complex", "another key", "big-endian"),
)
_FEW_LABELS = ("a fraction", "NaN", "nobody declared", "2^32", "1e300", "another shape", "turned")


def kinds() -> Iterator[Kind]:
    """Of the contents of all formats."""
    npz, pkl = "folds/fold_0/case_a.npz", "folds/fold_0/case_a.pkl"
    case = ("case_a",)
    arrays = [*_arrays(), *_npz_only()]
    few = _some(arrays, *_FEW_ARRAYS)
    yield from table("ensemble", c.ENSEMBLE, "npz", npz, arrays, case)
    npy = _some(_arrays(), "axes", "objects", "texts", "Fortran", "big-endian", "number", "records")
    yield from table("ensemble", c.ENSEMBLE_NPY, "npy", "folds/fold_0/case_a.npy", npy, case)
    yield from table("recalibrate", c.FIT, "npz", npz, few, case)
    yield from table("recalibrate", c.APPLY, "npz", npz, few, case)
    yield from table("evaluate", c.EVALUATE, "npz", npz, few, case)
    yield from table("ensemble", c.ENSEMBLE_PKL, "pkl", pkl, _PICKLES, case)
    reference, few_labels = "labels/case_a.nii.gz", _some(_LABEL_ROWS, *_FEW_LABELS)
    yield from table("evaluate", c.EVALUATE, "reference", reference, _LABEL_ROWS, case)
    for command, group in (
        (c.ENSEMBLE, "ensemble"),
        (c.FIT, "recalibrate"),
        (c.PREDICT, "predict"),
    ):
        yield from table(group, command, "reference", reference, few_labels, case)
    prediction = "folds/fold_0/case_a.nii.gz"
    yield from table("evaluate", c.EVALUATE, "prediction", prediction, few_labels, case)
    yield from _descriptions()
    yield from _run_folders()
    part = "parts/calibration.part-1-of-2.npz"
    yield from table("merge", c.MERGE, "part", part, _STATE_ROWS)
    for method, rows in _CALIBRATORS.items():
        path = f"calibrators/{method}.json"
        command = c.calibrator_of(method)
        yield from table("recalibrate", command, "calibrator", path, rows, case)
    yield from _yaml()
    yield from _images()
    yield from _contradictions()
