"""Arrays, label maps, dataset.json and nnU-Net's properties that say what cannot be."""

from __future__ import annotations

import json
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from . import commands as c
from .damage import Damage, replaced, with_array, with_member
from .kinds import Kind
from .rows import HANDLED, RIGHT, SAME, TOLD, Row, _some, table
from .world import AFFINE, DATASET_JSON, properties, save_nifti, write_json

# Arrays


def _one_voxel(value: float) -> Callable[[Any], Any]:
    def change(p: Any) -> Any:
        p = p.copy()
        p[1, 1, 1, 1] = value
        return p

    return change


def _logits(p: Any) -> Any:
    return np.log(np.maximum(p, 1e-6)).astype(np.float32)


def _swapped(p: Any) -> Any:
    return p[[1, 0, 2]]


def _arrays() -> list[Row]:
    a = with_array
    return [
        ("with one voxel NaN", a(_one_voxel(np.nan))),
        ("with one voxel infinite", a(_one_voxel(np.inf))),
        ("with one voxel -0.3", a(_one_voxel(-0.3))),
        ("with one voxel 1.7", a(_one_voxel(1.7))),
        ("all zeros", a(np.zeros_like), TOLD),
        ("all NaN", a(lambda p: np.full_like(p, np.nan))),
        ("whose sums are 0.5", a(lambda p: p / 2), TOLD),
        ("of logits", a(_logits)),
        ("of percentages", a(lambda p: p * 100)),
        ("of one class", a(lambda p: p[:1])),
        ("of a class more", a(lambda p: np.concatenate([p, p[:1]]))),
        ("of no class", a(lambda p: p[:0])),
        ("of three axes", a(lambda p: p[0])),
        ("of six axes", a(lambda p: p[None, None])),
        ("of a number", a(lambda _: np.float32(1))),
        ("on another grid", a(lambda p: p[..., :-1])),
        ("whose axes are (C, X, Y, Z)", a(lambda p: p.transpose(0, 3, 2, 1))),
        ("without a voxel", a(lambda p: p[:, :0])),
        ("complex", a(lambda p: p.astype(np.complex64))),
        ("of texts", a(lambda p: p.astype(str))),
        ("of dates", a(lambda p: np.zeros(p.shape, "datetime64[s]"))),
        ("of records", a(lambda p: np.zeros(p.shape, [("a", "f4")]))),
        ("of objects", a(lambda p: p.astype(object))),
        ("of bool", a(lambda p: p > 0.5), TOLD),
        ("in float64", a(lambda p: p.astype(np.float64)), RIGHT),
        ("big-endian", a(lambda p: p.astype(">f4")), RIGHT),
        ("in Fortran order", a(np.asfortranarray), RIGHT),
    ]


def _npz_only() -> list[Row]:
    def two_keys(path: Path) -> None:
        p = np.load(path)["probabilities"]
        np.savez(path, probabilities=p, softmax=p[::-1])

    def other_key(path: Path) -> None:
        np.savez(path, other=np.load(path)["probabilities"])

    def sigmoid(path: Path) -> None:
        p = np.load(path)["probabilities"]
        np.savez(path, probabilities=p, activation=np.array("sigmoid"))

    def bogus(path: Path) -> None:
        p = np.load(path)["probabilities"]
        np.savez(path, probabilities=p, activation=np.array("bogus"))

    return [
        ("with two arrays that differ", two_keys, TOLD),
        ("with another key", other_key),
        ("of another activation than its fellow's", sigmoid),
        ("of an unknown activation", bogus),
        ("whose entry is a text", with_member(b"hello")),
        ("whose entry has another name", with_member(b"x", name="../probabilities.npy")),
    ]


# Label maps


def _labels_of(make: Callable[[Any], Any], affine: Any = AFFINE) -> Damage:
    def damage(path: Path) -> None:
        save_nifti(path, make(np.asarray(nib.load(path).dataobj)), affine)

    return damage


