"""Runs that go on, or are put together, with settings or inputs that do not belong together."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from . import commands as c
from .judge import difference
from .kinds import Command, Expected, Kind, Prepare
from .world import DATASET_JSON, save_nifti, write_json

FRESH = "fresh"
Words = tuple[str, ...]


def as_fresh(folder: Path) -> str | None:
    """Compare the outputs with those of the same command in a folder of its own."""
    return difference(folder / "out", folder / FRESH)


def _into(words: Words, out: str) -> Words:
    place = words.index("-o") + 1
    return (*words[:place], out, *words[place + 1 :])


def join(
    name: str,
    group: str,
    command: Command,
    steps: tuple[tuple[Words, Prepare | None], ...],
    names: Words,
) -> Kind:
    """Steps into ``out``, then a command into it; right: what it makes in a folder of its own."""
    resumed = Command(command.name, command.argv, command.needs, "out", command.arrange, True)
    return Kind(
        name=f"{command.name}: {name}",
        group=group,
        command=resumed,
        steps=(*steps, (_into(command.argv, FRESH), None)),
        expected=Expected.SAME,
        names=(*names, "prediction.json", "out"),
        check=as_fresh,
        stale=True,
    )


def _settings(group: str, command: Command, options: tuple[str, ...]) -> Iterator[Kind]:
    """An option that was not given before, and one that is no longer given."""
    for text in options:
        words = tuple(text.split())
        more = command.with_options(*words)
        name = (words[0].removeprefix("--"),)
        yield join(f"after it, {text} as well", group, more, ((command.argv, None),), name)
        yield join(f"after it with {text}", group, command, ((more.argv, None),), name)


def _inputs(
    group: str, command: Command, changes: tuple[tuple[str, Prepare, Words], ...]
) -> Iterator[Kind]:
    for name, change, names in changes:
        yield join(f"after it, {name}", group, command, ((command.argv, change),), names)


# Changes of inputs


def _npz_rewritten(folder: Path) -> None:
    path = folder / "folds/fold_0/case_a.npz"
    p = np.load(path)["probabilities"]
    np.savez_compressed(path, probabilities=p[[1, 2, 0]])


def _npz_of_its_time(folder: Path) -> None:
    """Other contents of the same size and time, as rsync or a container's clock leave them."""
    path = folder / "folds/fold_0/case_a.npz"
    before = path.stat()
    p = np.load(path)["probabilities"]
    np.savez(path, probabilities=p)
    size = path.stat().st_size
    np.savez(path, probabilities=p[[1, 2, 0]])
    assert path.stat().st_size == size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _npz_stored(folder: Path) -> None:
    for path in folder.glob("folds/*/*.npz"):
        np.savez(path, probabilities=np.load(path)["probabilities"])


def _reference_rewritten(folder: Path) -> None:
    path = folder / "labels/case_a.nii.gz"
    save_nifti(path, np.ascontiguousarray(np.asarray(nib.load(path).dataobj)[::-1]))


def _groups_now(folder: Path) -> None:
    labels = {"background": 0, "x": [1, 2], "y": [2], "z": [1]}
    for path in folder.glob("folds/*/dataset.json"):
        write_json(path, DATASET_JSON | {"labels": labels, "regions_class_order": [1, 2, 1]})


def _image_rewritten(folder: Path) -> None:
    path = folder / "images/case_a_0000.nii.gz"
    image = np.asarray(nib.load(path).dataobj)
    save_nifti(path, np.ascontiguousarray(image[::-1, ::-1] ** 2).astype(np.float32))


def _other_weights(folder: Path) -> None:
    a, b = (folder / f"run/member_0{k}/best.safetensors" for k in range(2))
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)


def _other_preprocessing(folder: Path) -> None:
    path = folder / "run/config.json"
    content = json.loads(path.read_text())
    content["preprocessing"]["percentiles"] = [20.0, 60.0]
    path.write_text(json.dumps(content))


def _other_calibrator(folder: Path) -> None:
    path = folder / "calibrators/temperature.json"
    content = json.loads(path.read_text())
    content["fitted"]["temperature"] = 3.0
    path.write_text(json.dumps(content))


