"""Commands that read scores of segments: ``quality``, ``ood`` and ``status``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import commands as c
from .damage import ANY, JSON, WRONG_VALUES, json_of, key_damage, replaced
from .kinds import Command, Expected, Kind
from .rows import HANDLED, LISTED, Row, table
from .table_arguments import Option, accepted, named_by_value
from .table_files import Input

_FEW = {name: ANY[name] for name in ("missing", "empty", "a FIFO", "a folder", "truncated at 1/2")}
_FEW_JSON = _FEW | {
    name: JSON[name] for name in ("nested 200,000 deep", "a list", "null", "an empty object")
}


def _files() -> Iterator[Input]:
    segments = "done/segments.json"
    yield Input(c.QUALITY_FIT, "segments.json", segments, JSON)
    yield Input(c.QUALITY_PREDICT, "segments.json", segments, _FEW_JSON)
    yield Input(c.QUALITY_PREDICT, "predictor", "quality.json", JSON)
    left_out = {"missing": HANDLED}
    reference = "labels/case_a.nii.gz"
    yield Input(c.QUALITY_EVALUATE, "reference", reference, _FEW, left_out, ("case_a",))
    yield Input(c.QUALITY_EVALUATE, "predictor", "quality.json", _FEW_JSON)
    yield Input(c.QUALITY_MAPS, "map", "done/entropy/case_a.nii.gz", _FEW, {}, ("case_a",))
    yield Input(c.QUALITY_SUMMARY, "summary.json", "summary.json", JSON)
    yield Input(c.OOD_FIT, "segments.json", segments, _FEW_JSON)
    image = "data/imagesTr/case_a_0000.nii.gz"
    yield Input(c.OOD_IMAGES, "image", image, _FEW, {"missing": HANDLED}, ("case_a",))
    weights = "run/member_00/best.safetensors"
    yield Input(c.OOD_IMAGES, "safetensors", weights, _FEW, {}, ("member_00", "run"))
    yield Input(c.OOD_PREDICT, "detectors", "ood.json", JSON)
    yield Input(c.OOD_EVALUATE, "detectors", "ood.json", _FEW_JSON)
    yield Input(c.OOD_EVALUATE, "segments.json", segments, _FEW_JSON)
    record = "done/prediction.json"
    yield Input(c.STATUS, "prediction.json", record, JSON)
    case, unfit = ("case_a",), {"*": LISTED}
    known = "done/record/case_a.json"
    yield Input(c.STATUS, "record of a case", known, _FEW_JSON, unfit | left_out, case)
    yield Input(c.STATUS, "labels", "done/case_a.nii.gz", _FEW, unfit, case)


def _segments(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Other scores of structure 1 of the first case."""

    def do(content: dict[str, Any]) -> None:
        change(content["cases"]["case_a"]["1"])

    return json_of(do)


def _scored(**scores: Any) -> Callable[[Path], None]:
    return _segments(lambda one: one.update(scores))


