"""Files of run folders that say what cannot be."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import commands as c
from .contents_arrays import _Evil
from .contents_states import _npy
from .damage import DEEP, Damage, json_of, replaced
from .kinds import Kind
from .rows import SAME, Row, _some, table

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
