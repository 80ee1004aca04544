"""Statistics, calibrators and settings that say what cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import commands as c
from .damage import DEEP, Damage, json_of, replaced
from .kinds import Kind
from .rows import HANDLED, Row, table


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
