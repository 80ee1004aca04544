"""Every file that a command reads, damaged in every way that its format allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import commands as c
from .damage import (
    ANY,
    BINARY,
    GZIPPED,
    JSON,
    NIFTI,
    NPY_HEADERS,
    PLACES,
    ZIPS,
    Damage,
    as_zip,
    replaced,
    ungzipped,
    with_member,
    zip_bomb,
)
from .kinds import Command, Expected, Kind

SAME, RIGHT, REFUSED = Expected.SAME, Expected.RIGHT, Expected.REFUSED
TOLD, HANDLED = Expected.TOLD, Expected.HANDLED


_PLACED = dict.fromkeys(PLACES, Expected.TOLD) | {"sform and qform off": Expected.HANDLED}
"""By the rule of `fastcal.data.affines` another form counts, in words; without any, the file
states no place."""


@dataclass(frozen=True, slots=True)
class Input:
    """A file that a command reads.

    Args:
        command: that reads it.
        label: in names of kinds.
        path: relative; a glob takes the first match.
        damages: by name.
        expected: of damages by name; others are refused. ``"*"`` is the default of all.
        names: words that name the file, beside its own name.
    """

    command: Command
    label: str
    path: str
    damages: Mapping[str, Damage]
    expected: Mapping[str, Expected] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def kinds(self, group: str) -> Iterator[Kind]:
        """A kind for each damage."""
        for name, damage in self.damages.items():
            yield Kind(
                name=f"{self.command.name}: {self.label}, {name}",
                group=group,
                command=self.command,
                damage=_at(self.path, damage),
                expected=self.expected.get(
                    name, self.expected.get("*", _PLACED.get(name, REFUSED))
                ),
                names=(*self.names, Path(self.path).name),
            )


def _at(path: str, damage: Damage) -> Damage:
    def do(folder: Path) -> None:
        damage(next(iter(sorted(folder.glob(path)))))

    return do


def _only(damages: Mapping[str, Damage], *words: str) -> dict[str, Damage]:
    return {name: damages[name] for name in words}


_FEW_WORDS = ("missing", "empty", "a FIFO", "a folder", "truncated at 1/2")
_FEW = _only(ANY, *_FEW_WORDS)
"""Of a file whose format another command's file has in full: does its gate stand here too?"""
_FEW_JSON = _FEW | _only(JSON, "nested 200,000 deep", "a list", "null", "an empty object")
_FLIPS = {name: SAME for name in BINARY if name.startswith("a bit flipped")}
_NPZ = BINARY | ZIPS | {"a bomb": zip_bomb("probabilities.npy")}
_NPZ |= {f"npy {name}": with_member(content) for name, content in NPY_HEADERS.items()}
_NPY = _FEW | {name: replaced(content) for name, content in NPY_HEADERS.items()}
_NPY |= {"is a zip": as_zip}
_NII_GZ = BINARY | NIFTI | GZIPPED
_FEW_NIFTI = _FEW | _only(NIFTI, "dim[0] = 9", "an extent of 0", "extents that claim 1.5 GB")
_GZ = {"uncompressed": ungzipped}
_OPTIONAL = {"missing": RIGHT, "a dangling link": SAME}
"""Of what may be left out."""
_REBUILT = {"*": SAME, "missing": RIGHT}
"""Of what is made again where it is damaged: refused by name, or right in the end."""
_UNZIPPED = _FLIPS | {"uncompressed": SAME, "slope infinite": SAME}


def _ensemble() -> Iterator[Input]:
    case = ("case_a",)
    fold = "folds/fold_0"
    image = f"{fold}/case_a.nii.gz"
    yield Input(c.ENSEMBLE, "npz", f"{fold}/case_a.npz", _NPZ, _FLIPS, case)
    yield Input(c.ENSEMBLE_NPY, "npy", f"{fold}/case_a.npy", _NPY, {}, case)
    yield Input(c.ENSEMBLE_4D, "4-D NIfTI", image, _FEW_NIFTI | PLACES | _GZ, _UNZIPPED, case)
    yield Input(
        c.ENSEMBLE,
        "image of the geometry",
        image,
        _FEW | PLACES,
        _OPTIONAL | {"truncated at 1/2": SAME},
        case,
    )
    yield Input(c.ENSEMBLE_PKL, "pkl", f"{fold}/case_a.pkl", BINARY, _FLIPS | _OPTIONAL, case)
    yield Input(c.ENSEMBLE, "pkl beside an image", f"{fold}/case_a.pkl", _FEW, _OPTIONAL, case)
    reference = _FEW_NIFTI | GZIPPED | PLACES | _GZ
    yield Input(c.ENSEMBLE, "reference", "labels/case_a.nii.gz", reference, _UNZIPPED, case)
    yield Input(c.ENSEMBLE, "dataset.json", f"{fold}/dataset.json", JSON, _OPTIONAL)


