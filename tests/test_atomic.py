"""Files appear whole or not at all."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastcal.core.atomic import atomic_path, write_json, write_text


def test_the_file_appears_when_the_block_succeeds(tmp_path):
    path = tmp_path / "case.nii.gz"
    with atomic_path(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffixes == [".nii", ".gz"]
        temporary.write_bytes(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def write_half(path, error):
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_failure_leaves_the_earlier_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.json"
    path.write_text("earlier")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_text(tmp_path / "nowhere" / "a.txt", "x")


def test_a_full_disk_is_an_error_that_names_the_file_and_not_the_temporary_one(tmp_path):
    for name in (None, "temporary"):
        with (
            pytest.raises(OSError, match=r"No space left on device: '.*/a\.txt'"),
            atomic_path(tmp_path / "a.txt") as temporary,
        ):
            raise OSError(errno.ENOSPC, "No space left on device", name and str(temporary))
    with pytest.raises(FileNotFoundError, match="source"), atomic_path(tmp_path / "a.txt"):
        (tmp_path / "source").read_text()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_files_place_is_an_error_that_names_it(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(IsADirectoryError, match=r"Is a folder: '.*/a\.txt'"):
        write_text(tmp_path / "a.txt", "x")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.txt"]


def test_json_has_null_for_nan_and_plain_numbers_for_numpy(tmp_path):
    path = tmp_path / "a.json"
    write_json(
        path,
        {
            "nan": float("nan"),
            "inf": np.float32("inf"),
            "array": np.array([[1.5, np.nan]]),
            "count": np.int64(2**60),
            "pair": (1, True, None),
            "path": Path("a/b"),
            3: "key",
        },
    )
    assert json.loads(path.read_text()) == {
        "nan": None,
        "inf": None,
        "array": [[1.5, None]],
        "count": 2**60,
        "pair": [1, True, None],
        "path": "a/b",
        "3": "key",
    }


def test_json_of_what_has_no_form_writes_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, sys
from fastcal.core.atomic import atomic_path

with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), 9)
"""
WRITES = "import sys; from fastcal.core.atomic import write_text; write_text(sys.argv[1], 'whole')"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot tell whether a process lives")
def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path):
    path = tmp_path / "a.txt"
    assert subprocess.run([sys.executable, "-c", KILLED, path], check=False).returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".tmp-")
    subprocess.run([sys.executable, "-c", WRITES, path], check=True)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "whole"


def test_the_file_of_a_process_that_lives_stays(tmp_path):
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("slow")
        subprocess.run([sys.executable, "-c", WRITES, tmp_path / "b.txt"], check=True)
        assert temporary.exists()
    assert (tmp_path / "a.txt").read_text() == "slow"


def test_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append("fsync"), fsync(number))[1])
    monkeypatch.setattr(Path, "replace", lambda a, b: (done.append("replace"), replace(a, b))[1])
    write_text(tmp_path / "a.txt", "x")
    assert done[:2] == ["fsync", "replace"]


def test_a_name_of_250_bytes_is_written(tmp_path):
    path = tmp_path / ("a" * 240 + ".nii.gz")
    write_text(path, "x")
    assert list(tmp_path.iterdir()) == [path]