def _put(value: float, dtype: Any) -> Callable[[Any], Any]:
    def change(labels: Any) -> Any:
        labels = labels.astype(dtype)
        labels[0, 0, 0] = value
        return labels

    return change


def _moved(by: float) -> Any:
    affine = AFFINE.copy()
    affine[0, 3] += by
    return affine


_TURNED = np.array([[0.0, -1.5, 0, 0], [-1.0, 0, 0, 0], [0, 0, 3.0, 0], [0, 0, 0, 1]])

_LABEL_ROWS: list[Row] = [
    ("with a fraction", _labels_of(_put(0.5, np.float32))),
    ("with NaN", _labels_of(_put(np.nan, np.float32))),
    ("with infinity", _labels_of(_put(np.inf, np.float32))),
    ("with -1", _labels_of(_put(-1, np.int16))),
    ("with a label 3 that nobody declared", _labels_of(_put(3, np.uint8))),
    ("with 10^9", _labels_of(_put(10**9, np.int32))),
    ("with 2^32 + 1", _labels_of(_put(2.0**32 + 1, np.float64))),
    ("with 1e300", _labels_of(_put(1e300, np.float64))),
    ("of another shape", _labels_of(lambda y: y[:-1])),
    ("of four axes", _labels_of(lambda y: np.stack([y, y], -1))),
    ("moved by 5 mm", _labels_of(lambda y: y, _moved(5.0))),
    ("turned by its affine", _labels_of(lambda y: y, _TURNED)),
    ("in float32", _labels_of(lambda y: y.astype(np.float32)), RIGHT),
    ("in float64 under a slope of 1", _labels_of(lambda y: y.astype(np.float64)), RIGHT),
    ("in int64", lambda path: _save_int64(path), RIGHT),
    ("moved by 10^-6 mm", _labels_of(lambda y: y, _moved(1e-6)), RIGHT),
]


def _save_int64(path: Path) -> None:
    labels = np.asarray(nib.load(path).dataobj).astype(np.int64)
    nib.save(nib.Nifti1Image(labels, AFFINE, dtype=np.int64), path)


# Descriptions


def _dataset(**changes: Any) -> Damage:
    return lambda path: write_json(path, DATASET_JSON | changes)


def _version_1(training: list[Any]) -> Damage:
    """A description of version 1, which reads the list of cases that version 2 ignores."""
    content = {key: value for key, value in DATASET_JSON.items() if key != "channel_names"}
    content |= {"modality": DATASET_JSON["channel_names"], "training": training}
    return lambda path: write_json(path, content)


def _labels_text(text: str) -> Damage:
    content = json.dumps(DATASET_JSON | {"labels": "@@"}).replace('"@@"', text)
    return replaced(content)


_GROUPS = {"background": 0, "whole": [1, 2], "core": [2]}

_DATASET_ROWS: list[Row] = [
    ("with labels 1.7", _labels_text('{"background": 0, "a": 1.7, "b": 2}')),
    ("with a label true", _labels_text('{"background": 0, "a": true, "b": 2}')),
    ("with a label as text", _labels_text('{"background": 0, "a": "1", "b": 2}'), SAME),
    ("with a label Infinity", _labels_text('{"background": 0, "a": Infinity, "b": 2}')),
    ("with a label 1e400", _labels_text('{"background": 0, "a": 1e400, "b": 2}')),
    ("with a label NaN", _labels_text('{"background": 0, "a": NaN, "b": 2}')),
    ("with a label 10^22", _labels_text('{"background": 0, "a": 1' + "0" * 22 + ', "b": 2}')),
    ("with labels 0, 1, 3", _dataset(labels={"background": 0, "a": 1, "b": 3})),
    ("with two labels of one value", _dataset(labels={"background": 0, "a": 1, "b": 1})),
    ("with a key twice", _labels_text('{"background": 0, "a": 1, "a": 2}')),
    ("without background", _dataset(labels={"a": 1, "b": 2})),
    ("with a class fewer", _dataset(labels={"background": 0, "a": 1})),
    ("with a class more", _dataset(labels={"background": 0, "a": 1, "b": 2, "c": 3})),
    (
        "with an ignore label that is a class",
        _dataset(labels=DATASET_JSON["labels"] | {"ignore": 2}),
    ),  # type: ignore[operator]
    ("with an ignore label of -1", _dataset(labels=DATASET_JSON["labels"] | {"ignore": -1})),  # type: ignore[operator]
    ("with groups, order 70000", _dataset(labels=_GROUPS, regions_class_order=[70000, 1])),
    ("with groups, order -1", _dataset(labels=_GROUPS, regions_class_order=[-1, 1])),
    ("with groups, order of texts", _dataset(labels=_GROUPS, regions_class_order=["a", "b"])),
    ("with groups, order of one", _dataset(labels=_GROUPS, regions_class_order=[1])),
    ("with groups and no order", _dataset(labels=_GROUPS)),
    ("with groups, an order twice", _dataset(labels=_GROUPS, regions_class_order=[1, 1])),
    ("with an empty group", _dataset(labels={"background": 0, "a": [], "b": [1, 2]})),
    ("with nested groups", _dataset(labels={"background": 0, "a": [[1]], "b": [1, 2]})),
]


