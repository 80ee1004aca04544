"""A run that is killed before any of its renames ends, run again, with the files of one left alone.

Every file of fastcal is renamed into its place, so that these are all moments that differ. A few of
them are tried in `make test`, each of them with ``--slow``.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cohort import files_in
from faults.world import FOLD_CASES, build, reference, save_nifti, write_fold
from kills import Killer

Words = tuple[str, ...]
_FOLDS = ("-i", "folds/fold_0", "folds/fold_1")
_COUNTED = ("-g", "labels", "-q")
_FIT = ("recalibrate", "fit", "-i", "folds/fold_0", "-o", "fitted.json", *_COUNTED)
_TRAIN = (
    *("train", "-d", "data", "--members", "2", "--epochs", "2", "--split", "2,1,1"),
    *("--strategy", "sequential", "--iterations", "2", "--batch-size", "2", "-q"),
    *("--set", "network.widths=4,8", "loop.tensorboard=false", "loop.channels_last=false"),
)
_UNLIKE = (
    *("log.jsonl", "last.pt", "execution.json", "curves.png", "results.json", "report.html"),
    "conversion.json",
)
"""Files with times or paths in them. They must be there, but differ between any two runs."""


@dataclass(frozen=True)
class Case:
    """A command line, what is run before it, what it writes, and the renames tried always."""

    words: Words
    out: str
    before: tuple[Words, ...] = ()
    always: tuple[int, ...] = (0,)
    trained: bool = False


CASES = {
    "ensemble": Case(
        ("ensemble", *_FOLDS, "-o", "out", "--save-probabilities", *_COUNTED),
        "out",
        always=(0, 4, 12),
    ),
    "ensemble again, with other settings": Case(
        ("ensemble", *_FOLDS, "-o", "out", "--temperature", "2", "--overwrite", *_COUNTED),
        "out",
        before=(("ensemble", *_FOLDS, "-o", "out", *_COUNTED),),
        always=(5,),
    ),
    "recalibrate fit": Case(_FIT, "fitted.json"),
    "recalibrate apply": Case(
        ("recalibrate", "apply", "-c", "fitted.json", *_FOLDS[:2], "-o", "out", *_COUNTED),
        "out",
        before=(_FIT,),
        always=(3,),
    ),
    "evaluate": Case(
        ("evaluate", "-p", "folds/fold_0", "-o", "scores.json", "--no-surface", *_COUNTED),
        "scores.json",
        always=(0, 4),
    ),
    "merge": Case(
        ("merge", "-i", "out", "-o", "out"),
        "out",
        before=tuple(
            ("ensemble", *_FOLDS, "-o", "out", "--num-parts", "2", "--part-id", part, *_COUNTED)
            for part in "01"
        ),
        always=(1,),
    ),
    "predict": Case(
        ("predict", "-m", "run", "-i", "images", "-o", "out", *_COUNTED), "out", trained=True
    ),
    "convert": Case(("convert", "msd", "msd", "out", "-q"), "out", trained=True),
    "quality fit": Case(
        ("quality", "fit", "-i", "done", "-g", "labels", "-o", "fitted.json"),
        "fitted.json",
        trained=True,
    ),
    "quality predict": Case(
        ("quality", "predict", "-c", "quality.json", "-i", "done", "-o", "out"), "out", trained=True
    ),
    "ood predict": Case(
        ("ood", "predict", "-c", "ood.json", "-i", "done", "-o", "out"), "out", trained=True
    ),
    "export": Case(("export", "-m", "run", "-o", "out.ts"), "out.ts", trained=True),
    "train": Case((*_TRAIN, "-o", "out"), "out", trained=True),
    "demo": Case(
        (
            *("demo", "-d", "data", "-o", "out", "--split", "2,1,1", "--members", "2"),
            *("--loss", "ce", "--epochs", "1", "--iterations", "1", "--batch-size", "2"),
            *("--config", "demo.yaml", "-q"),
        ),
        "out",
        trained=True,
    ),
}


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    with Killer() as process:
        yield process


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds and their labels."""
    folder = tmp_path_factory.mktemp("kills") / "inputs"
    for fold in range(2):
        write_fold(folder / f"folds/fold_{fold}", fold)
    for case in FOLD_CASES:
        save_nifti(folder / f"labels/{case}.nii.gz", reference(case))
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """And images, a dataset and a trained run."""
    folder = tmp_path_factory.mktemp("kills") / "world"
    build(folder)
    with (folder / "demo.yaml").open("a") as config:
        config.write("  channels_last: false\n")  # "auto" chooses by time, and so by rounding
    return folder


def begun(killer: Killer, case: Case, source: Path, folder: Path) -> Path:
    """A copy of the inputs, in which what comes before is done."""
    shutil.copytree(source, folder)
    for words in case.before:
        assert killer.run(folder, words).code == 0
    return folder


def made(folder: Path, case: Case) -> dict[str, bytes]:
    """Everything in the output, and beside it if it is a file; hidden files too.

    Records have the times of files, which differ where a command has made its own inputs.
    """
    found = files_in(folder)
    return {
        name: b""
        if Path(name).name in _UNLIKE or "prepared" in name
        else re.sub(rb'"mtime_ns": \d+', b"", content)
        for name, content in found.items()
        if name.startswith((f"{case.out}/", f"{case.out}.partial/"))
        or case.out == name
        or "/.tmp-" in f"/{name}"
    }


def check(
    killer: Killer, case: Case, source: Path, folder: Path, renames: list[int] | slice
) -> int:
    """Kill before each of the renames, go on, and compare; return how many were tried."""
    whole = begun(killer, case, source, folder / "whole")
    ended = killer.run(whole, case.words)
    assert ended.code == 0, ended.said
    expected = made(whole, case)
    tried = range(ended.renames)[renames] if isinstance(renames, slice) else renames
    for number in tried:
        place = begun(killer, case, source, folder / f"at_{number}")
        assert killer.run(place, case.words, at=number).killed, f"fewer renames than {number + 1}"
        again = killer.run(place, case.words)
        assert again.code == 0, f"killed before rename {number}: {again.said}"
        found = made(place, case)
        assert found.keys() == expected.keys(), f"killed before rename {number}"
        unlike = [name for name in expected if found[name] != expected[name]]
        assert not unlike, f"killed before rename {number}"
        shutil.rmtree(place)
    return len(tried)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.trained])
def test_a_killed_run_goes_on_to_the_same_files(
    name: str, killer: Killer, inputs: Path, tmp_path: Path
) -> None:
    case = CASES[name]
    assert check(killer, case, inputs, tmp_path, list(case.always)) == len(case.always)


PARTS = {"demo": 4}
"""Of a command that renames so many files that they are tried in several tests."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "part"), [(name, part) for name in CASES for part in range(PARTS.get(name, 1))]
)
def test_a_run_killed_at_any_rename_goes_on_to_the_same_files(
    name: str, part: int, killer: Killer, world: Path, tmp_path: Path
) -> None:
    renames = slice(part, None, PARTS.get(name, 1))
    assert check(killer, CASES[name], world, tmp_path, renames) > 0