def _touched(folder: Path) -> None:
    for path in folder.rglob("folds/*/*"):
        os.utime(path, ns=(10**18, 10**18))


def _case_added(folder: Path) -> None:
    for fold in folder.glob("folds/*"):
        for path in list(fold.glob("case_a.*")):
            shutil.copyfile(path, fold / path.name.replace("case_a", "case_c"))
    shutil.copyfile(folder / "labels/case_a.nii.gz", folder / "labels/case_c.nii.gz")


def _case_removed(folder: Path) -> None:
    for path in folder.glob("folds/*/case_b.*"):
        path.unlink()


def _resumed() -> Iterator[Kind]:
    counting = ("--bins 10", "--closed left", "--fine-bins 64", "--region foreground")
    writing = ("--dtype uint8", "--maps variance", "--save-probabilities")
    ways = ("--temperature 2", "--weights 1 3", "--space logit")
    ways = (*ways, "--inputs folds/fold_0 --allow-duplicates")
    yield from _settings("joins", c.ENSEMBLE, (*ways, *counting, *writing, "--cases case_a"))
    fewer = Command(
        "ensemble", (*c.ENSEMBLE.argv[:2], *c.ENSEMBLE.argv[3:]), c.ENSEMBLE.needs, "out"
    )
    fold = ("folders", "fold_0", "fold_1")
    yield join("of one fold, after two", "joins", fewer, ((c.ENSEMBLE.argv, None),), fold)
    swapped = list(c.ENSEMBLE.argv)
    swapped[2], swapped[3] = swapped[3], swapped[2]
    weighted = Command("ensemble", (*swapped, "--weights", "1", "3"), c.ENSEMBLE.needs, "out")
    before = (*c.ENSEMBLE.argv, "--weights", "1", "3")
    yield join("of swapped folds", "joins", weighted, ((before, None),), fold)
    bare = tuple(w for w in c.ENSEMBLE.argv if w not in ("-g", "labels"))
    without = Command("ensemble", bare, c.ENSEMBLE.needs, "out")
    yield join("with labels, after it without", "joins", c.ENSEMBLE, ((bare, None),), ("labels",))
    yield join(
        "without labels, after it", "joins", without, ((c.ENSEMBLE.argv, None),), ("labels",)
    )
    yield from _inputs(
        "joins",
        c.ENSEMBLE,
        (
            ("npz rewritten", _npz_rewritten, ("case_a",)),
            ("reference rewritten", _reference_rewritten, ("case_a",)),
            ("dataset.json with groups", _groups_now, ("dataset.json",)),
            ("a case more", _case_added, ("case_c",)),
            ("a case fewer", _case_removed, ("case_b",)),
            ("files touched", _touched, ("case_a",)),
        ),
    )
    stored = Command("ensemble", c.ENSEMBLE.argv, c.ENSEMBLE.needs, "out", _npz_stored)
    yield join(
        "after it, npz of the same size and time",
        "joins",
        stored,
        ((stored.argv, _npz_of_its_time),),
        ("case_a",),
    )
    ways = ("--temperature 2", "--members 0", "--mirror 0", "--noise 0.5", "--space logit")
    ways = (*ways, "--precision bf16", "--noise 0.5 --seed 3")
    yield from _settings("joins", c.PREDICT, (*ways, *counting[:2], *writing))
    yield from _inputs(
        "joins",
        c.PREDICT,
        (
            ("image rewritten", _image_rewritten, ("case_a",)),
            ("reference rewritten", _reference_rewritten, ("case_a",)),
            ("weights exchanged", _other_weights, ("member_00", "weights_sha256", "weights")),
            ("preprocessing changed", _other_preprocessing, ("config.json", "preprocessing")),
        ),
    )
    yield from _settings("joins", c.APPLY, (*counting[:2], writing[0], writing[2]))
    other = "calibrators/histogram.json"
    words = tuple(other if word.endswith("temperature.json") else word for word in c.APPLY.argv)
    yield join(
        "another calibrator after it",
        "joins",
        Command("recalibrate apply", words, c.APPLY.needs, "out"),
        ((c.APPLY.argv, None),),
        ("calibrator",),
    )
    yield from _inputs(
        "joins",
        c.APPLY,
        (
            ("calibrator rewritten", _other_calibrator, ("calibrator", "temperature.json")),
            ("npz rewritten", _npz_rewritten, ("case_a",)),
            ("reference rewritten", _reference_rewritten, ("case_a",)),
        ),
    )


