"""Files that are whole but say what cannot be: values, sizes, types, contradictions, bombs."""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from . import commands as c
from .damage import DEEP, Damage, json_of, replaced, with_array, with_member
from .kinds import Command, Expected, Kind
from .world import AFFINE, DATASET_JSON, SHAPE, properties, save_nifti, write_json

REFUSED, SAME, TOLD = Expected.REFUSED, Expected.SAME, Expected.TOLD
RIGHT, HANDLED, LISTED = Expected.RIGHT, Expected.HANDLED, Expected.LISTED

Row = tuple[str, Damage] | tuple[str, Damage, Expected]


def table(
    group: str,
    command: Command,
    label: str,
    path: str,
    rows: list[Row],
    names: tuple[str, ...] = (),
) -> Iterator[Kind]:
    """A kind for each row: a name, a damage of the file, and what is expected if not refusal."""
    for name, damage, *expected in rows:
        yield Kind(
            name=f"{command.name}: {label} {name}",
            group=group,
            command=command,
            damage=_at(path, damage),
            expected=expected[0] if expected else REFUSED,
            names=(*names, Path(path).name),
        )


def _at(path: str, damage: Damage) -> Damage:
    def do(folder: Path) -> None:
        found = sorted(folder.glob(path))
        damage(found[0] if found else folder / path)

    return do


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
        ("with training entries without label", _dataset(training=[{"image": "./imagesTr/x"}])),
        ("with training entries of numbers", _dataset(training=[1, 2])),
        ("with a training entry of nobody", _dataset(training=["./imagesTr/nobody.nii.gz"])),
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


# Run folders


