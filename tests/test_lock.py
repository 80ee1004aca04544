"""Folders that a process works in are its own, or those of processes on parts of their own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import trees
from cohort import files_in, write_cohort, write_dataset_json

from fastcal.convert import convert_dataset
from fastcal.core.errors import DataError
from fastcal.core.lock import sole_use
from fastcal.predict import ensemble_folders, merge_statistics
from fastcal.recalibrate import apply_folders, fit_folders


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_cohort(tmp_path)
    write_dataset_json(tmp_path)
    return tmp_path


def folds(project: Path) -> list[Path]:
    return sorted(project.glob("fold_*"))


def ensemble(project: Path, **options: object) -> None:
    ensemble_folders(folds(project), project / "out", labels=project / "labels", **options)


def apply(project: Path) -> None:
    fit_folders(folds(project)[:1], project / "labels", project / "fitted.json")
    apply_folders(project / "fitted.json", folds(project)[:1], project / "out")


def merge(project: Path) -> None:
    for part in range(2):
        ensemble_folders(
            folds(project),
            project / "parts",
            labels=project / "labels",
            num_parts=2,
            part_id=part,
        )
    merge_statistics(project / "parts", project / "out")


@pytest.mark.parametrize("command", [ensemble, apply, merge])
@pytest.mark.parametrize("part", ["", "part-1-of-3"])
def test_a_folder_in_use_is_refused_in_one_line(
    project: Path, command: Callable[[Path], None], part: str
) -> None:
    message = re.escape(f"{project / 'out'}: is in use by process {os.getpid()} on ")
    with sole_use(project / "out", "command", part=part), pytest.raises(DataError, match=message):
        command(project)
    assert not (project / "out").exists()
    command(project)


def test_parts_work_side_by_side_and_none_of_them_twice(project: Path) -> None:
    with sole_use(project / "out", "command", part="part-0-of-2"):
        with pytest.raises(DataError, match="is in use"):
            ensemble(project, num_parts=2, part_id=0)
        ensemble(project, num_parts=2, part_id=1)
    ensemble(project, num_parts=2, part_id=0)
    assert not [path for path in (project / "out").iterdir() if path.name.startswith(".lock")]
    merge_statistics(project / "out", project / "out")


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_a_lock_is_never_written_into_another_file(project: Path, kind: str) -> None:
    victim, lock = project / "victim.txt", project / "out/.lock"
    victim.write_text("precious")
    lock.parent.mkdir()
    if kind == "link":
        lock.symlink_to(victim)
    elif kind == "hard link":
        lock.hardlink_to(victim)
    else:
        os.mkfifo(lock)
    with pytest.raises(DataError, match=r"out/\.lock: must be the lock of a command, got "):
        ensemble(project)
    assert victim.read_text() == "precious"


def test_a_refused_command_leaves_inputs_untouched(project: Path) -> None:
    before = files_in(project)
    with pytest.raises(DataError, match="is a folder of inputs"):
        ensemble_folders(folds(project), folds(project)[0], labels=project / "labels")
    assert files_in(project) == before


def test_a_conversion_holds_its_folder_and_goes_on_after_a_kill_at_its_start(
    tmp_path: Path,
) -> None:
    source, out = trees.brats(tmp_path / "source", 2021), tmp_path / "out"
    with (
        sole_use(out, "conversion"),
        pytest.raises(DataError, match="another conversion runs in it"),
    ):
        convert_dataset("brats2021", source, out)
    out.mkdir(exist_ok=True)
    (out / ".lock").touch()
    (out / ".tmp-00000000-1-1-abc-conversion.json").touch()
    assert convert_dataset("brats2021", source, out).done