def _again(command: Command, out: str, case: str) -> Iterator[Input]:
    """Outputs that an earlier run left, damaged; they are made anew, or the folder is refused."""
    yield Input(command, "prediction.json", f"{out}/prediction.json", _FEW_JSON, {"*": SAME})
    for label, path in (
        ("labels", f"{out}/{case}.nii.gz"),
        ("entropy map", f"{out}/entropy/{case}.nii.gz"),
        ("statistics of a case", f"{out}/calibration/{case}.npz"),
        ("dataset.json", f"{out}/dataset.json"),
        ("statistics", f"{out}/**/calibration.npz"),
    ):
        yield Input(command, label, path, _FEW, _REBUILT)


def _predict() -> Iterator[Input]:
    run = ("member_00", "run")
    weights = "run/member_00/best.safetensors"
    yield Input(c.PREDICT, "config.json", "run/config.json", JSON)
    yield Input(c.PREDICT, "dataset.json of the run", "run/dataset.json", _FEW_JSON, {"*": SAME})
    yield Input(c.PREDICT_TEST, "splits.json", "run/splits.json", _FEW_JSON)
    yield Input(c.PREDICT, "safetensors", weights, BINARY, {}, run)
    yield Input(c.PREDICT_OLD, "best.pt", "old_run/member_00/best.pt", BINARY, _FLIPS, run)
    yield Input(
        c.PREDICT,
        "member.json",
        "run/member_00/member.json",
        _FEW_JSON,
        {"*": SAME, "missing": TOLD},
        run,
    )
    yield Input(
        c.PREDICT,
        "image",
        "images/case_a_0000.nii.gz",
        _FEW_NIFTI | PLACES | _GZ,
        _UNZIPPED | {"missing": HANDLED},
        ("case_a",),
    )
    yield Input(c.PREDICT, "reference", "labels/case_a.nii.gz", _FEW, {}, ("case_a",))


def _evaluate() -> Iterator[Input]:
    case = ("case_a",)
    fold = "folds/fold_0"
    yield Input(
        c.EVALUATE, "prediction", f"{fold}/case_a.nii.gz", _FEW | PLACES | _GZ, _UNZIPPED, case
    )
    reference = _NII_GZ | PLACES | _GZ
    yield Input(c.EVALUATE, "reference", "labels/case_a.nii.gz", reference, _UNZIPPED, case)
    sizes = {name: damage for name, damage in NIFTI.items() if "extent" in name or "voxels" in name}
    yield Input(c.EVALUATE_PLAIN, "plain NIfTI", f"{fold}/case_a.nii", _FEW | sizes, {}, case)
    npz = _FEW | ZIPS | {"a bomb": _NPZ["a bomb"]}
    yield Input(c.EVALUATE, "npz", f"{fold}/case_a.npz", npz, {"missing": HANDLED}, case)
    yield Input(c.EVALUATE, "dataset.json", f"{fold}/dataset.json", _FEW_JSON)


def _recalibrate() -> Iterator[Input]:
    case = ("case_a",)
    npz, left_out = "folds/fold_0/case_a.npz", {"missing": HANDLED}
    yield Input(c.FIT, "npz", npz, _FEW | ZIPS, left_out, case)
    yield Input(c.FIT, "reference", "labels/case_a.nii.gz", _FEW_NIFTI, {}, case)
    yield Input(c.FIT, "dataset.json", "folds/fold_0/dataset.json", _FEW_JSON, _OPTIONAL)
    yield Input(c.APPLY, "calibrator", "calibrators/temperature.json", JSON)
    yield Input(c.APPLY, "npz", npz, _FEW, left_out, case)


def _merge() -> Iterator[Input]:
    part = "parts/calibration.part-1-of-2.npz"
    damages = BINARY | ZIPS | {"a bomb": zip_bomb("total.npy")}
    damages |= {f"total {n}": with_member(b, name="total.npy") for n, b in NPY_HEADERS.items()}
    yield Input(c.MERGE, "part", part, damages, _FLIPS, ("part 1", "parts"))
    yield Input(c.MERGE_JSON, "part", "state_1.json", JSON)