def _contents() -> Iterator[Kind]:
    rows: list[Row] = [
        ("with a score that is a word", _scored(binary_entropy="high")),
        (
            "with a score of 1e400",
            _text('"binary_entropy": 0.5', '"binary_entropy": 1e400, "x": 0.5'),
        ),
        ("with a score of -7", _scored(binary_entropy=-7.0), HANDLED),
        ("with a score that is null", _scored(binary_entropy=None), HANDLED),
        ("with a score that is a list", _scored(binary_entropy=[1.0])),
        ("without the score", _segments(lambda one: one.pop("binary_entropy")), HANDLED),
        ("of no case", json_of(lambda content: content["cases"].clear())),
        ("of no structure", json_of(lambda content: content["structures"].clear())),
        ("with a structure named twice", json_of(_named_twice)),
        ("of another version", json_of(lambda content: content.update(version=99))),
        ("of other cases", json_of(_renamed)),
        ("with a case that is a list", json_of(_case_of([]))),
        ("with a case without structures", json_of(_case_of({})), HANDLED),
    ]
    names = ("done", "labels")
    yield from table("scored", c.QUALITY_FIT, "segments.json", "done/segments.json", rows, names)
    renamed = [row for row in rows if "other cases" not in row[0]]
    yield from table("scored", c.OOD_FIT, "segments.json", "done/segments.json", renamed, names)

    def trained(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
        return json_of(lambda content: change(content["training"]))

    rows = [
        ("with a Dice of 7", trained(lambda one: one["dice"].__setitem__(0, 7.0))),
        ("with a Dice of -1", trained(lambda one: one["dice"].__setitem__(0, -1.0))),
        ("with a Dice less", trained(lambda one: one["dice"].pop())),
        ("with a structure less", trained(lambda one: one["structures"].pop())),
        ("with two scores in a row", trained(lambda one: one["scores"][0].append(1.0))),
        ("without rows", trained(_without_rows)),
        ("of one row", trained(_one_row)),
        ("of scores that are all the same", trained(_same_scores), HANDLED),
        ("with other predictions", json_of(lambda content: content["predicted"].reverse())),
        ("with a prediction less", json_of(lambda content: content["predicted"].pop())),
        *(
            (f"with the parameter {name} {value!r}", _parameter(name, value))
            for name, value in (
                *(("n_trees", 10**9), ("n_trees", 0), ("level", 7), ("level", "x")),
                *(("model", "svm"), ("scores", "binary_entropy"), ("scores", [])),
                *(("clip", -1), ("seed", -1), ("seed", 2**63), ("bogus", 1), ("interval", "x")),
            )
        ),
        ("with the parameters a list", json_of(lambda content: content.update(parameters=[]))),
        ("that was fitted to other structures", trained(_other_structures)),
    ]
    yield from table("scored", c.QUALITY_PREDICT, "predictor", "quality.json", rows, ("done",))

    def detector(**values: Any) -> Callable[[Path], None]:
        return json_of(lambda content: content["detectors"][0].update(values))

    rows = [
        ("with a rate of 7", detector(false_positive_rate=7.0)),
        ("with a rate of 1e-30", detector(false_positive_rate=1e-30)),
        ("without values", detector(values=[])),
        ("with one value", detector(values=[0.5]), HANDLED),
        ("with values that are words", detector(values=["x", "y"])),
        ("with values of two axes", detector(values=[[0.5], [0.6]])),
        ("with values that are null", detector(values=[None, None]), HANDLED),
        ("with an unknown score", detector(score="bogus")),
        ("with a score of images", detector(score="histogram")),
        ("without detectors", json_of(lambda content: content["detectors"].clear())),
        ("with the same detector twice", json_of(_twice)),
        ("with 10^9 bins", json_of(lambda content: content.update(n_bins=10**9))),
        ("with 1 bin", json_of(lambda content: content.update(n_bins=1))),
        ("of unknown structures", json_of(lambda content: content.update(structures=["x"]))),
        ("of no structures", json_of(lambda content: content.update(structures=[]))),
        *(
            (f"with the key {name} {word}", key_damage((name,), WRONG_VALUES[word]))
            for name in ("format", "version", "structures", "detectors")
            for word in ("missing", "a word", "1e400")
        ),
    ]
    yield from table("scored", c.OOD_PREDICT, "detectors", "ood.json", rows, ("done",))
    rows = [
        ("without cases", json_of(lambda content: content["metric_per_case"].clear())),
        ("of other cases", json_of(_other_cases)),
        ("of other structures", json_of(_other_metrics)),
        ("with a Dice that is a word", _dice("high")),
        ("with a Dice of 7", _dice(7.0)),
        ("with a Dice of -1", _dice(-1.0)),
        ("with a Dice that is a list", _dice([1.0])),
        ("with a Dice that is null", _dice(None), HANDLED),
        ("with a case twice", json_of(_case_twice)),
    ]
    yield from table("scored", c.QUALITY_SUMMARY, "summary.json", "summary.json", rows)


def _text(old: str, new: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = path.read_text()
        place = content.index(old)
        path.write_text(content[:place] + new + content[place + len(old) :])

    return damage


def _named_twice(content: dict[str, Any]) -> None:
    content["structures"].append("1")


def _renamed(content: dict[str, Any]) -> None:
    content["cases"] = {f"other_{name}": one for name, one in content["cases"].items()}


def _case_of(value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        content["cases"]["case_a"] = value

    return change


def _without_rows(one: dict[str, Any]) -> None:
    one.update(structures=[], scores=[], dice=[])


def _one_row(one: dict[str, Any]) -> None:
    one.update({name: values[:1] for name, values in one.items()})


def _same_scores(one: dict[str, Any]) -> None:
    one["scores"] = [[0.5] for _ in one["scores"]]


def _other_structures(one: dict[str, Any]) -> None:
    one["structures"] = ["x" for _ in one["structures"]]


def _parameter(name: str, value: Any) -> Callable[[Path], None]:
    return json_of(lambda content: content["parameters"].update({name: value}))


def _twice(content: dict[str, Any]) -> None:
    content["detectors"].append(content["detectors"][0])


def _other_cases(content: dict[str, Any]) -> None:
    for one in content["metric_per_case"]:
        one["case"] = f"other_{one['case']}"


def _other_metrics(content: dict[str, Any]) -> None:
    content["labels"] = {}
    for one in content["metric_per_case"]:
        one["metrics"] = {"77": one["metrics"]["1"]}


def _dice(value: Any) -> Callable[[Path], None]:
    def change(content: dict[str, Any]) -> None:
        content["metric_per_case"][0]["metrics"]["1"]["Dice"] = value

    return json_of(change)


def _case_twice(content: dict[str, Any]) -> None:
    content["metric_per_case"].append(content["metric_per_case"][0])


def _options() -> Iterator[Option]:
    ok = Expected.HANDLED
    fit = c.QUALITY_FIT
    yield Option(fit, "--level {}", values=("0", "1", "-1", "nan", "inf", "many"))
    yield Option(fit, "--seed {}", {"0": ok}, ("0", "-1", "nan", "10000000000000000000000"))
    yield Option(fit, "--scores {}", values=("bogus", "volume_spread volume_spread"))
    yield Option(fit, "--model {}", values=("svm",))
    yield Option(fit, "--interval {}", values=("bogus", "normalised"), names=("done",))
    yield Option(fit, "--input {}", values=("nowhere", "labels", "images", "labels/case_a.nii.gz"))
    yield Option(fit, "--labels {}", values=("nowhere", "done/entropy", "images"))
    yield Option(fit, "--dataset-json {}", values=("nowhere.json", "labels"))
    yield Option(fit, "--summary {}", values=("summary.json",), names=("labels",))
    evaluate = c.QUALITY_EVALUATE
    yield Option(evaluate, "--resamples {}", values=("0", "-1", "nan", "1000000000"))
    yield Option(evaluate, "--failure-dice {}", {"0": ok}, ("0", "-1", "2", "nan"))
    yield Option(evaluate, "--maps {}", values=("bogus", "../labels"), names=("maps",))
    yield Option(evaluate, "--seed {}", values=("-1", "nan"))
    yield Option(c.QUALITY_PREDICT, "--top {}", {"0": ok}, ("0", "-1", "nan"))
    yield Option(c.QUALITY_PREDICT, "--predictor {}", values=("nowhere.json", "labels"))
    fit = c.OOD_FIT
    yield Option(fit, "--fpr {}", values=("0", "-1", "1", "nan", "inf", "1e-9"), names=("rate",))
    yield Option(fit, "--scores {}", values=("bogus", "histogram"), names=("images",))
    yield Option(fit, "--structures {}", values=("bogus",))
    yield Option(fit, "--input {}", values=("nowhere", "labels"))
    yield Option(fit, "--images {}", values=("nowhere", "labels/case_a.nii.gz"))
    bins = "--images images --scores histogram --bins {}"
    yield Option(fit, bins, values=("0", "1", "-1", "nan", "1000000000"), names=("n_bins",))
    yield Option(c.OOD_EVALUATE, "--resamples {}", values=("0", "-1", "1000000000"))
    yield Option(c.OOD_EVALUATE, "--level {}", values=("0", "1", "nan"))
    yield Option(c.OOD_EVALUATE, "--ood {}", values=("nowhere", "labels"))
    yield Option(c.STATUS, "--predictions {}", values=("nowhere", "labels", "ood.json", "run"))


def _overwritten() -> Iterator[Kind]:
    """Outputs in the place of inputs, by name, through links, and folders of data."""

    def place(name: str, command: Command, out: str, damage: Any = None) -> Kind:
        words = list(command.argv)
        words[words.index("-o") + 1] = out
        moved = Command(command.name, tuple(words), command.needs, out)
        return Kind(
            name=f"{command.name}: {name}",
            group="scored",
            command=moved,
            damage=damage,
            names=(out, Path(out).name),
            check=accepted,
        )

    def linked(source: str, target: str) -> Callable[[Path], None]:
        def do(folder: Path) -> None:
            (folder / target).parent.mkdir(exist_ok=True)
            os.link(folder / source, folder / target)

        return do

    yield place("out is segments.json", c.QUALITY_FIT, "done/segments.json")
    yield place("out is a reference", c.QUALITY_FIT, "labels/case_a.nii.gz")
    yield place("out is dataset.json", c.QUALITY_FIT, "done/dataset.json")
    yield place("out is the summary", c.QUALITY_SUMMARY, "summary.json")
    yield place("out holds the predictor", c.QUALITY_PREDICT, ".")
    hard = linked("quality.json", "out/quality.json")
    yield place("out has a hard link to the predictor", c.QUALITY_PREDICT, "out", hard)
    for folder in ("labels", "done"):
        yield place(f"out is {folder}", c.QUALITY_EVALUATE, folder)
        yield place(f"out is {folder}", c.OOD_EVALUATE, folder)
    yield place("out is segments.json", c.OOD_FIT, "done/segments.json")
    yield place("out is an image", c.OOD_IMAGES, "data/imagesTr/case_a_0000.nii.gz")
    yield place("out is of the run", c.OOD_IMAGES, "run/member_00/member.json")
    yield place("out holds the detectors", c.OOD_PREDICT, ".")
    hard = linked("ood.json", "out/ood.json")
    yield place("out has a hard link to the detectors", c.OOD_PREDICT, "out", hard)


def _crafted() -> Iterator[Kind]:
    """Records that name files elsewhere."""

    def outside(folder: Path) -> None:
        path = folder / "done/record/case_a.json"
        content = json.loads(path.read_text())
        content["outputs"] = {"../../../../../../etc/passwd": {"size": 1, "sha256": "x"}}
        path.write_text(json.dumps(content))

    yield Kind(
        name="status: a record that names a file elsewhere",
        group="scored",
        command=c.STATUS,
        damage=outside,
        expected=LISTED,
        names=("case_a",),
    )
    yield Kind(
        name="status: a record of a case of another name",
        group="scored",
        command=c.STATUS,
        damage=lambda folder: replaced("{}")(folder / "done/record/nobody.json"),
        expected=LISTED,
        names=("nobody",),
    )


def kinds() -> Iterator[Kind]:
    """Of scores of segments, and of status."""
    for one in _files():
        yield from one.kinds("scored")
    yield from _contents()
    for option in _options():
        yield from map(named_by_value, option.kinds("scored"))
    yield from _overwritten()
    yield from _crafted()