def _descriptions() -> Iterator[Kind]:
    fold = "folds/fold_0/dataset.json"
    case = ("case_a",)
    yield from table("ensemble", c.ENSEMBLE, "dataset.json", fold, _DATASET_ROWS, case)
    few = _some(_DATASET_ROWS, "1.7", "Infinity", "70000", "class more", "ignore", "nested")
    yield from table("evaluate", c.EVALUATE, "dataset.json", fold, few, case)
    yield from table("recalibrate", c.FIT, "dataset.json", fold, few, case)
    rows: list[Row] = [
        *(row for row in few if "class more" not in row[0]),
        ("with training entries without label", _version_1([{"image": "./imagesTr/x"}])),
        ("with training entries of numbers", _version_1([1, 2])),
        ("with a training entry of nobody", _version_1(["./imagesTr/nobody.nii.gz"])),
        ("of version 2 with a training entry of nobody", _dataset(training=["nobody"]), SAME),
        ("with channels 0 and 2", _dataset(channel_names={"0": "T1", "2": "T2"})),
        ("with a channel more", _dataset(channel_names={"0": "T1", "1": "T2"})),
        ("with a channel named x", _dataset(channel_names={"x": "T1"})),
        ("with the ending .nrrd", _dataset(file_ending=".nrrd")),
        ("with the ending ''", _dataset(file_ending="")),
        ("with an ending that is a path", _dataset(file_ending="/../../x.nii.gz")),
        ("with a channel's name null", _dataset(channel_names={"0": None}), HANDLED),
    ]
    names = ("case_a", "imagesTr")
    yield from table("train", c.TRAIN, "dataset.json", "data/dataset.json", rows, names)


# Properties of nnU-Net


def _pickled(value: Any, protocol: int = 4) -> Damage:
    return replaced(pickle.dumps(value, protocol))


def _props(**sitk: Any) -> Damage:
    content = properties()
    content["sitk_stuff"] |= sitk
    return _pickled(content)


def _nib(**stuff: Any) -> Damage:
    return _pickled({"nibabel_stuff": {"original_affine": AFFINE, **stuff}})


def _cropped(box: Any, size: Any = (3, 10, 12)) -> Damage:
    return _pickled(
        {
            "itk_spacing": (1.0, 1.5, 3.0),
            "itk_origin": (0.0, 0.0, 0.0),
            "itk_direction": (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0),
            "crop_bbox": box,
            "original_size_of_raw_data": np.array(size),
        }
    )


def _doubled(levels: int) -> bytes:
    """A pickle of a tuple that holds itself twice, level by level: 2^levels to walk."""
    code = b"\x80\x04)\x94"  # PROTO 4, EMPTY_TUPLE, MEMOIZE 0
    for level in range(levels):
        code += b"h" + bytes([level]) + b"h" + bytes([level]) + b"\x86\x94"
    return code


