"""Files last through a power failure, and what a kill left is removed by the next run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastcal.core.doors import remove_leftovers, settle, sync, sync_folder, temporary_beside

DAY = 24 * 3600

WRITER = """
import sys, time
from pathlib import Path
from fastcal.core.doors import temporary_beside
temporary = temporary_beside(Path(sys.argv[1]) / "case_1.nii.gz")
temporary.write_bytes(b"half")
print(temporary.name, flush=True)
time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path: Path):
    """A process that writes a file into ``tmp_path`` and never ends, and that file."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield process, tmp_path / process.stdout.readline().strip()
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize(
    "name",
    [
        *("case_1.nii.gz", "a.npz", "x", ".hidden", "x" * 255, "x" * 250 + ".json"),
        *("ö" * 127, "病" * 80 + ".nii.gz", "a." * 127, "." * 200, "x" * 240 + ".nii.gz"),
    ],
)
def test_temporary_names_fit_and_keep_the_suffixes(name: str, tmp_path: Path):
    path = tmp_path / name
    temporary = temporary_beside(path)
    assert temporary.parent == tmp_path
    assert len(os.fsencode(temporary.name)) <= 240
    assert temporary.name.startswith(".tmp-")
    for suffix in (".nii.gz", ".npz", ".json"):
        if name.endswith(suffix):
            assert temporary.name.endswith(suffix)
    temporary.write_bytes(b"whole")
    settle(temporary, path)
    assert path.read_bytes() == b"whole"
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_two_writers_of_one_process_have_two_names(tmp_path: Path):
    assert temporary_beside(tmp_path / "a") != temporary_beside(tmp_path / "a")


def test_the_file_is_synced_before_the_rename_and_the_folder_after(tmp_path: Path, monkeypatch):
    calls: list[str] = []
    kinds = {True: "folder", False: "file"}
    real = os.fsync

    def noted(descriptor: int) -> None:
        calls.append(kinds[os.path.isdir(f"/proc/self/fd/{descriptor}")])  # noqa: PTH112
        calls.append(" ".join(sorted(one.name[:4] for one in tmp_path.iterdir())))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    temporary = temporary_beside(tmp_path / "a.json")
    temporary.write_text("{}")
    settle(temporary, tmp_path / "a.json")
    assert calls == ["file", ".tmp", "folder", "a.js"]


def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path: Path):
    sync_folder(tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "missing")


def test_the_file_of_a_killed_process_is_removed_and_that_of_a_living_one_stays(
    writer, tmp_path: Path
):
    process, left = writer
    own = temporary_beside(tmp_path / "b.json")
    own.write_text("half")
    assert remove_leftovers(tmp_path) == []
    assert left.exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert remove_leftovers(tmp_path) == [left]
    assert own.exists()


def test_a_process_that_got_the_number_of_a_dead_one_does_not_keep_its_file(writer, tmp_path: Path):
    _, left = writer
    earlier = re.sub(r"-(\d+)-(\d+)-", lambda m: f"-{m[1]}-{int(m[2]) - 7}-", left.name, count=1)
    (tmp_path / earlier).write_text("half")
    assert remove_leftovers(tmp_path) == [tmp_path / earlier]


def test_files_of_another_machine_stay_for_a_day(tmp_path: Path):
    name = re.sub(r"^\.tmp-.{8}-\d+", ".tmp-00000000-4000000", temporary_beside(Path("a")).name)
    foreign = tmp_path / name
    foreign.write_text("half")
    assert remove_leftovers(tmp_path) == []
    os.utime(foreign, (time.time() - DAY - 60,) * 2)
    assert remove_leftovers(tmp_path) == [foreign]


def test_nothing_else_is_removed(tmp_path: Path):
    kept = [".tmp-abc-case_1.nii.gz", ".tmp", "tmp-00000000-1-1-a", "case_1.nii.gz"]
    for name in kept:
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (0, 0))
    folder = tmp_path / ".tmp-00000000-1-1-folder"
    folder.mkdir()
    link = tmp_path / ".tmp-00000000-1-1-link"
    link.symlink_to(tmp_path / "case_1.nii.gz")
    for name in (folder, link):
        os.utime(name, (0, 0), follow_symlinks=False)
    assert remove_leftovers(tmp_path) == []
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted([*kept, folder.name, link.name])


def test_a_missing_folder_has_no_leftovers(tmp_path: Path):
    assert remove_leftovers(tmp_path / "missing") == []
    (tmp_path / "file").write_text("")
    assert remove_leftovers(tmp_path / "file") == []
