"""Folders that a process works in are its own, or those of processes on parts of their own."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import trees
from cohort import files_in, write_cohort, write_dataset_json

from fastcal.convert import convert_dataset
from fastcal.core import heartbeat
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


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOSYS, "Function not implemented")


@pytest.fixture(params=["locks", "no locks"])
def locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file system with locks, and one without, where signs of life are shown quickly."""
    kind: str = request.param
    if kind == "no locks":
        monkeypatch.setattr(fcntl, "flock", no_locks)
        monkeypatch.setattr(heartbeat, "BEAT", 0.05)
        monkeypatch.setattr(heartbeat, "PATIENCE", 40)
    return kind


@pytest.mark.usefixtures("locks")
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("", ""),
        ("", "part-0-of-2"),
        ("part-1-of-2", ""),
        ("part-0-of-2", "part-0-of-2"),
        ("part-0-of-2", "part-0-of-4"),
        ("part-1-of-4", "part-0-of-2"),
    ],
)
def test_what_may_do_the_same_case_is_refused_with_locks_and_without(
    tmp_path: Path, first: str, second: str
) -> None:
    message = re.escape(f"{tmp_path / 'out'}: is in use by process {os.getpid()} on ")
    with (
        sole_use(tmp_path / "out", "command", part=first),
        pytest.raises(DataError, match=message),
        sole_use(tmp_path / "out", "command", part=second),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
    with sole_use(tmp_path / "out", "command", part=second):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("locks")
def test_parts_of_one_number_of_parts_are_held_together(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with sole_use(out, "command", part="part-0-of-2"), sole_use(out, "command", part="part-1-of-2"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [".lock-part-0-of-4", ".lock-part-0-of-4.heartbeat"])
def test_what_a_dead_part_left_hinders_no_other_number_of_parts(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT", 0.02)
    (tmp_path / name).write_text("process 1 on node1")
    with sole_use(tmp_path, "command", part="part-0-of-2"):
        pass
    assert list(tmp_path.iterdir()) == []


def without_heartbeat(folder: Path) -> dict[str, bytes]:
    """The files of a folder but the sign of life, which changes."""
    return {name: held for name, held in files_in(folder).items() if "heartbeat" not in name}


def test_overwrite_takes_nothing_from_a_run_of_another_machine(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock is not seen from here, but its heartbeat is."""
    monkeypatch.setattr(heartbeat, "BEAT", 0.05)
    monkeypatch.setattr(heartbeat, "PATIENCE", 40)
    ensemble(project)
    with heartbeat.alone(project / "out", name=".lock.heartbeat"):
        before = without_heartbeat(project / "out")
        for options in ({}, {"workers": 2}, {"num_parts": 2}):
            with pytest.raises(DataError, match="is in use by"):
                ensemble(project, overwrite=True, **options)
        assert {
            k: v for k, v in files_in(project / "out").items() if "heartbeat" not in k
        } == before
    ensemble(project, overwrite=True)


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