class _Evil:
    def __reduce__(self) -> Any:
        return (open, ("pwned", "w"))


_SINGULAR = np.diag([1.0, 0.0, 3.0, 1.0])
_PICKLES: list[Row] = [
    ("of a list", _pickled([1, 2])),
    ("of nothing", _pickled({})),
    ("that opens a file", _pickled({"sitk_stuff": _Evil()})),
    (
        "whose dict key is a tuple doubled 45 times",
        replaced(b"\x80\x04}" + _doubled(45)[2:] + b"K\x01s."),
    ),
    ("of a tuple doubled 45 times", replaced(_doubled(45) + b".")),
    ("of lists nested 100,000 deep", replaced(b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".")),
    ("of an integer of 10^6 digits", replaced(b"I" + b"9" * 10**6 + b"\n.")),
    (
        "with a string that claims 4 GB",
        replaced(b"\x80\x04\x8d" + struct.pack("<Q", 4 << 30) + b"x."),
    ),
    ("with a memo index of 10^9", replaced(b"\x80\x04K\x01r" + struct.pack("<I", 10**9) + b".")),
    ("spacing 0", _props(spacing=(0.0, 0.0, 0.0))),
    ("spacing negative", _props(spacing=(-1.0, 1.5, 3.0))),
    ("spacing NaN", _props(spacing=(np.nan, 1.5, 3.0))),
    ("spacing of texts", _props(spacing=("a", "b", "c"))),
    ("spacing of four", _props(spacing=(1.0, 1.5, 3.0, 1.0))),
    ("spacing missing", _pickled({"sitk_stuff": {"origin": (0, 0, 0), "direction": (1,) * 9}})),
    ("direction of zeros", _props(direction=(0.0,) * 9)),
    ("direction of eight", _props(direction=(1.0,) * 8)),
    ("origin infinite", _props(origin=(np.inf, 0.0, 0.0))),
    ("stuff null", _pickled({"sitk_stuff": None})),
    ("affine of zeros", _nib(original_affine=np.zeros((4, 4)))),
    (
        "affine of zeros, reoriented",
        _nib(original_affine=np.zeros((4, 4)), reoriented_affine=AFFINE),
    ),
    ("affine singular, reoriented", _nib(original_affine=_SINGULAR, reoriented_affine=AFFINE)),
    ("reoriented affine singular", _nib(reoriented_affine=_SINGULAR)),
    ("affine of NaN", _nib(original_affine=np.full((4, 4), np.nan))),
    ("affine 3 x 3", _nib(original_affine=np.eye(3))),
    ("affine of texts", _nib(original_affine="abc")),
    ("affine of objects", _nib(original_affine=np.full((4, 4), None))),
    ("crop with infinities", _cropped([[0.0, np.inf], [0, 10], [0, 12]])),
    ("crop of one axis", _cropped([[0, 3]])),
    ("crop turned round", _cropped([[3, 0], [0, 10], [0, 12]])),
    ("crop beyond the image", _cropped([[0, 9], [0, 10], [0, 12]])),
    ("crop of another size than the array", _cropped([[0, 2], [0, 10], [0, 12]])),
    ("crop into 20,000^3", _cropped([[0, 3], [0, 10], [0, 12]], (20000, 20000, 20000))),
    ("crop into a negative size", _cropped([[0, 3], [0, 10], [0, 12]], (-3, 10, 12))),
    ("crop into 0.5 GB", _cropped([[0, 3], [0, 10], [0, 12]], (350, 350, 350))),
    ("in protocol 2", _pickled(properties(), 2), RIGHT),
    ("in protocol 5", _pickled(properties(), 5), RIGHT),
    ("with an OrderedDict", _pickled(OrderedDict(properties())), RIGHT),
    ("with NumPy numbers", _props(spacing=tuple(np.float64(s) for s in (1.0, 1.5, 3.0))), RIGHT),
]