def _spec(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """Another specification in a file of weights."""

    def damage(path: Path) -> None:
        from safetensors import safe_open
        from safetensors.torch import save_file

        with safe_open(path, framework="pt") as opened:
            text = json.loads(opened.metadata()["fastcal"])
        tensors = c.tensors(path)
        made = change(text)
        save_file(tensors, path, metadata={"fastcal": json.dumps(text if made is None else made)})

    return damage


def _network(**changes: Any) -> Damage:
    return _spec(lambda text: text["network"].update(changes))


def _weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Damage:
    def damage(path: Path) -> None:
        from safetensors import safe_open
        from safetensors.torch import save_file

        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata()
        tensors = c.tensors(path)
        change(tensors)
        save_file(tensors, path, metadata=metadata)

    return damage


def _first(change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    def do(tensors: dict[str, torch.Tensor]) -> None:
        name = min(tensors)
        tensors[name] = change(tensors[name]).contiguous()

    return _weights(do)


def _raw_safetensors(header: bytes, length: int | None = None) -> Damage:
    claimed = len(header) if length is None else length
    return replaced(struct.pack("<Q", claimed) + header + bytes(64))


def _bit_of_a_weight(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-40] ^= 0x40
    path.write_bytes(content)


_TENSOR = b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
_OVERLAP = (
    b'{"a":{"dtype":"F32","shape":[8],"data_offsets":[0,32]},'
    b'"b":{"dtype":"F32","shape":[8],"data_offsets":[16,48]}}'
)
_SPEC_ROWS: list[Row] = [
    ("with a weight's bit flipped", _bit_of_a_weight),
    ("with a weight NaN", _first(lambda t: torch.full_like(t, torch.nan))),
    ("with a weight infinite", _first(lambda t: torch.full_like(t, torch.inf))),
    ("with a weight of another shape", _first(lambda t: t[..., :0])),
    ("with a weight in int64", _first(lambda t: t.long())),
    ("without a weight", _weights(lambda t: t.pop(min(t)))),
    ("with a weight more", _weights(lambda t: t.update(more=torch.zeros(3)))),
    ("without metadata", lambda path: _bare(path)),
    ("with widths of 10^6", _network(widths=[10**6, 10**6])),
    ("with 10^9 classes", _network(num_classes=10**9)),
    ("with 10^6 levels", _network(widths=[4] * 10**6)),
    ("with widths of zeros", _network(widths=[0, 0])),
    ("with other widths", _network(widths=[8, 16])),
    ("with an unknown argument", _network(bogus=1)),
    ("with 5 dims", _network(dims=5)),
    ("with the module os:system", _network(name="os:system")),
    ("with the module torch.hub:load", _network(name="torch.hub:load", repo_or_dir="x")),
    ("with the module of a file beside it", lambda path: _planted(path)),
    ("with a module of torch", _network(name="torch.nn:Identity")),
    ("with a name that is a number", _network(name=7)),
    ("with a kernel of 10^5", _network(kernels=[[100001, 100001], [3, 3]])),
    ("with an activation os", _network(activation="os.system")),
    ("with a spec that is a list", _spec(lambda text: [text])),
    ("with a network that is a list", _spec(lambda text: text | {"network": []})),
    ("with no network", _spec(lambda _: {"format": 1, "details": {}})),
    ("with metadata nested 200,000 deep", lambda path: _deep_metadata(path)),
    ("whose header claims 10^15 bytes", _raw_safetensors(b"{}", 10**15)),
    ("whose header claims a tensor of 4 TB", _raw_safetensors(_TENSOR)),
    ("whose tensors overlap", _raw_safetensors(_OVERLAP)),
    ("whose header is nested 200,000 deep", _raw_safetensors(b"[" * DEEP + b"]" * DEEP)),
]


def _bare(path: Path) -> None:
    from safetensors.torch import save_file

    save_file(c.tensors(path), path)


def _deep_metadata(path: Path) -> None:
    from safetensors.torch import save_file

    save_file(c.tensors(path), path, metadata={"fastcal": "[" * DEEP + "]" * DEEP})


def _planted(path: Path) -> None:
    """A module in the working folder, which Python finds there, that leaves a mark."""
    root = path.parents[2]
    (root / "planted.py").write_text(
        "from torch import nn\nopen('pwned', 'w')\nclass Net(nn.Conv2d):\n    pass\n"
    )
    _network(name="planted:Net")(path)


def _checkpoint(make: Callable[[Any], Any]) -> Damage:
    def damage(path: Path) -> None:
        torch.save(make(torch.load(path, weights_only=True)), path)

    return damage


def _evil_checkpoint(path: Path) -> None:
    stream = io.BytesIO()
    torch.save({"network": {}, "model": _Evil()}, stream)
    path.write_bytes(stream.getvalue())


_BEST_ROWS: list[Row] = [
    ("of a list", _checkpoint(lambda _: [1, 2])),
    ("of a tensor", _checkpoint(lambda _: torch.zeros(3))),
    ("of a number", _checkpoint(lambda _: 7)),
    ("of nothing", _checkpoint(lambda _: {})),
    ("whose network is None", _checkpoint(lambda s: s | {"network": None})),
    ("whose network is a list", _checkpoint(lambda s: s | {"network": [1]})),
    ("whose network is os:system", _checkpoint(lambda s: s | {"network": {"name": "os:system"}})),
    ("whose model is a number", _checkpoint(lambda s: s | {"model": 7})),
    ("whose model is empty", _checkpoint(lambda s: s | {"model": {}})),
    ("whose model is of NaN", _checkpoint(lambda s: s | {"model": _nan(s["model"])})),
    ("with code", _evil_checkpoint),
]


def _nan(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        n: torch.full_like(t, torch.nan) if t.is_floating_point() else t for n, t in state.items()
    }


_CONFIG_ROWS: list[Row] = [
    ("{format: 2} alone", replaced('{"format": 2}')),
    ("of format 99", json_of(lambda x: x.update(format=99))),
    ("with an unknown preprocessing key", json_of(lambda x: x["preprocessing"].update(bogus=1))),
    ("normalisation bogus", json_of(lambda x: x["preprocessing"].update(normalisation="bogus"))),
    ("percentiles 'ab'", json_of(lambda x: x["preprocessing"].update(percentiles="ab"))),
    ("percentiles 99 to 1", json_of(lambda x: x["preprocessing"].update(percentiles=[99, 1]))),
    ("size [0, 0]", json_of(lambda x: x["preprocessing"].update(size=[0, 0]))),
    ("size 10^6", json_of(lambda x: x["preprocessing"].update(size=[10**6, 10**6]))),
    ("spacing 0", json_of(lambda x: x["preprocessing"].update(spacing=[0, 0]))),
    ("spacing 10^-6", json_of(lambda x: x["preprocessing"].update(spacing=[1e-6, 1e-6]))),
    ("slice_axis 7", json_of(lambda x: x["preprocessing"].update(slice_axis=7))),
    ("patch [1, 1]", json_of(lambda x: x.update(patch=[1, 1]))),
    ("patch [-8, 8]", json_of(lambda x: x.update(patch=[-8, 8]))),
    ("patch of three in 2-D", json_of(lambda x: x.update(patch=[8, 8, 8]))),
    ("patch of 10^6", json_of(lambda x: x.update(patch=[10**6, 10**6]))),
    ("num_classes 4", json_of(lambda x: x["network"].update(num_classes=4))),
    ("dims 3", json_of(lambda x: x["network"].update(dims=3))),
    ("head sigmoid", json_of(lambda x: x["network"].update(head="sigmoid"))),
    ("head bogus", json_of(lambda x: x["network"].update(head="bogus"))),
    ("two channels", json_of(lambda x: x["dataset"].update(channel_names=["a", "b"]))),
    ("file_ending .nrrd", json_of(lambda x: x["dataset"].update(file_ending=".nrrd"))),
    ("an ignore label that is a class", json_of(lambda x: x["dataset"].update(ignore_label=2))),
    ("labels as texts", json_of(lambda x: x["dataset"].update(labels={"background": "x"}))),
]
_SPLIT_ROWS: list[Row] = [
    ("of numbers", replaced('{"train": [1], "val": [2], "test": [3]}')),
    ("of null", replaced('{"train": null, "val": null, "test": null}')),
    ("of nested lists", replaced('{"train": [["case_a"]], "val": [["case_c"]]}')),
    ("of texts", replaced('{"train": "case_a", "val": "case_c"}')),
    ("of nobody", replaced('{"train": ["case_a"], "val": ["nobody"]}')),
    ("of empty lists", replaced('{"train": [], "val": []}')),
    ("with a case in both parts", replaced('{"train": ["case_a", "case_c"], "val": ["case_c"]}')),
    ("with a case twice", replaced('{"train": ["case_a"], "val": ["case_c", "case_c"]}')),
    ("with a part more", replaced('{"train": ["case_a"], "val": ["case_c"], "other": []}')),
    ("a list of numbers", replaced("[1, 2]")),
]


def _run_folders() -> Iterator[Kind]:
    best = "run/member_00/best.safetensors"
    for command, group in ((c.PREDICT, "predict"), (c.EXPORT, "export")):
        weights, config = _SPEC_ROWS, _CONFIG_ROWS
        if command is c.EXPORT:
            weights = _some(weights, "module", "10^", "nested", "list", "bit", "shape")
            # Some of these it does not need: the weights say what the network is.
            config = [
                (name, damage, SAME)
                for name, damage, *_ in _some(
                    config, "alone", "patch", "sigmoid", "10^6", "classes"
                )
            ]
        named = ("member_00", "planted", "torch.hub", "torch.nn")
        yield from table(group, command, "safetensors", best, weights, named)
        yield from table(group, command, "config.json", "run/config.json", config)
    yield from table(
        "predict",
        c.PREDICT_OLD,
        "best.pt",
        "old_run/member_00/best.pt",
        _BEST_ROWS,
        ("member_00",),
    )
    rows = [
        (n, d, SAME)
        if n in ("with a part more", "with a case twice", "with a case in both parts")
        else (n, d)
        for n, d, *_ in _SPLIT_ROWS
    ]
    names = ("run", "nobody")
    yield from table("predict", c.PREDICT_TEST, "splits.json", "run/splits.json", rows, names)
    yield from table("train", c.TRAIN_SPLIT, "split", "split.json", _SPLIT_ROWS, ("split",))
    yield from table(
        "train",
        c.TRAIN_FOLD,
        "splits_final.json",
        "data/splits_final.json",
        [(n, lambda path, d=d: _as_fold(path, d)) for n, d, *_ in _SPLIT_ROWS[:-2]],
    )
    last: list[Row] = [
        ("optimiser a number", _checkpoint(lambda s: s | {"optimiser": 7})),
        ("optimiser empty", _checkpoint(lambda s: s | {"optimiser": {}})),
        ("course of texts", _checkpoint(lambda s: s | {"course": dict.fromkeys(s["course"], "x")})),
        ("course a number", _checkpoint(lambda s: s | {"course": 7})),
        ("course of epoch -5", _checkpoint(lambda s: s | {"course": s["course"] | {"epoch": -5}})),
        (
            "course of epoch 10^9",
            _checkpoint(lambda s: s | {"course": s["course"] | {"epoch": 10**9}}),
        ),
        (
            "course of NaN",
            _checkpoint(lambda s: s | {"course": s["course"] | {"step": float("nan")}}),
        ),
        ("model of NaN", _checkpoint(lambda s: s | {"model": _nan(s["model"])})),
        ("model empty", _checkpoint(lambda s: s | {"model": {}})),
        ("of a list", _checkpoint(lambda _: [1])),
        ("of a tensor", _checkpoint(lambda _: torch.zeros(2))),
        ("with code", _evil_checkpoint),
    ]
    path = "begun/member_00/last.pt"
    yield from table("train_again", c.TRAIN_AGAIN, "last.pt", path, last, ("member_00",))
    execution: list[Row] = [
        ("with other keys", replaced('{"a": 1}'), SAME),
        ("with an unknown strategy", json_of(lambda x: x.update(strategy="bogus")), SAME),
    ]
    yield from table(
        "train_again", c.TRAIN_AGAIN, "execution.json", "begun/execution.json", execution
    )
    log: list[Row] = [
        ("with a list as a line", replaced("[1]\n"), SAME),
        ("with bytes beyond UTF-8", replaced(b"\xff\xfe\xfa\n"), SAME),
        ("with a number as loss text", json_line(loss="x"), SAME),
        ("with 10^5 lines more", lambda path: path.write_text(path.read_text() * 10**5), SAME),
    ]
    path = "begun/member_00/log.jsonl"
    yield from table("train_again", c.TRAIN_AGAIN, "log.jsonl", path, log, ("member_00",))
    prepared: list[Row] = [
        ("label with class 200", _npy(lambda a: np.where(a == 2, 200, a)), SAME),
        ("label of zeros", _npy(np.zeros_like), SAME),
    ]
    for name, rows in (
        ("case_a.label.npy", prepared),
        (
            "case_a.image.npy",
            [
                ("image of zeros", _npy(np.zeros_like), SAME),
                ("image of NaN", _npy(lambda a: np.full_like(a, np.nan)), SAME),
            ],
        ),
        (
            "case_a.foreground.npy",
            [
                ("foreground of 10^9", _npy(lambda a: np.full_like(a, 10**9)), SAME),
                ("foreground of -5", _npy(lambda a: np.full_like(a, -5)), SAME),
            ],
        ),
    ):
        where = f"begun/prepared/*/{name}"
        yield from table("train_again", c.TRAIN_ANEW, "prepared", where, rows, ("case_a",))


def json_line(**changes: Any) -> Damage:
    """Other values in every line of a log."""

    def damage(path: Path) -> None:
        lines = [json.dumps(json.loads(line) | changes) for line in path.read_text().splitlines()]
        path.write_text("".join(f"{line}\n" for line in lines))

    return damage


def _as_fold(path: Path, damage: Damage) -> None:
    """The contents of a split as the first of a list of folds."""
    damage(path)
    path.write_text(f"[{path.read_text()}]")


def _npy(make: Callable[[Any], Any]) -> Damage:
    """An array of the same size and type, so that the file is as long as before."""

    def damage(path: Path) -> None:
        array = np.load(path)
        path.write_bytes(_npy_bytes(np.asarray(make(array)).astype(array.dtype), path))

    return damage


def _npy_bytes(array: Any, path: Path) -> bytes:
    raw = path.read_bytes()
    return raw[: len(raw) - array.nbytes] + np.ascontiguousarray(array).tobytes()


# Statistics


def _state(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """Other integers in a state of statistics."""

    def damage(path: Path) -> None:
        with np.load(path) as content:
            arrays = {name: content[name].copy() for name in content.files}
        change(arrays)
        np.savez_compressed(path, **arrays)

    return damage


def _header(**settings: Any) -> Damage:
    def change(arrays: dict[str, Any]) -> None:
        header = json.loads(str(arrays["header"]))
        header["settings"] |= settings
        arrays["header"] = np.array(json.dumps(header))

    return _state(change)


def _both(change: Callable[[Any], None]) -> Callable[[dict[str, Any]], None]:
    def do(arrays: dict[str, Any]) -> None:
        change(arrays["total"])
        change(arrays["case_rows"][0])

    return do


def _set(index: Any, value: Any) -> Callable[[Any], None]:
    def do(row: Any) -> None:
        row[index] = value

    return do


def _scaled(row: Any) -> None:
    row[:] = row * (2**63 // max(int(row.max()), 1))


_STATE_ROWS: list[Row] = [
    ("with negative counts", _state(_both(_set(slice(None), -5)))),
    ("with more right voxels than voxels", _state(_both(_set(1, 10**6)))),
    ("with more voxels in a bin than there are", _state(_both(_set(9, 10**6)))),
    ("with counts near 2^63", _state(_both(_scaled))),
    ("with low words out of range", _state(_both(_set(3, 2**50)))),
    ("with a total that is not its cases' sum", _state(lambda a: a["total"].__imul__(2))),
    (
        "with a case id twice",
        _state(
            lambda a: a.update(case_ids=np.array(["x"] * 2), case_rows=np.stack([a["total"]] * 2))
        ),
    ),
    ("with numbers as case ids", _state(lambda a: a.update(case_ids=np.array([7])))),
    ("with a case id of objects", _state(lambda a: a.update(case_ids=np.array([None], object)))),
    ("with rows of another length", _state(lambda a: a.update(total=a["total"][:-1]))),
    ("with rows in float", _state(lambda a: a.update(total=a["total"].astype(float)))),
    ("with rows in int32", _state(lambda a: a.update(total=a["total"].astype(np.int32)))),
    ("without rows", _state(lambda a: a.pop("case_rows"))),
    ("without header", _state(lambda a: a.pop("header"))),
    ("with a header that is a number", _state(lambda a: a.update(header=np.array(7)))),
    ("with a header nested 200,000 deep", _state(lambda a: a.update(header=np.array("[" * DEEP)))),
    ("of 4 classes", _header(num_classes=4)),
    ("of 10^9 classes", _header(num_classes=10**9)),
    ("of 10 bins", _header(n_bins=10)),
    ("of 10^12 bins", _header(n_bins=10**12)),
    ("of 0 bins", _header(n_bins=0)),
    ("closed left", _header(closed="left")),
    ("closed at both ends", _header(closed="both")),
    ("with fine bins that it has not", _header(fine_bins=4096)),
    ("with fine bins of 2^60", _header(fine_bins=2**60)),
    ("with an unknown setting", _header(bogus=1)),
    ("with eps of text", _header(eps="x")),
    ("with an unknown convention", _header(convention="bogus")),
    ("with regions that it has not", _header(regions=["box"])),
]


# Calibrators


def _fitted(**values: Any) -> Damage:
    return json_of(lambda x: x["fitted"].update(values))


def _settings(**values: Any) -> Damage:
    return json_of(lambda x: x["settings"].update(values))


def _fitted_text(key: str, text: str) -> Damage:
    def damage(path: Path) -> None:
        content = json.loads(path.read_text())
        content["fitted"][key] = "@@"
        path.write_text(json.dumps(content).replace('"@@"', text))

    return damage


def _row(index: int, value: float) -> Damage:
    return json_of(lambda x: x["fitted"]["frequency"][0].__setitem__(index, value))


_CALIBRATORS: dict[str, list[Row]] = {
    "temperature": [
        ("temperature 0", _fitted(temperature=0.0)),
        ("temperature -1", _fitted(temperature=-1.0)),
        ("temperature NaN", _fitted_text("temperature", "NaN")),
        ("temperature Infinity", _fitted_text("temperature", "Infinity")),
        ("temperature 10^400", _fitted_text("temperature", "1" + "0" * 400)),
        ("temperature 1e400", _fitted_text("temperature", "1e400")),
        ("temperature true", _fitted_text("temperature", "true")),
        ("temperature as text", _fitted(temperature="1.0")),
        ("temperature of a list", _fitted(temperature=[1.0, 1.0, 1.0])),
        ("temperature nested 200,000 deep", _fitted_text("temperature", "[" * DEEP + "]" * DEEP)),
        ("of 4 classes", json_of(lambda x: x.update(num_classes=4))),
        ("of 10^9 classes", json_of(lambda x: x.update(num_classes=10**9))),
        ("of true classes", json_of(lambda x: x.update(num_classes=True))),
        ("of kind bogus", json_of(lambda x: x.update(kind="bogus"))),
        ("of kind vector", json_of(lambda x: x.update(kind="vector"))),
        ("of version 99", json_of(lambda x: x.update(version=99))),
        ("with an unknown setting", _settings(bogus=1)),
        ("with activation bogus", _settings(activation="bogus")),
        ("with eps 0", _settings(eps=0.0)),
        ("with eps 1e400", json_of(lambda x: x["settings"].update(eps=float("inf")))),
    ],
    "vector": [
        ("weights of two classes", _fitted(weight=[1.0, 1.0])),
        ("weights of texts", _fitted(weight=["a", "b", "c"])),
        ("a bias of 1e308", _fitted(bias=[1e308, -1e308, 0.0]), HANDLED),
        ("ragged weights", _fitted(weight=[[1.0], 2.0, 3.0])),
    ],
    "dirichlet": [
        ("weights of two classes", _fitted(weight=[[1.0, 0.0], [0.0, 1.0]])),
        ("weights of NaN", _fitted_text("weight", "[[NaN,0,0],[0,1,0],[0,0,1]]")),
    ],
    "histogram": [
        ("frequency 7", _row(0, 7.0)),
        ("frequency -1", _row(0, -1.0)),
        ("frequency of text", json_of(lambda x: x["fitted"]["frequency"][0].__setitem__(0, "x"))),
        ("frequency of a bin fewer", json_of(lambda x: x["fitted"]["frequency"][0].pop())),
        ("of 10^9 bins", _settings(n_bins=10**9)),
    ],
    "isotonic": [
        ("knots beyond 1", json_of(lambda x: x["fitted"]["knots"][0][1].__setitem__(-1, 7.0))),
        (
            "knots that fall",
            json_of(
                lambda x: x["fitted"]["knots"][0].__setitem__(1, x["fitted"]["knots"][0][1][::-1])
            ),
        ),
        ("knots out of order", json_of(lambda x: x["fitted"]["knots"][0][0].reverse())),
        ("knots empty", json_of(lambda x: x["fitted"]["knots"].__setitem__(0, [[], []]))),
        (
            "knots of one class",
            json_of(lambda x: x["fitted"].update(knots=x["fitted"]["knots"][:1])),
        ),
        ("knots of one axis", json_of(lambda x: x["fitted"]["knots"].__setitem__(0, [[0.5]]))),
    ],
}


# YAML

_LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 10)
)


def _laughs(under: str) -> str:
    """A list of 10^10, by aliases, in place of a value."""
    text = "&a0 [x, x, x, x, x, x, x, x, x, x]"
    lines = [f"  - &l0 {text.removeprefix('&a0 ')}"]
    lines += [f"  - &l{k} [{', '.join([f'*l{k - 1}'] * 10)}]" for k in range(1, 10)]
    head, _, tail = under.partition(".")
    if not tail:
        return f"{head}:\n  bogus:\n" + "".join(f"  {line}\n" for line in lines)
    return f"{head}:\n  {tail}:\n    bogus:\n" + "".join(f"    {line}\n" for line in lines)


_YAML_ROWS: list[Row] = [
    ("of a list", replaced("- 1\n- 2\n")),
    ("of a number", replaced("7\n")),
    ("with an unknown section", replaced("bogus: 1\n")),
    ("with an unknown setting", replaced("loop:\n  bogus: 1\n")),
    ("with a section that is a number", replaced("loop: 7\n")),
    ("with keys that are numbers", replaced("1: 2\n")),
    ("with keys that are lists", replaced("? [1, 2]\n: 3\n")),
    ("with a key twice", replaced("loop:\n  max_epochs: 1\nloop:\n  max_epochs: 2\n"), HANDLED),
    ("with a tab", replaced("loop:\n\tmax_epochs: 1\n")),
    ("with a colon too many", replaced("loop: max_epochs: 1\n")),
    ("with a Python object", replaced("loop: !!python/object/apply:os.system ['touch pwned']\n")),
    ("nested 5000 deep", replaced("network: " + "[" * 5000 + "]" * 5000 + "\n")),
    ("nested maps 5000 deep", replaced("network: " + "{a: " * 5000 + "1" + "}" * 5000 + "\n")),
    ("with a date of month 13", replaced("network:\n  name: 2024-13-01\n")),
    ("with an alias to itself", replaced("network: &n\n  widths: *n\n")),
    ("with an alias to nothing", replaced("network: *nothing\n")),
    ("with a billion laughs", replaced(_LAUGHS)),
    ("with a billion laughs under network", replaced(_laughs("network"))),
    ("with a billion laughs under loss.options", replaced(_laughs("loss.options"))),
    (
        "with merge keys of a million laughs",
        replaced(
            "a: &a {x: 1}\n"
            + "".join(f"b{k}: &b{k} {{<<: [{', '.join(['*a'] * 50)}]}}\n" for k in range(50))
        ),
    ),
    ("with an integer of 5000 digits", replaced("loop:\n  max_epochs: " + "9" * 5000 + "\n")),
    ("with a sexagesimal bomb", replaced("loop:\n  max_epochs: 1" + ":59" * 20000 + "\n")),
    ("with two documents", replaced("loop: {max_epochs: 1}\n---\nloop: {max_epochs: 2}\n")),
    ("with a value NaN", replaced("optimiser:\n  learning_rate: .nan\n")),
    ("with a value infinite", replaced("optimiser:\n  learning_rate: .inf\n")),
    ("with a negative rate", replaced("optimiser:\n  learning_rate: -1\n")),
    ("with epochs 1.5", replaced("loop:\n  max_epochs: 1.5\n")),
    ("with epochs true", replaced("loop:\n  max_epochs: true\n")),
    ("with a batch of 0", replaced("sampling:\n  batch_size: 0\n")),
    ("with a batch of 10^9", replaced("sampling:\n  batch_size: 1000000000\n")),
    ("with a patch of 10^6", replaced("sampling:\n  patch: [1000000, 1000000]\n")),
    ("with a patch of three in 2-D", replaced("sampling:\n  patch: [8, 8, 8]\n")),
    ("with widths of 10^5", replaced("network:\n  widths: [100000, 100000]\n")),
    ("with widths of 0", replaced("network:\n  widths: [0, 4]\n")),
    ("with widths of texts", replaced("network:\n  widths: [a, b]\n")),
    ("with the network os:system", replaced("network:\n  name: os:system\n")),
    ("with an unknown loss", replaced("loss:\n  name: bogus\n")),
    ("with an unknown loss option", replaced("loss:\n  options: {bogus: 1}\n")),
    ("with class weights of two", replaced("loss:\n  class_weights: [1, 2]\n")),
    ("with class weights of NaN", replaced("loss:\n  class_weights: [1, .nan, 2]\n")),
    ("with percentiles 99 to 1", replaced("preprocessing:\n  percentiles: [99, 1]\n")),
    ("with spacing 0", replaced("preprocessing:\n  spacing: [0, 0]\n")),
    ("with size 0", replaced("preprocessing:\n  size: [0, 0]\n")),
    ("with size 10^6", replaced("preprocessing:\n  size: [1000000, 1000000]\n")),
    (
        "with an elastic spacing of 0",
        replaced("augmentation:\n  elastic: 1.0\n  elastic_spacing: 0\n"),
    ),
    (
        "with a scaling range that falls",
        replaced("augmentation:\n  scaling: 1.0\n  scaling_range: [2.0, 0.5]\n"),
    ),
    (
        "with a scaling range of zeros",
        replaced("augmentation:\n  scaling: 1.0\n  scaling_range: [0.0, 0.0]\n"),
    ),
]


def _yaml() -> Iterator[Kind]:
    settings = ("widths", "patch", "percentiles", "spacing", "size", "loss", "class_weights")
    settings = (*settings, "ce", "batch_size", "learning_rate", "elastic_spacing", "scaling_range")
    yield from table("train", c.TRAIN_CONFIG, "config", "train.yaml", _YAML_ROWS, settings)
    few = [
        row for row in _YAML_ROWS if any(w in row[0] for w in ("laughs", "5000", "alias", "os:"))
    ]
    yield from table("demo", c.DEMO_DATASET, "config", "demo.yaml", few)


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


def _some(rows: list[Row], *words: str) -> list[Row]:
    """The rows whose names hold one of these words."""
    return [row for row in rows if any(word in row[0] for word in words)]


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