def _of_others() -> Iterator[Kind]:
    """The folder of another command."""
    one = tuple(w for w in c.ENSEMBLE.argv if w != "folds/fold_1")
    needs = (*c.APPLY.needs, "run", "images")
    ensemble = Command("ensemble of one fold", one, needs, "out")
    apply = Command("recalibrate apply", c.APPLY.argv, needs, "out")
    predict = Command("predict", c.PREDICT.argv, needs, "out")
    for first, second in (
        (ensemble, apply),
        (apply, ensemble),
        (predict, ensemble),
        (ensemble, predict),
        (predict, apply),
        (apply, predict),
    ):
        yield join(f"in the folder of {first.name}", "joins", second, ((first.argv, None),), ())


def _overwritten() -> Iterator[Kind]:
    for kind in _mixed():
        yield replace(kind, stops=True)


def _mixed() -> Iterator[Kind]:
    hot = ("--temperature", "3")
    for command in (c.ENSEMBLE, c.PREDICT):
        one = (*command.argv, "--overwrite", "--cases", "case_a", *hot)
        yield join(
            "after --overwrite of one case with another temperature",
            "joins",
            command,
            ((command.argv, None), (one, None)),
            ("temperature",),
        )
        yield join(
            "with that temperature, after --overwrite of one case with it",
            "joins",
            command.with_options(*hot),
            ((command.argv, None), (one, None)),
            ("temperature",),
        )
    part = ("--num-parts", "2", "--part-id", "0")
    yield join(
        "whole, after --overwrite of a part with another temperature",
        "joins",
        c.ENSEMBLE,
        ((c.ENSEMBLE.argv, None), ((*c.ENSEMBLE.argv, "--overwrite", *part, *hot), None)),
        ("temperature",),
    )


# Merging


def _part(number: int, *words: str, out: str = "out", parts: int = 2) -> Words:
    split = ("--num-parts", str(parts), "--part-id", str(number))
    return (*_into(c.ENSEMBLE.argv, out), *split, *words)


def _merged(name: str, inputs: str, steps: tuple[tuple[Words, Prepare | None], ...]) -> Kind:
    command = Command(
        "merge",
        ("merge", "-i", *inputs.split(), "-o", "sum"),
        (*c.ENSEMBLE.needs, "parts", "done"),
        "sum",
    )
    return Kind(
        name=f"merge: {name}",
        group="merge",
        command=command,
        steps=steps,
        names=("parts", "part", "out", "calibration", "case_a", "case_b", "labels", "nowhere"),
        check=_wrong_sum,
    )


def _wrong_sum(_: Path) -> str | None:
    return "a sum of what does not belong together"


def _linked(folder: Path) -> None:
    (folder / "linked").symlink_to("parts")