def _export() -> Iterator[Input]:
    weights = "run/member_00/best.safetensors"
    yield Input(c.EXPORT, "config.json", "run/config.json", _FEW_JSON)
    yield Input(c.EXPORT, "safetensors", weights, _FEW, {}, ("member_00",))


def _train() -> Iterator[Input]:
    case = ("case_a",)
    yield Input(c.TRAIN, "dataset.json", "data/dataset.json", _FEW_JSON)
    yield Input(
        c.TRAIN,
        "image",
        "data/imagesTr/case_a_0000.nii.gz",
        _FEW_NIFTI | PLACES,
        {},
        case,
    )
    yield Input(c.TRAIN, "label", "data/labelsTr/case_a.nii.gz", _FEW, {}, case)
    yield Input(c.TRAIN_SPLIT, "split", "split.json", JSON)
    yield Input(c.TRAIN_CONFIG, "config", "train.yaml", ANY, {"truncated at 3/4": HANDLED})
    empty = {"an empty object": HANDLED}
    yield Input(c.TRAIN_JSON, "config", "train.json", _FEW_JSON, empty)
    yield Input(
        c.TRAIN_FOLD, "splits_final.json", "data/splits_final.json", _FEW_JSON, {"missing": HANDLED}
    )


def _train_again() -> Iterator[Input]:
    member = ("member_00",)
    command = c.TRAIN_AGAIN
    folder = "begun/member_00"
    for label, name in (
        ("config.json", "config.json"),
        ("splits.json", "splits.json"),
        ("execution.json", "execution.json"),
        ("dataset.json of the run", "dataset.json"),
    ):
        yield Input(command, label, f"begun/{name}", _FEW_JSON, {"*": SAME}, ("begun",))
    yield Input(command, "last.pt", f"{folder}/last.pt", BINARY, {"missing": SAME}, member)
    log = _FEW_JSON | {"a line of other keys": replaced('{"a": 1}\n')}
    yield Input(command, "log.jsonl", f"{folder}/log.jsonl", log, {"*": SAME}, member)
    yield Input(command, "safetensors", f"{folder}/best.safetensors", _FEW, {"*": SAME}, member)
    for label, name in (
        ("prepared image", "case_a.image.npy"),
        ("prepared label", "case_a.label.npy"),
        ("prepared foreground", "case_a.foreground.npy"),
        ("prepared json", "case_a.json"),
        ("prepared settings", "settings.json"),
    ):
        damages = (
            _FEW_JSON if name.endswith("json") else _FEW | {"zeros": BINARY["zeros of its length"]}
        )
        path = f"begun/prepared/*/{name}"
        yield Input(command, label, path, damages, {"*": SAME}, ("case_a", "prepared"))


def _demo() -> Iterator[Input]:
    yield Input(c.DEMO_DATASET, "dataset.json", "data/dataset.json", _FEW)
    yield Input(c.DEMO_DATASET, "config", "demo.yaml", _FEW, {"truncated at 1/2": HANDLED})
    yield Input(c.DEMO_AGAIN, "experiment.json", "study/experiment.json", _FEW_JSON, {"*": SAME})
    for name in (
        *("runs/ce/config.json", "runs/ce/splits.json", "runs/ce/member_00/best.safetensors"),
        *("predictions/ce/member_00/prediction.json", "predictions/ce/member_00/case_d.npz"),
        *("predictions/ce/ensemble/case_d.nii.gz", "predictions/ce/ensemble/calibration.npz"),
    ):
        damages = _only(ANY, "empty", "a FIFO", "truncated at 1/2")
        yield Input(c.DEMO_AGAIN, name, f"study/{name}", damages, {"*": SAME}, ("case_d",))


def kinds() -> Iterator[Kind]:
    """Of all files of all commands."""
    for group, inputs in (
        ("ensemble", [*_ensemble(), *_again(c.ENSEMBLE_AGAIN, "done", "case_a")]),
        ("predict", [*_predict(), *_again(c.PREDICT_AGAIN, "predicted", "case_a")]),
        ("evaluate", list(_evaluate())),
        ("recalibrate", [*_recalibrate(), *_again(c.APPLY_AGAIN, "applied", "case_a")]),
        ("merge", list(_merge())),
        ("export", list(_export())),
        ("train", list(_train())),
        ("train_again", list(_train_again())),
        ("demo", list(_demo())),
    ):
        for one in inputs:
            yield from one.kinds(group)
