"""Outputs where inputs are, places that cannot be written to, and things that are there twice."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np

from . import commands as c
from .damage import Damage
from .kinds import Check, Command, Expected, Kind, Prepare
from .table_arguments import accepted
from .world import AFFINE, save_nifti, write_json

SAME, TOLD, RIGHT = Expected.SAME, Expected.TOLD, Expected.RIGHT


def _to(command: Command, out: str, *more: str) -> Command:
    """The same command into another place."""
    place = command.argv.index("-o") + 1
    argv = (*command.argv[:place], out, *command.argv[place + 1 :], *more)
    return Command(command.name, argv, command.needs, out, command.arrange)


def _over(group: str, command: Command, *places: str) -> Iterator[Kind]:
    """A kind for each place of an input, as it is and by a link."""
    for out in places:
        yield Kind(
            name=f"{command.name}: out is {out}",
            group=group,
            command=_to(command, out),
            names=(out, Path(out).name, "out"),
            check=accepted,
        )
    first = places[0]

    def linked(folder: Path) -> None:
        (folder / "link").symlink_to(first)

    yield Kind(
        name=f"{command.name}: out is a link to {first}",
        group=group,
        command=_to(command, "link"),
        damage=linked,
        names=("link", first, Path(first).name),
        check=accepted,
    )
    round_about = f"./{first}/../{Path(first).name}"
    if not Path(first).suffix:
        yield Kind(
            name=f"{command.name}: out is {round_about}",
            group=group,
            command=_to(command, round_about),
            names=(Path(first).name,),
            check=accepted,
        )


def _hard(group: str, command: Command, source: str, out: str) -> Kind:
    """An output that is a hard link of an input."""

    def damage(folder: Path) -> None:
        (folder / out).parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / source, folder / out)

    return Kind(
        name=f"{command.name}: {out} is a hard link of {source}",
        group=group,
        command=command,
        damage=damage,
        names=(Path(out).name, Path(source).name),
        check=accepted,
    )


def _unwritable(group: str, command: Command) -> Iterator[Kind]:
    """Places where nothing can be written."""

    def file_there(folder: Path) -> None:
        (folder / "taken").write_text("mine")

    def pipe_there(folder: Path) -> None:
        os.mkfifo(folder / "pipe")

    def dangling(folder: Path) -> None:
        (folder / "gone").symlink_to("nowhere/at/all")

    def loop(folder: Path) -> None:
        (folder / "loop").symlink_to("loop")

    a_file = bool(Path(command.out).suffix)
    ending = Path(command.out).suffix
    rows: list[tuple[str, str, Damage | None]] = [
        ("below a file", f"taken/x{ending}", file_there),
        ("in /proc", f"/proc/nowhere/x{ending}", None),
        ("with a name of 300 characters", "x" * 300 + ending, None),
        ("with a name of 240 characters", "x" * 240 + ending, None),
        ("a loop of links", "loop", loop),
        ("a FIFO", "pipe", pipe_there),
    ]
    rows.append(("a folder", "folds", None) if a_file else ("a file", "taken", file_there))
    for name, out, damage in rows:
        yield Kind(
            name=f"{command.name}: out is {name}",
            group=group,
            command=_to(command, out),
            damage=damage,
            names=(out, Path(out).name, "taken", "nowhere"),
            check=accepted,
            expected=Expected.HANDLED if "240" in name else Expected.REFUSED,
        )


def _places() -> Iterator[Kind]:
    yield from _over("outputs", c.ENSEMBLE, "labels", "folds/fold_0", "folds/fold_1")
    yield from _over("outputs", c.PREDICT, "images", "labels", "run", "run/member_00")
    yield from _over("outputs", c.APPLY, "labels", "folds/fold_0", "calibrators")
    yield from _over(
        "outputs",
        c.EVALUATE,
        *("labels/case_a.nii.gz", "folds/fold_0/case_a.nii.gz", "folds/fold_0/case_a.npz"),
        *("folds/fold_0/dataset.json", "folds/fold_0/case_a.pkl"),
    )
    yield from _over(
        "outputs",
        c.FIT,
        *("labels/case_a.nii.gz", "folds/fold_0/case_a.npz", "folds/fold_0/dataset.json"),
    )
    yield from _over(
        "outputs",
        c.EXPORT,
        *("run/member_00/last.pt", "run/config.json", "run/member_00/best.safetensors"),
    )
    yield from _over("outputs", c.TRAIN, "data", "data/imagesTr", "data/labelsTr")
    yield from _over("outputs", c.DEMO_DATASET, "data", "data/imagesTr")
    for source, out in (
        ("labels/case_a.nii.gz", "out/case_a.nii.gz"),
        ("folds/fold_0/case_a.nii.gz", "out/entropy/case_a.nii.gz"),
        ("folds/fold_0/dataset.json", "out/dataset.json"),
    ):
        yield _hard("outputs", c.ENSEMBLE, source, out)
    yield _hard("outputs", c.PREDICT, "images/case_a_0000.nii.gz", "out/case_a.nii.gz")
    yield _hard("outputs", c.APPLY, "labels/case_a.nii.gz", "out/case_a.nii.gz")
    yield _hard("outputs", c.EVALUATE, "labels/case_a.nii.gz", "scores.json")
    yield _hard("outputs", c.FIT, "folds/fold_0/dataset.json", "fitted.json")
    yield _hard("outputs", c.EXPORT, "run/member_00/last.pt", "out.ts")
    yield _hard("outputs", c.TRAIN, "data/dataset.json", "out/dataset.json")

    def own_splits(folder: Path) -> None:
        write_json(
            folder / "data/splits.json",
            {"train": ["case_a", "case_b"], "val": ["case_c"], "test": ["case_d"]},
        )

    yield Kind(
        name="train: out is the dataset that has a splits.json",
        group="outputs",
        command=_to(c.TRAIN, "data"),
        damage=own_splits,
        names=("data", "splits.json"),
        check=accepted,
    )
    for prepared in ("data/imagesTr", "data", "out"):
        yield Kind(
            name=f"train: --prepared is {prepared}",
            group="outputs",
            command=c.TRAIN.with_options("--prepared", prepared),
            names=("prepared", "data"),
            check=accepted,
            expected=Expected.HANDLED if prepared == "out" else Expected.REFUSED,
        )

    def map_folder(folder: Path) -> None:
        shutil.copytree(folder / "folds/fold_0", folder / "x/entropy")

    yield Kind(
        name="ensemble: the folder of a map is an input",
        group="outputs",
        command=Command(
            "ensemble",
            ("ensemble", "-i", "x/entropy", "folds/fold_1", "-o", "x", "-g", "labels", "-q"),
            c.ENSEMBLE.needs,
            "x",
        ),
        damage=map_folder,
        names=("entropy", "x"),
        check=accepted,
    )

    def named_as_channel(folder: Path) -> None:
        image, label = folder / "images/case_a_0000.nii.gz", folder / "labels/case_a.nii.gz"
        shutil.copyfile(image, image.with_name("case_a_0000_0000.nii.gz"))
        shutil.copyfile(label, label.with_name("case_a_0000.nii.gz"))

    yield Kind(
        name="predict: out is images, a case named case_a_0000",
        group="outputs",
        command=_to(c.PREDICT, "images"),
        damage=named_as_channel,
        names=("images",),
        check=accepted,
    )
    yield Kind(
        name="merge: out is a finished run of other cases",
        group="outputs",
        command=Command(
            "merge",
            ("merge", "-i", "parts", "-o", "predicted"),
            ("parts", "predicted"),
            "predicted",
        ),
        names=("predicted", "calibration.npz"),
        check=accepted,
    )
    for command in (c.ENSEMBLE, c.PREDICT, c.APPLY, c.EVALUATE, c.FIT, c.MERGE, c.EXPORT, c.TRAIN):
        yield from _unwritable("outputs", command)


# Duplicates


def _twice(
    name: str,
    command: Command,
    damage: Prepare | None,
    names: tuple[str, ...],
    expected: Expected = Expected.REFUSED,
) -> Kind:
    return Kind(
        name=f"{command.name}: {name}",
        group="outputs",
        command=command,
        damage=damage,
        names=names,
        expected=expected,
        check=accepted if expected is not RIGHT else None,
    )


def _npy_too(folder: Path) -> None:
    path = folder / "folds/fold_0/case_a.npz"
    np.save(path.with_suffix(".npy"), np.load(path)["probabilities"][::-1])


def _stack_too(folder: Path) -> None:
    p = np.load(folder / "folds/fold_0/case_a.npz")["probabilities"][::-1]
    stack = np.ascontiguousarray(np.moveaxis(p.transpose(0, 3, 2, 1), 0, -1))
    save_nifti(folder / "folds/fold_0/case_a.nii", stack)


def _plain_too(path: str) -> Prepare:
    def damage(folder: Path) -> None:
        source = folder / path
        array = np.asarray(nib.load(source).dataobj)
        plain = source.with_name(source.name.removesuffix(".gz"))
        nib.save(nib.Nifti1Image(np.ascontiguousarray(array[::-1]), AFFINE), plain)

    return damage


def _link_to_fold(folder: Path) -> None:
    (folder / "linked").symlink_to("folds/fold_0")


def _copy_of_fold(folder: Path) -> None:
    shutil.copytree(folder / "folds/fold_0", folder / "copy")


def _two_files(folder: Path) -> None:
    """One image of two channels, and channel files beside it."""
    image = np.asarray(nib.load(folder / "images/case_a_0000.nii.gz").dataobj)
    save_nifti(folder / "images/case_a_0001.nii.gz", image)


def _dotted(name: str) -> Prepare:
    """A case of another name, everywhere."""

    def damage(folder: Path) -> None:
        for path in sorted(folder.rglob("case_a*")):
            path.rename(path.with_name(path.name.replace("case_a", name)))

    return damage


def _all_there(name: str, out: str) -> Check:
    """A case is among the results."""

    def check(folder: Path) -> str | None:
        place = folder / out
        if place.suffix == ".json":
            scores = json.loads(place.read_text())["metric_per_case"]
            found = any(one["case"] == name for one in scores)
        else:
            found = (place / f"{name}.nii.gz").is_file()
        return None if found else f"case {name} is left out"

    return check


def _duplicates() -> Iterator[Kind]:
    same = ("fold_0", "inputs")
    folds = ("ensemble", "-i", "folds/fold_0")
    rest = ("-o", "out", "-g", "labels", "-q")
    for name, again, damage in (
        ("the same folder twice", "folds/fold_0", None),
        ("the same folder twice, spelled otherwise", "./folds/../folds/fold_0/", None),
        ("the same folder by a link", "linked", _link_to_fold),
        ("the same folder as a copy", "copy", _copy_of_fold),
    ):
        command = Command("ensemble", (*folds, again, *rest), c.ENSEMBLE.needs, "out")
        yield _twice(
            name,
            command,
            damage,
            (*same, again.strip("/")),
            TOLD if damage is _copy_of_fold else Expected.REFUSED,
        )
    yield _twice("CASE.npz and CASE.npy that differ", c.ENSEMBLE, _npy_too, ("case_a",))
    yield _twice("CASE.npz and a 4-D CASE.nii that differ", c.ENSEMBLE, _stack_too, ("case_a",))
    reference, prediction = "labels/case_a.nii.gz", "folds/fold_0/case_a.nii.gz"
    for command in (c.ENSEMBLE, c.EVALUATE, c.FIT, c.APPLY, c.PREDICT):
        two = _plain_too(reference)
        yield _twice("references CASE.nii and CASE.nii.gz", command, two, ("case_a",))
    two = _plain_too(prediction)
    yield _twice("predictions CASE.nii and CASE.nii.gz", c.EVALUATE, two, ("case_a",))
    image = "images/case_a_0000.nii.gz"
    two = _plain_too(image)
    yield _twice("images CASE.nii and CASE.nii.gz", c.PREDICT, two, ("case_a_0000",))
    yield _twice("a channel more in one case", c.PREDICT, _two_files, ("case_a",))
    two = _plain_too("data/imagesTr/case_a_0000.nii.gz")
    yield _twice("images CASE.nii and CASE.nii.gz", c.TRAIN, two, ("case_a",), TOLD)
    twice = c.PREDICT.with_options("--members", "0", "0")
    yield _twice("--members 0 0", twice, None, ("members",))
    yield _twice("--members 0 0", c.EXPORT.with_options("--members", "0", "0"), None, ("members",))
    twice = c.PREDICT.with_options("--mirror", "0", "0")
    yield _twice("--mirror 0 0", twice, None, ("mirror",), Expected.HANDLED)
    twice = c.ENSEMBLE.with_options("--region", "foreground", "foreground")
    yield _twice("--region twice", twice, None, ("region", "regions"))
    twice = c.ENSEMBLE.with_options("--cases", "case_a", "case_a", "case_b")
    yield _twice("--cases case_a twice", twice, None, ("cases",), Expected.HANDLED)
    twice = c.FIT.with_options("-i", "folds/fold_0")
    yield _twice("the same folder twice", twice, None, ("fold_0", "inputs"))
    both = c.FIT.with_options("-i", "folds/fold_1")
    yield _twice("one case in two folders", both, None, ("case_a", "fold_1"))
    yield _twice(
        "--loss ce ce", c.DEMO_DATASET.with_options("--loss", "ce"), None, ("loss", "losses")
    )

    for name in (".x", "..x", "-x", "x y", "x.nii", "x\n", "x*", "[x]", "\u00e9", "e\u0301"):
        shown = name.encode("unicode_escape").decode()
        for command in (c.ENSEMBLE, c.EVALUATE, c.PREDICT):
            yield Kind(
                name=f"{command.name}: a case named {shown}",
                group="outputs",
                command=command,
                damage=_dotted(name),
                expected=RIGHT,
                names=(name,),
                check=_all_there(name, command.out),
            )


def kinds() -> Iterator[Kind]:
    """Of all outputs, and of all that is there twice."""
    yield from _places()
    yield from _duplicates()