def _merging() -> Iterator[Kind]:
    hot = ("--temperature", "3")
    p0, p1 = (f"parts/calibration.part-{k}-of-2.npz" for k in range(2))
    o0, o1 = (f"out/calibration.part-{k}-of-2.npz" for k in range(2))
    for name, words in (
        ("temperature", hot),
        ("space", ("--space", "logit")),
        ("weights", ("--weights", "1", "3")),
        ("bins", ("--bins", "10")),
        ("closed end", ("--closed", "left")),
        ("regions", ("--region", "foreground")),
        ("fine bins", ("--fine-bins", "64")),
    ):
        steps: tuple[tuple[Words, Prepare | None], ...] = ((_part(1, *words), None),)
        yield _merged(f"parts of runs of other {name}", f"{p0} {o1}", steps)
    again = ((_part(0), None), (_part(1), None), (_part(0, "--overwrite", *hot), None))
    overwritten = _merged("a part overwritten with another temperature", "out", again)
    yield replace(overwritten, stops=True)
    steps = ((_part(0), _npz_rewritten), (_part(1), None))
    yield _merged("parts with inputs rewritten in between", "out", steps)
    steps = ((_part(0), _reference_rewritten), (_part(1), None))
    yield _merged("parts with references rewritten in between", "out", steps)
    swapped = _into((*c.ENSEMBLE.argv[:2], *c.ENSEMBLE.argv[3:]), "out")
    steps = (((*swapped, "--num-parts", "2", "--part-id", "1"), None),)
    yield _merged("parts of runs over other folders", f"{p0} {o1}", steps)
    steps = ((_part(0), None), (_part(1, parts=3), None))
    yield _merged("part 0 of 2 and part 1 of 3", "out", steps)
    steps = ((_part(0), None),)
    yield _merged("a part missing", "out", steps)
    yield _merged("the same folder twice", "parts parts", ())
    yield _merged("the same part twice", f"{p0} {p1} {p1}", ())
    yield _merged("the same folder by a link", "parts linked", (((), _linked),))
    yield _merged("a case's file and its part", f"done/calibration/case_a.npz {p1}", ())
    yield _merged("the whole and a part", f"done/calibration.npz {p0}", ())
    yield _merged("one case in two parts", f"{p0} {o0}", ((_part(0), None),))
    yield _merged("nothing", "labels", ())
    yield _merged("no such folder", "nowhere", ())


# Training


def _training() -> Iterator[Kind]:
    def changed(name: str, change: Prepare, names: Words, command: Command = c.TRAIN_AGAIN) -> Kind:
        return Kind(
            name=f"train again: {name}",
            group="train_again",
            command=command,
            damage=change,
            names=names,
            check=lambda _: "trained on with data of two kinds",
            stale=True,
        )

    def image(folder: Path) -> None:
        path = folder / "data/imagesTr/case_a_0000.nii.gz"
        save_nifti(path, np.asarray(nib.load(path).dataobj)[::-1].copy())

    def label(folder: Path) -> None:
        path = folder / "data/labelsTr/case_a.nii.gz"
        save_nifti(path, np.asarray(nib.load(path).dataobj)[::-1].copy())

    def names_swapped(folder: Path) -> None:
        labels = {"background": 0, "b": 1, "a": 2}
        write_json(folder / "data/dataset.json", DATASET_JSON | {"labels": labels})

    def case_gone(folder: Path) -> None:
        (folder / "data/imagesTr/case_a_0000.nii.gz").unlink()

    yield changed("image rewritten", image, ("case_a", "data"))
    yield changed("label rewritten", label, ("case_a", "data"))
    yield changed("labels renamed", names_swapped, ("dataset.json", "labels"))
    yield changed("a case gone", case_gone, ("case_a",))
    for words in (
        *("--seed 7", "--loss dice", "--learning-rate 0.1", "--batch-size 1", "--split 1,1,1"),
        *("--set network.widths=8,16", "--set loop.ema=0.9", "--dims 3", "--fold 0"),
    ):
        yield Kind(
            name=f"train again: {words}",
            group="train_again",
            command=c.TRAIN_AGAIN.with_options(*words.split()),
            names=(words.split()[0].removeprefix("--"), "widths", "ema", "learning_rate", "begun"),
            check=lambda _: "trained on with other settings",
            stale=True,
        )
    for words in ("--seed 7", "--members 2", "--split 1,1,1", "--loss dice", "--epochs 2"):
        yield Kind(
            name=f"demo again: {words}",
            group="demo",
            command=c.DEMO_AGAIN.with_options(*words.split()),
            names=("experiment.json",),
            check=lambda _: "went on with other settings",
            stale=True,
        )


def kinds() -> Iterator[Kind]:
    """Of all joins."""
    yield from _resumed()
    yield from _of_others()
    yield from _overwritten()
    yield from _merging()
    yield from _training()
