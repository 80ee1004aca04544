"""Every key of every JSON document that is read: dropped, or with a value of another type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import commands as c
from .damage import WRONG_VALUES, Damage, key_damage, of_other_type
from .kinds import Command, Expected, Kind

_STATE_SETTINGS = {
    "num_classes": 3,
    "n_bins": 15,
    "closed": "right",
    "calibration": "both",
    "multilabel": False,
    "eps": None,
    "convention": "default",
}
_RUN = {
    "format": 2,
    "loss": "ce",
    "seed": 0,
    "dataset": {
        "name": "data",
        "channel_names": [],
        "labels": {},
        "ignore_label": None,
        "file_ending": "",
    },
    "network": {
        "name": "UNet",
        "in_channels": 1,
        "num_classes": 3,
        "dims": 2,
        "widths": [],
        "dropout": 0.0,
        "norm": "",
        "head": "",
        "blocks": [],
        "strides": [],
        "kernels": [],
        "activation": "",
        "deep_supervision": False,
    },
    "training": {},
    "preprocessing": {
        "slice_axis": 2,
        "spacing": None,
        "size": [],
        "percentiles": [],
        "dims": 2,
        "normalisation": "",
        "nonzero": False,
        "interpolation": "",
    },
    "patch": None,
    "members": 2,
    "data": {},
    "environment": {},
}
_DATASET = {"channel_names": {}, "labels": {}, "numTraining": 4, "file_ending": ""}
_SETTINGS = {"from_logits": False, "activation": "", "multilabel": False, "eps": None}


_TWO = ("missing", "a word", "1e400")
_FEW = ("missing", "a word", "a list")
_MOST = ("missing", "null", "a word", "a list", "1e400")


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON file with the keys that it has, each with a value of its type."""

    command: Command
    label: str
    path: str
    keys: dict[str, Any]
    group: str
    few: bool = False
    defaults: bool = False
    """A key that is missing has a default of its own."""
    names: tuple[str, ...] = ()

    def kinds(self) -> Iterator[Kind]:
        """A kind for each key and each wrong value."""
        for place, value in _walk(self.keys, ()):
            chosen = _TWO if len(place) > 1 else _FEW if self.few else _MOST
            names = [name for name in of_other_type(value) if name in chosen]
            if self.defaults:
                names = [name for name in names if name != "missing"]
            for name in names:
                key = ".".join(place)
                yield Kind(
                    name=f"{self.command.name}: {self.label}, {key} {name}",
                    group=self.group,
                    command=self.command,
                    damage=_at(self.path, key_damage(place, WRONG_VALUES[name])),
                    expected=Expected.SAME,
                    names=(Path(self.path).name, *self.names),
                )


def _at(path: str, damage: Damage) -> Damage:
    def do(folder: Path) -> None:
        damage(next(iter(sorted(folder.glob(path)))))

    return do


def _walk(keys: dict[str, Any], place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in keys.items():
        yield (*place, key), value
        if isinstance(value, dict):
            yield from _walk(value, (*place, key))


def _documents() -> Iterator[Document]:
    yield Document(c.ENSEMBLE, "dataset.json", "folds/fold_0/dataset.json", _DATASET, "ensemble")
    groups = {"labels": {"whole": [], "core": []}, "regions_class_order": []}
    yield Document(
        c.ENSEMBLE_GROUPS, "dataset.json", "folds/fold_0/dataset.json", groups, "ensemble"
    )
    prediction = {
        "folders": [],
        "weights": [],
        "temperature": [],
        "from_logits": False,
        "space": "",
        "n_bins": 15,
    }
    yield Document(
        c.ENSEMBLE_AGAIN, "prediction.json", "done/prediction.json", prediction, "ensemble", True
    )
    yield Document(c.PREDICT, "config.json", "run/config.json", _RUN, "predict_keys", True)
    yield Document(
        c.PREDICT_TEST,
        "splits.json",
        "run/splits.json",
        {"train": [], "val": []},
        "predict_keys",
        names=("run",),
    )
    yield Document(
        c.EVALUATE, "dataset.json", "folds/fold_0/dataset.json", _DATASET, "evaluate", True
    )
    fitted: dict[str, dict[str, Any]] = {
        "temperature": {"temperature": 1.0},
        "vector": {"weight": [], "bias": []},
        "dirichlet": {"weight": [], "bias": []},
        "histogram": {"frequency": []},
        "isotonic": {"knots": []},
    }
    for method, state_keys in fitted.items():
        keys = {"format": "", "version": 1, "kind": "", "settings": _SETTINGS, "num_classes": 3}
        yield Document(
            c.calibrator_of(method),
            "calibrator",
            f"calibrators/{method}.json",
            (keys if method == "temperature" else {}) | {"fitted": state_keys},
            "recalibrate",
        )
    state = {"format": "", "version": 1, "settings": _STATE_SETTINGS, "total": [], "cases": {}}
    yield Document(c.MERGE_JSON, "part", "state_1.json", state, "merge")
    yield Document(
        c.EXPORT,
        "config.json",
        "run/config.json",
        {"network": {}, "dataset": {}, "preprocessing": {}},
        "export",
        True,
    )
    yield Document(c.TRAIN, "dataset.json", "data/dataset.json", _DATASET, "train")
    config = {
        "network": {"name": "", "widths": []},
        "loop": {"max_epochs": 1, "iterations_per_epoch": 1, "tensorboard": False},
        "sampling": {"batch_size": 2},
    }
    yield Document(c.TRAIN_JSON, "config", "train.json", config, "train", defaults=True)
    yield Document(
        c.TRAIN_SPLIT, "split", "split.json", {"train": [], "val": [], "test": []}, "train"
    )
    again = {"training": {"loop": {}, "optimiser": {}}, "members": 2, "seed": 0, "data": {}}
    path = "begun/config.json"
    yield Document(c.TRAIN_AGAIN, "config.json", path, again, "train_again", True, names=("begun",))
    yield Document(
        c.TRAIN_AGAIN,
        "prepared json",
        "begun/prepared/*/case_a.json",
        {"sources": [], "digest": "", "arrays": {"image": ""}, "foreground": []},
        "train_again",
        True,
    )
    experiment = {"dataset": "", "cases": [], "split": [], "config": {}, "fine_bins": 0}
    yield Document(
        c.DEMO_AGAIN, "experiment.json", "study/experiment.json", experiment, "demo", True
    )


def kinds() -> Iterator[Kind]:
    """Of all keys of all documents."""
    for document in _documents():
        yield from document.kinds()
